"""Gradients in little memory and, when memory runs out, the same work again in smaller calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from rediffuse.errors import ModelError

T = TypeVar("T")


@dataclass(kw_only=True)
class Room:
    """How many samples one call may hold; halved each time that memory runs out, and it stays so.

    Args:
        batch: samples, at least 1.
        told: called with the new batch, to tell the user.
        hopeless: what a ModelError says where not even one sample fits.
    """

    batch: int
    told: Callable[[int], None]
    hopeless: Callable[[], str]

    def fit(self, attempt: Callable[[int], T]) -> T:
        """What attempt(batch) gives; where memory runs out it is called again with half, so it must be work that can begin anew.

        Raises:
            ModelError: memory ran out at a batch of 1. Other errors pass.
        """
        while True:
            try:
                return attempt(self.batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.batch == 1:
                    raise ModelError(self.hopeless()) from error
            # Behind the handler: an error that is still at hand holds the frames, and they hold the tensors.
            self.batch //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.told(self.batch)


def checkpointed(network: nn.Module) -> list[Any]:
    """Parts of a network that can compute their activations again instead of keeping them, by their attribute `checkpointing`."""
    return [part for part in network.modules() if isinstance(getattr(part, "checkpointing", None), bool)]


@contextmanager
def checkpointing(network: nn.Module) -> Iterator[None]:
    """Inside, those parts of a network that can compute their activations again for a gradient do so; the gradient is the same."""
    before = [(part, part.checkpointing) for part in checkpointed(network)]
    for part, _ in before:
        part.checkpointing = True
    try:
        yield
    finally:
        for part, own in before:
            part.checkpointing = own


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or an accelerator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "alloc_failed" in said or ("alloc" in said and "memory" in said))
