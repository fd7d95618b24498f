"""The corrupted copies of a test set, made once and kept in the layout of CIFAR-10-C, so that every classifier is judged by the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.errors import DataError
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import SEVERITIES
from rediffuse.writing import whole


def make_corrupted(folder: Path, images: Tensor, corruptions: Sequence[str], progress: Callable[[int, int], None] | None = None) -> None:
    """Write NAME.npy, (5 N, H, W, 3) uint8, severity 1 first, for each corruption that is not there yet.

    images: (N, 3, H, W) uint8. A file is there whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(corruptions):
        file = folder / f"{name}.npy"
        if not file.exists():
            made = torch.cat([corrupt(images, name, severity) for severity in SEVERITIES])
            with whole(file) as partial, partial.open("wb") as handle:
                np.save(handle, made.permute(0, 2, 3, 1).contiguous().numpy(), allow_pickle=False)
        if progress is not None:
            progress(place + 1, len(corruptions))


def read_corrupted(folder: Path, name: str, severity: int, count: int) -> Tensor:
    """(N, 3, H, W) uint8. Raises DataError for a file of another number of pictures."""
    held: NDArray[np.uint8] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    if len(held) != count * len(SEVERITIES):
        raise DataError(f"{folder / name}.npy holds {len(held)} pictures, {count} at each of 5 severities were expected; remove it")
    rows = held[(severity - 1) * count : severity * count]
    return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))
