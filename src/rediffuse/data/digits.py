"""Scikit-learn's 1,797 scans of handwritten digits: real images that come with a dependency."""

from __future__ import annotations

import hashlib
from typing import Any

from rediffuse.data.images import hash_pixels
from rediffuse.data.types import ImageSet, PixelPayload, Record
from rediffuse.errors import DataError

# MNIST: digits of 20 pixels in a frame of 28.
_FRAME_CELLS = 8 * 28 / 20


def digits(size: int = 64, split: str = "train", *, flips: bool = False) -> ImageSet:
    """Handwritten digits, white on black, enlarged smoothly from real 8x8 scans.

    Choose it to try the program with no data of one's own. The halves are stratified and fixed: about 90 scans of each digit in either.

    Args:
        size: width and height in pixels, 8 to 1024; the digit fills 20/28 of it, as in MNIST.
        split: train, test or all.
        flips: False, because a mirrored digit is no digit; here so that all readers take the same options.
    Reference: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
    """
    if split not in ("train", "test", "all"):
        raise DataError(f"split of digits must be train, test or all, got {split!r}")
    if not 8 <= size <= 1024:
        raise DataError(f"size of digits must be 8 to 1024 pixels, got {size}")
    from sklearn.datasets import load_digits

    scans = load_digits()
    labels = [int(label) for label in scans.target]
    first_half = _first_half(labels)
    records = []
    for row, (scan, label) in enumerate(zip(scans.images, labels, strict=True)):
        if split == "all" or (row in first_half) == (split == "train"):
            pixels = _enlarge(scan, size)
            digest = hash_pixels(size, size, pixels)
            payload = PixelPayload(size, size, pixels)
            records.append(Record(id=f"digits/{row:04d}", payload=payload, label=label, digest=digest, size=(size, size)))
    return ImageSet(records, classes=tuple("0123456789"), name=f"digits ({split})", flips=flips)


def _first_half(labels: list[int]) -> frozenset[int]:
    """Half of each class, by a permutation made of hashes: the same on every machine and version."""
    chosen: list[int] = []
    for label in range(10):
        rows = [row for row, own in enumerate(labels) if own == label]
        rows.sort(key=lambda row: hashlib.sha256(f"digits/{row:04d}".encode()).digest())
        chosen.extend(rows[: (len(rows) + 1) // 2])
    return frozenset(chosen)


def _enlarge(scan: Any, size: int) -> bytes:
    """RGB bytes of one scan, (8, 8) of ink from 0 to 16, interpolated by a bicubic kernel with black around it."""
    import numpy as np
    from PIL import Image

    ink = Image.fromarray(np.pad(scan.astype(np.float32) * (255 / 16), 4))  # (16, 16)
    margin = (16 - _FRAME_CELLS) / 2
    enlarged = ink.resize((size, size), Image.Resampling.BICUBIC, box=(margin, margin, 16 - margin, 16 - margin))
    grey = np.asarray(enlarged).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB").tobytes()
