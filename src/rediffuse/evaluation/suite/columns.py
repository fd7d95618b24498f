"""Ensembles beside the classifiers that they are made of: the same images, clean and corrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.calibrating import Calibrations, calibrate
from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
from rediffuse.evaluation.corruptions.constants import COMMON, SMALLEST
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.corruptions.sources import Live
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.statistics import Interval, paired_bootstrap, share

TURN = 64
"""Images that all classifiers are asked about in turn: few, so that the views which they share are still there (`SharedViews`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What an ensemble makes of each classifier.

    Attributes:
        kind: the ensemble, such as "DiffAug ensemble".
        pairs: (classifier, its ensemble), by name.
        clean: calibration, and with it accuracy, of all of them on the images as they are.
        corrupted: their accuracy under corruptions; None where the images cannot be corrupted, for the `reason`.
    """

    kind: str
    pairs: tuple[tuple[str, str], ...]
    images: int
    clean: Calibrations
    corrupted: CorruptionResult | None = None
    reason: str = ""

    def clean_accuracy(self, name: str) -> Interval:
        return share(self.clean.find(name).as_is.right)

    def clean_gain(self, ours: str, theirs: str) -> Interval:
        """Paired over images."""
        first, second = (self.clean.find(name).as_is.right[None] for name in (ours, theirs))
        return paired_bootstrap(np.asarray(first), np.asarray(second), None)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each classifier and for each ensemble, with what the ensemble changes."""
        found = []
        for default, column in self.pairs:
            for name in (default, column):
                row: dict[str, Any] = {"model": default, "asked": self.kind if name == column else "default"}
                row["clean"] = self.clean_accuracy(name).to_json()
                row["ece"] = self.clean.find(name).row()["ece"]
                if self.corrupted is not None:
                    row["corrupted"] = self.corrupted.mean(name).to_json()
                if name == column:
                    row["clean_gain"] = self.clean_gain(column, default).to_json()
                    if self.corrupted is not None:
                        row["corrupted_gain"] = self.corrupted.difference(column, default).to_json()
                found.append(row)
        return found

    def differences(self) -> list[dict[str, Any]]:
        """How much more each ensemble is right than each later one, paired over images."""
        found = []
        for ours, theirs in combinations([column for _, column in self.pairs], 2):
            row: dict[str, Any] = {"model": ours, "over": theirs, "clean": self.clean_gain(ours, theirs).to_json()}
            if self.corrupted is not None:
                row["corrupted"] = self.corrupted.difference(ours, theirs).to_json()
            found.append(row)
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "images": self.images,
            "reason": self.reason,
            "rows": self.rows(),
            "differences": self.differences(),
            "clean": self.clean.to_json(),
            "corrupted": None if self.corrupted is None else self.corrupted.to_json(),
        }


def ask_columns(
    kind: str,
    models: Sequence[Judged],
    columns: Sequence[Judged],
    images: ImageSet,
    *,
    size: int,
    fit: str,
    severities: Sequence[int],
    seed: int,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Columns:
    """Accuracy and calibration of classifiers and their ensembles; images that cannot be corrupted are judged as they are.

    Args:
        columns: the ensemble of each model, see `test_time.judging.judged_by`.
        severities: of the fifteen common corruptions.
    Raises:
        ConfigError, DataError, ModelError: as `calibrate` and `corruption_accuracy`, for anything but pictures too small to corrupt.
    """
    every = [*models, *columns]
    both = len(images) * (looks(severities) if size >= SMALLEST else 1)
    first, second = (None, None) if keep is None else (keep.with_name(f"{keep.name}-{end}") for end in ("clean", "corrupted"))
    clean = calibrate(every, images, size=size, fit=fit, batch=TURN, keep=first, progress=_shift(progress, 0, both))
    corrupted, reason = None, ""
    try:
        live = Live(images, size=size, fit=fit, seed=seed)
    except DataError as error:  # too small; what goes wrong later, such as a kept block that cannot be read, is a failure
        reason = str(error)
    else:
        corrupted = corruption_accuracy(
            every, live, severities=severities, batch=TURN, keep=second, progress=_shift(progress, len(images), both)
        )
    pairs = tuple((model.name, column.name) for model, column in zip(models, columns, strict=True))
    return Columns(kind=kind, pairs=pairs, images=len(images), clean=clean, corrupted=corrupted, reason=reason)


def looks(severities: Sequence[int]) -> int:
    """How often `ask_columns` reports each image: as it is, twice, and under each corruption and severity."""
    return 2 + len(COMMON) * len(severities)


def _shift(progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, _: progress(min(total, before + done), total)
