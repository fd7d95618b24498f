"""One training on one process, or on several that torchrun started: which part of a batch is this one's, and how gradients meet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, distributed, nn

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True, eq=False)
class Processes:
    """rank: of this process; count: of all; device: where it computes; accelerator: accelerate's, where there are several."""

    rank: int
    count: int
    device: torch.device
    accelerator: Any = None

    @classmethod
    def open(cls, device: torch.device) -> Processes:
        """What torchrun's environment says; without it this process alone, on the device given.

        Several stay on the kind of device that the classifier came on: each takes one of its own of that kind.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(rank=0, count=1, device=device)
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        # Networks of transformers may hold weights that no picture reaches, such as DINOv2's mask token.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[unused])
        own = {"rank": accelerator.process_index, "count": accelerator.num_processes, "device": accelerator.device}
        return cls(**own, accelerator=accelerator)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def synchronised(self) -> bool:
        """Whether BatchNorm's statistics are those of all processes together."""
        return self.accelerator is not None and self.device.type == "cuda"

    def rows(self, batch: int) -> slice:
        """This process's part of a batch. Raises ConfigError where it cannot be parted evenly."""
        if batch % self.count:
            raise ConfigError(f"a batch of {batch} cannot be parted among {self.count} processes; give a multiple of {self.count}")
        part = batch // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def key(self, *key: int | str) -> tuple[int | str, ...]:
        """A key of chance that differs between processes; alone it stays as it is."""
        return key if self.rank == 0 else (*key, f"process {self.rank}")

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module as it is to be called: gradients are averaged over the processes. BatchNorm is synchronised on accelerators."""
        if self.accelerator is None:
            return module
        if self.synchronised:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        wrapped: nn.Module = self.accelerator.prepare_model(module)
        return wrapped

    def collect(self, own: Any) -> list[Any]:
        """What each process brings, in order of their ranks, for the first; the others get an empty list."""
        if self.accelerator is None:
            return [own]
        found: list[Any] = [None] * self.count if self.first else []
        distributed.gather_object(own, found if self.first else None, dst=0, group=_processor_group())
        return found

    def compare(self, own: Any) -> list[Any]:
        """What each process brings, in order of their ranks, for all. For what is small."""
        if self.accelerator is None:
            return [own]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, own, group=_processor_group())
        return found

    def largest(self, own: int) -> int:
        """The largest number that a process brings, for all."""
        if self.accelerator is None:
            return own
        found = torch.tensor(own)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_processor_group())
        return int(found)

    def agree(self, values: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.accelerator is not None:
            for value in values:
                distributed.broadcast(value, src=0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


@lru_cache(maxsize=1)
def _processor_group() -> Any:
    """A group of all processes that talks through the processor's memory; None where they do so anyway."""
    return None if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")
