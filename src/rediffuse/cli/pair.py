"""Photos to train on and photos to be judged on: what `train` and `compare` begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import open_photos
from rediffuse.errors import ConfigError
from rediffuse.progress import counted

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

TRAIN_NAMES = ("train", "training")
NO_JUDGE = "a run is nothing to judge by: give photos"
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev")


def open_pair(data: str, *, split: str | None, test: str | None, flips: bool, quiet: bool) -> tuple[ImageSet, ImageSet | None]:
    """(photos to train on, photos to be judged on): the second is `test` (a path, or a split of the data), else the data's own test split.

    None where there is neither: the caller holds some out.
    """
    there = split_names(data)
    learned, own = own_splits(data, split)
    judged = own if test is None else test
    images = open_photos(data, split=learned, flips=flips, quiet=quiet)
    if judged is None:
        return images, None
    held = _open_judged(data, judged, there, flips, quiet)
    if test is None:
        terminal.note(f"Judged on the split {judged} of {data} ({counted(len(held), 'photo')}).", quiet=quiet)
    return images, held


def own_splits(data: str, split: str | None) -> tuple[str | None, str | None]:
    """Names of the splits of a set to train on and to be judged on: `split` and the set's own, None where there is none by its layout."""
    there = split_names(data)
    learned = next((name for name in TRAIN_NAMES if name in there), None) if split is None else split
    return learned, None if learned is None else next((name for name in TEST_NAMES if name in there and name != learned), None)


def _open_judged(data: str, judged: str, there: tuple[str, ...], flips: bool, quiet: bool) -> ImageSet:
    elsewhere = Path(judged).expanduser().exists()
    inside = data.startswith("hub:") or (Path(data).expanduser() / judged).is_dir()
    if judged in there or (inside and not elsewhere):
        return open_photos(data, split=judged, flips=flips, quiet=quiet)
    return open_photos(judged, flips=flips, quiet=quiet)


def generated(spec: str, split: str | None = None) -> str:
    """`out holds the images of a run`, where what was named is no set of real photos; empty where it is.

    Args:
        spec: as typed: perhaps a run, its images or its table, or exported copies. split: that is read of it, which may be one.
    """
    from rediffuse.data.outputs import EXPORT_KIND, IMAGES, RUN_KIND, output_kind

    if spec == "digits" or spec.startswith("hub:"):
        return ""
    root = Path(spec).expanduser().absolute()
    for place in (root, root / (split or "")):
        told = f"{spec if split is None else place} holds {{}}, which are generated, not real"
        if output_kind(place) == EXPORT_KIND:
            return told.format(EXPORT_KIND)
        if output_kind(place.parent if place.name == IMAGES or place.is_file() else place) == RUN_KIND:
            return told.format(RUN_KIND)
    return ""


def check_real(spec: str, fix: str, split: str | None = None) -> None:
    """Refuse generated pictures where real photos are asked for: copies of one photo are much alike. Raises ConfigError.

    Args:
        spec, split: as in `generated`.
        fix: what to do instead.
    """
    if told := generated(spec, split):
        raise ConfigError(f"{told}; {fix}")


def check_pair(data: str, fix: str, *, split: str | None, test: str | None) -> None:
    """As `check_real`, of photos to learn from and of those to be judged on."""
    check_real(data, fix, split)
    if test is not None and Path(test).expanduser().exists():
        check_real(test, NO_JUDGE)
    elif test is not None:
        check_real(data, NO_JUDGE, test)


def split_names(data: str) -> tuple[str, ...]:
    """Splits that a set has by its layout: shards, folders called like splits that hold class folders, the two halves of the digits.

    () where there are none.
    """
    from rediffuse.data.open import labelled_splits
    from rediffuse.data.table import shards

    if data == "digits":
        return ("train", "test")
    path = Path(data).expanduser()
    return (tuple(shards(path)) or tuple(labelled_splits(path))) if path.is_dir() else ()
