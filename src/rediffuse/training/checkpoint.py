"""Checkpoints of a training: one file, replaced whole."""

from __future__ import annotations

import hashlib
import pickle  # for the name of its error alone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rediffuse.errors import ConfigError, ModelError
from rediffuse.writing import whole


def read_checkpoint(path: Path, key: str) -> dict[str, Any] | None:
    """The state that was kept, or None at the first start.

    Raises:
        ModelError: the file cannot be read.
        ConfigError: it belongs to another training.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        own = state["key"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"checkpoint {path} cannot be read ({type(error).__name__}); remove it to begin again") from error
    if own != key:
        raise ConfigError(
            f"checkpoint {path} belongs to another training (other images, network, settings or seed); remove it, or give another path"
        )
    return state


def weights_hash(module: nn.Module) -> str:
    """A hash of all names, shapes, types and values of a module's state."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def keep_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. A kill may leave NAME.partial, which the next one replaces."""
    with whole(path, path.with_name(path.name + ".partial")) as partial, partial.open("wb") as file:
        torch.save(state, file)
