"""Checkpoints of a training: one file, replaced whole."""

from __future__ import annotations

import hashlib
import json
import pickle  # for the name of its error alone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rediffuse.differences import short, unequal
from rediffuse.errors import ConfigError, ModelError
from rediffuse.writing import whole

OTHERWISE = "other images, network, settings, seed or version"


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
            f"checkpoint {path} belongs to another training ({_differences(own, key)}); give that command again to go on with it, remove "
            "it to begin anew, or give another folder"
        )
    return state


def _differences(own: str, key: str) -> str:
    """What tells two trainings apart, by name; of another version's key no more than that there is something."""
    try:
        there, here = json.loads(own), json.loads(key)
    except ValueError:
        return OTHERWISE
    found = [f"{name} was {short(old)}, now {short(new)}" for name, old, new in unequal(there, here)]
    if not found:
        return OTHERWISE
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def weights_hash(module: nn.Module) -> str:
    """A hash of all names, shapes, types and values of a module's state."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def keep_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all. A kill may leave a hidden file of its process, which the next one removes."""
    with whole(path) as partial, partial.open("wb") as file:
        torch.save(state, file)
