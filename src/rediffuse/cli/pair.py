"""Photos to train on and photos to be judged on: what `train` and `compare` begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli.common import open_photos

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev")


def open_pair(data: str, *, split: str | None, test: str | None, flips: bool, quiet: bool) -> tuple[ImageSet, ImageSet | None]:
    """(photos to train on, photos to be judged on): the second is `test` (a path, or a split of the data), else the data's own test split.

    None where there is neither: the caller holds some out.
    """
    there = split_names(data)
    own = next((name for name in TRAIN_NAMES if name in there), None) if split is None else split
    judged = next((name for name in TEST_NAMES if name in there and name != own), None) if test is None and own is not None else test
    images = open_photos(data, split=own, flips=flips, quiet=quiet)
    return images, None if judged is None else _open_judged(data, judged, there, flips, quiet)


def _open_judged(data: str, judged: str, there: tuple[str, ...], flips: bool, quiet: bool) -> ImageSet:
    elsewhere = Path(judged).expanduser().exists()
    inside = data.startswith("hub:") or (Path(data).expanduser() / judged).is_dir()
    if judged in there or (inside and not elsewhere):
        return open_photos(data, split=judged, flips=flips, quiet=quiet)
    return open_photos(judged, flips=flips, quiet=quiet)


def split_names(data: str) -> tuple[str, ...]:
    """Splits that a set has by its layout: shards, folders called like splits, the two halves of the digits; () where there are none."""
    from rediffuse.data.folder import photo_folders
    from rediffuse.data.table import shards

    if data == "digits":
        return ("train", "test")
    path = Path(data).expanduser()
    if not path.is_dir():
        return ()
    found = tuple(shards(path))
    if found:
        return found
    folders = tuple(photo_folders(path))
    named = bool(folders) and set(folders) <= {*TRAIN_NAMES, *TEST_NAMES} and not set(folders).isdisjoint(TRAIN_NAMES)
    return folders if named and all(any(inner.is_dir() for inner in (path / name).iterdir()) for name in folders) else ()
