"""How often a classifier is right: top-1, the mean over classes, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a classifier did on a labelled set; every figure follows from the confusion counts.

    Attributes:
        classes: names, in label order.
        confusion: counts, one row a true class, one column a predicted one.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The confusion as an array (true, predicted)."""
        return np.asarray(self.confusion, dtype=np.int64)

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    @property
    def shown(self) -> int:
        """Classes that have test images."""
        return int((self.counts.sum(axis=1) > 0).sum())

    @property
    def top1(self) -> float:
        """Share of images that are named rightly."""
        return float(np.trace(self.counts) / self.images)

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Share of each class's images that are named rightly; None for a class without test images."""
        totals = self.counts.sum(axis=1)
        return tuple(float(self.counts[k, k] / total) if total else None for k, total in enumerate(totals))

    @property
    def mean_per_class(self) -> float:
        """Unweighted mean over the classes that have test images; counting the others as 0 would punish every arm alike."""
        present = [value for value in self.per_class if value is not None]
        return float(np.mean(present))

    def to_json(self) -> dict[str, Any]:
        return {
            "top1": self.top1,
            "mean_per_class": self.mean_per_class,
            "per_class": list(self.per_class),
            "confusion": [list(row) for row in self.confusion],
            "classes": list(self.classes),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Accuracy:
        return cls(classes=tuple(values["classes"]), confusion=tuple(tuple(row) for row in values["confusion"]))


def measure(predictions: Sequence[int], labels: Sequence[int], classes: Sequence[str]) -> Accuracy:
    """Count predictions against true labels.

    Args:
        predictions, labels: one class index an image.
        classes: names, in label order.
    Raises:
        DataError: no images, different lengths, or an index outside the classes.
    """
    guessed, truth = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if guessed.shape != truth.shape or guessed.ndim != 1 or guessed.size == 0:
        raise DataError(f"predictions and labels must be two lists of one length, at least 1, got {guessed.shape} and {truth.shape}")
    count = len(classes)
    outside = [int(value) for value in np.concatenate([guessed, truth]) if not 0 <= value < count]
    if outside:
        raise DataError(f"class index {outside[0]} is outside the {count} classes")
    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (truth, guessed), 1)
    return Accuracy(classes=tuple(classes), confusion=tuple(tuple(int(cell) for cell in row) for row in confusion))
