"""Views of every training picture, made once with the same times and noise by each denoiser, and shared by all arms and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.recipes.robust.arms import SIZE, denoiser_of
from rediffuse.training.views import fill_bank

Progress = Callable[[int, int], None]


def make_bank(
    name: str,
    file: Path,
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor,
    draws: int,
    progress: Progress | None = None,
) -> Bank:
    """A bank to read that holds `draws` views of each picture; what a killed run left is gone on with, what is there is taken as it is.

    Args:
        name: of `arms.BANKS`.
        file: of the bank; a byte a number, so 4 views of 45,000 pictures of 32 pixels take 553 MB.
        denoiser: the network; for the controls its schedule alone counts.
        images: (N, 3, H, W) uint8; labels: (N,) int64.
    """
    method = DiffAug(denoiser_of(name, denoiser, images))
    file.parent.mkdir(parents=True, exist_ok=True)
    bank = Bank(method, rate=0, capacity=draws * len(images), path=file, spare=0)
    fill_bank(bank, images, labels, draws, (SIZE, SIZE), progress=progress)
    del bank  # and with it the right to write: trainings in other processes read the same file
    return Bank(None, rate=0, path=file)


def digest_of(file: Path) -> str:
    """Of a bank that is filled: the views of another machine or of other numbers have another one."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
