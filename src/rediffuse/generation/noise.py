"""Rows for pictures that have no source: how many of each class, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from rediffuse.data.types import ImageSet, PixelPayload, Record
from rediffuse.errors import ConfigError


def noise_sources(classes: Sequence[str], count: int, side: int, *, flips: bool = True) -> ImageSet:
    """What `generate` takes for photos where the method is `FromNoise`: `count` blanks of each class, called CLASS/NUMBER.

    A blank has no digest; the noise of its picture is decided by the run's seed and its name.

    Args:
        classes: true class names.
        count: pictures of each, made with copies=1.
        side: of the pictures in pixels.
        flips: whether a mirrored picture keeps its label.
    """
    if count < 1:
        raise ConfigError(f"copies must be at least 1, got {count}")
    blank = PixelPayload(side, side, b"\xff" * (3 * side * side))  # one for all
    records = [
        Record(id=f"{name}/{number:05d}", payload=blank, label=label, digest="", size=(side, side))
        for label, name in enumerate(classes)
        for number in range(count)
    ]
    return ImageSet(records, classes=classes, name="noise", flips=flips)
