"""Checkpoints of a training: one file, replaced whole."""

from __future__ import annotations

import os
import pickle  # for the name of its error alone
from pathlib import Path
from typing import Any

import torch

from rediffuse.errors import ConfigError, ModelError


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
            f"checkpoint {path} belongs to another training (other images, settings or seed); remove it, or give another path"
        )
    return state


def keep_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside, sync, rename: a kill leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
