"""Photos to train on and photos to be judged on: what `train` and `compare` begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli.common import Shared, open_photos
from rediffuse.cli.terminal import note
from rediffuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev")


def open_pair(data: str, *, split: str | None, test: str | None, holdout: float, flips: bool, common: Shared) -> tuple[ImageSet, ImageSet]:
    """(photos to train on, photos to be judged on), labels counted in one class list.

    The second is `test` (a path, or a split of the data); else the data's own test split; else a share of each class.

    Raises:
        DataError: no such split, or the two are the same photos.
    """
    from rediffuse.data.splits import holdout as cut

    if not 0 < holdout < 1:
        raise ConfigError(f"--holdout is a share of each class and must be in (0, 1), got {holdout}")
    there = split_names(data)
    own = next((name for name in TRAIN_NAMES if name in there), None) if split is None else split
    judged = next((name for name in TEST_NAMES if name in there and name != own), None) if test is None and own is not None else test
    images = open_photos(data, split=own, flips=flips, quiet=common.quiet)
    if judged is None:
        kept, held = cut(images, holdout, common.seed)
        note(f"No test photos were given: {len(held)} of {len(images)} are held out, {holdout:.0%} of each class.", quiet=common.quiet)
        return kept, held
    held = _open_judged(data, judged, there, flips, common).with_classes(images.classes)
    check_apart(images, held, quiet=common.quiet)
    return images, held


def _open_judged(data: str, judged: str, there: tuple[str, ...], flips: bool, common: Shared) -> ImageSet:
    elsewhere = Path(judged).expanduser().exists()
    inside = data.startswith("hub:") or (Path(data).expanduser() / judged).is_dir()
    if judged in there or (inside and not elsewhere):
        return open_photos(data, split=judged, flips=flips, quiet=common.quiet)
    return open_photos(judged, flips=flips, quiet=common.quiet)


def split_names(data: str) -> tuple[str, ...]:
    """Splits that a set has by its layout: shards, folders called like splits, the two halves of the digits; () where there are none."""
    from rediffuse.data.table import shards

    if data == "digits":
        return ("train", "test")
    path = Path(data).expanduser()
    if not path.is_dir():
        return ()
    found = tuple(shards(path))
    if found:
        return found
    folders = tuple(sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")))
    named = bool(folders) and set(folders) <= {*TRAIN_NAMES, *TEST_NAMES} and not set(folders).isdisjoint(TRAIN_NAMES)
    return folders if named and all(any(inner.is_dir() for inner in (path / name).iterdir()) for name in folders) else ()


def check_apart(images: ImageSet, held: ImageSet, *, quiet: bool = False) -> None:
    """Say so where photos to be judged on are among those to train on, pixel for pixel. Raises DataError if all of them are."""
    known = dict(zip(images.digests, images.ids, strict=True))
    both = [(name, known[digest]) for name, digest in zip(held.ids, held.digests, strict=True) if digest in known]
    if not both:
        return
    if len(both) == len(held):
        raise DataError(f"all {len(held)} test photos are also photos to train on (first: {both[0][0]!r}); give other photos with --test")
    first, twin = both[0]
    note(
        f"{len(both)} of {len(held)} test photos are also among those to train on (first: {first!r} is {twin!r}): the accuracy flatters.",
        quiet=quiet,
        style="yellow",
    )
