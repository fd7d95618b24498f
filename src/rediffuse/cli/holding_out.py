"""Photos to be judged on: the set's own, or a share of each class that is not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import Shared
from rediffuse.cli.pair import own_splits
from rediffuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

HELD_OUT_SHARE = 0.2


def check_holdout(share: float | None, data: str, split: str | None, test: str | None) -> None:
    """Refuse a share that is none, or that nobody would hold out because other photos judge. Raises ConfigError."""
    if share is None:
        return
    if not 0 < share < 1:
        raise ConfigError(f"--holdout must be above 0 and below 1, got {share:g}; 0.2 holds out a fifth of each class")
    needless = f"--holdout {share:g} is for sets without other photos to be judged on"
    if test is not None:
        raise ConfigError(f"{needless}, and --test {test} names some; leave one of the two out")
    if (own := own_splits(data, split)[1]) is not None:
        raise ConfigError(f"{needless}, and {data} brings a split {own}; leave --holdout out")


def hold_out(images: ImageSet, test: ImageSet | None, share: float, common: Shared) -> tuple[ImageSet, ImageSet]:
    """(photos to train on, photos to be judged on), no picture in both; without test photos a share of each class is held out.

    Raises:
        DataError: no picture of a class is left to train on.
    """
    from rediffuse.data.splits import held_out_line, holdout
    from rediffuse.evaluation.few_shot.bench import split

    if test is None:
        kept, held = holdout(images, share, common.seed)
        terminal.note(held_out_line(images, held, share), quiet=common.quiet)
    else:
        kept, held = images, test
    kept, held, notes = split(kept, held)
    for line in notes:
        terminal.note(line.replace("no shot was taken from them", "they are left out of training"), quiet=common.quiet, style="yellow")
    for name, whole, left in zip(images.classes, images.counts(), kept.counts(), strict=True):
        if whole and not left:
            raise DataError(
                f"class {name!r} has no photo left to train on, because each of its {whole:,} judges too, pixel for pixel; add other "
                "photos of it, give other test photos with --test, or remove the class"
            )
    return kept, held
