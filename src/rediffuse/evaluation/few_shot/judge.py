"""One cell: train its classifier, name the test images. Every arm gets the same start, draws, steps and views."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.mixing import Mixed
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.evaluation.accuracy import measure
from rediffuse.evaluation.few_shot.arms import Copies
from rediffuse.evaluation.few_shot.cells import CellResult, CellStore
from rediffuse.evaluation.few_shot.settings import AUTO_ALPHAS, PIXELS, Cell, CompareSettings
from rediffuse.progress import Bar
from rediffuse.training.augment import StandardViews
from rediffuse.training.backbones import SCRATCH, open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.linear import FeatureBank, fit_head
from rediffuse.training.loop import fit_network
from rediffuse.training.pool import PixelBank, Pool, labels_of

FOLDS = 4
"""Of the cross-validation that chooses alpha; fewer where there are fewer shots."""
RAW_SIDE = 16
"""Side in pixels at which logistic regression sees pictures: twice that of the scans of digits."""


class Judge:
    """Trains and judges cells.

    Args:
        pool: the photos that shots are taken from.
        test: photos that no choice has seen.
        settings: of the comparison.
        copies: gives each arm its copies.
        store: where a training under way keeps its checkpoint.
        device: of the classifiers.
    """

    def __init__(
        self,
        pool: ImageSet,
        test: ImageSet,
        settings: CompareSettings,
        copies: Copies,
        store: CellStore,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pool, self.test, self.settings, self.copies, self.store = pool, test, settings, copies, store
        self.device = torch.device(device)
        self.truth = labels_of(test).tolist()
        self.pixels = PixelBank(settings.size, settings.fit)
        self._test_pixels: Tensor | None = None
        self._features: dict[str, FeatureBank] = {}

    def run(self, cell: Cell) -> CellResult:
        """Train and judge one cell."""
        began = time.monotonic()
        real = few_shot(self.pool, cell.shots, cell.seed)
        made = self.copies.of(cell.arm, cell.shots, cell.seed)
        began_training = time.monotonic()
        if cell.arm == PIXELS:
            alpha, predictions = 0.0, raw_pixels(self.pixels.of(real), labels_of(real), self.test_pixels)
        else:
            alpha = 0.0 if made is None else self.alpha(cell, real, made)
            predictions = self.predict(cell, real, made, alpha)
        found = measure(predictions, self.truth, self.pool.classes)
        return CellResult(
            cell=cell,
            predictions=tuple(predictions),
            accuracy=found.mean_per_class,
            top1=found.top1,
            alpha=alpha,
            real=len(real),
            synthetic=0 if made is None else len(made),
            seconds=time.monotonic() - (began if made is None else began_training),
        )

    def predict(self, cell: Cell, real: ImageSet, made: ImageSet | None, alpha: float, held: ImageSet | None = None) -> list[int]:
        """Train on these images at a cell's level and seed; class indices of the test images, or of those held out."""
        where = dict(self.settings.levels)[cell.level]
        if where == SCRATCH:
            checkpoint = None if held is not None else self.store.path(cell).with_suffix(".training")
            classifier = self._network(real, made, alpha, cell.seed, checkpoint)
            guessed = classifier.predict(self.test_pixels if held is None else self.pixels.of(held)).argmax(1)
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
            return [int(label) for label in guessed]
        bank = self.features(cell.level)
        items = None if made is None else self._of(bank, made)
        pool = Pool.build(self._of(bank, real), labels_of(real), items, Mixed(real, made, alpha).copies, alpha)
        head = fit_head(pool, len(self.pool.classes), settings=self.settings.linear, seed=cell.seed)
        with torch.no_grad():
            return [int(label) for label in head(self._of(bank, self.test if held is None else held)[:, 0]).argmax(1)]

    def _of(self, bank: FeatureBank, images: ImageSet) -> Tensor:
        with Bar(self.copies.progress, "pictures") as bar:
            bar.stage("features")
            return bank.of(images, bar.report)

    def _network(self, real: ImageSet, made: ImageSet | None, alpha: float, seed: int, checkpoint: Path | None) -> Classifier:
        items = None if made is None else self.pixels.of(made)
        pool = Pool.build(self.pixels.of(real), labels_of(real), items, Mixed(real, made, alpha).copies, alpha)
        start = open_backbone(SCRATCH, self.pool.classes, seed=seed, size=self.settings.size).to(self.device)
        views = StandardViews(flips=self.pool.flips)
        with Bar(self.copies.progress, "steps") as bar:
            bar.stage("training", self.settings.whole.steps)
            return fit_network(
                start, pool, settings=self.settings.whole, views=views, seed=seed, checkpoint=checkpoint, progress=bar.report
            )

    def alpha(self, cell: Cell, real: ImageSet, made: ImageSet) -> float:
        """The probability of a copy: as set, or the best in cross-validation on the shots (the least of equals; .5 at one shot).

        A fold's copies are those of its own photos, but DA-Fusion's words were learned from all shots: the choice leans a little towards
        copies.
        """
        if self.settings.alpha != "auto":
            return self.settings.alpha
        if cell.shots < 2:
            return 0.5
        scores = dict.fromkeys(AUTO_ALPHAS, 0.0)
        for inner, held in folds(real, min(FOLDS, cell.shots)):
            truth = labels_of(held).tolist()
            for alpha in AUTO_ALPHAS:
                guessed = self.predict(cell, inner, made, alpha, held)
                scores[alpha] += measure(guessed, truth, self.pool.classes).mean_per_class
        return max(AUTO_ALPHAS, key=lambda alpha: (scores[alpha], -alpha))

    def features(self, level: str) -> FeatureBank:
        """The feature bank of a level, its network loaded once."""
        if level not in self._features:
            network = open_backbone(dict(self.settings.levels)[level], self.pool.classes, size=self.settings.size).to(self.device)
            self._features[level] = FeatureBank(network, self.pixels, self.pool.flips)
        return self._features[level]

    @property
    def test_pixels(self) -> Tensor:
        """(N, 3, size, size) uint8, decoded once."""
        if self._test_pixels is None:
            with Bar(self.copies.progress, "pictures") as bar:
                bar.stage("reading the test photos")
                self._test_pixels = self.pixels.of(self.test, bar.report)
        return self._test_pixels

    def forget(self) -> None:
        """Let go of the pictures of a seed that is done."""
        self.pixels.forget()
        self.copies.forget()


def folds(images: ImageSet, count: int) -> list[tuple[ImageSet, ImageSet]]:
    """(kept, held out) for each fold: every class loses every `count`-th image."""
    rank: dict[int | None, int] = {}
    place = []
    for label in images.labels:
        place.append(rank.get(label, 0) % count)
        rank[label] = rank.get(label, 0) + 1
    rows = range(len(images))
    return [(images.subset([r for r in rows if place[r] != k]), images.subset([r for r in rows if place[r] == k])) for k in range(count)]


def raw_pixels(images: Tensor, labels: Tensor, test: Tensor) -> list[int]:
    """Logistic regression on raw pixels: what is to be had without any network.

    Args:
        images, test: (N, 3, H, W) uint8; averaged down to 16 pixels a side.
        labels: (N,) int64.
    Returns:
        class indices of the test images.
    """
    from sklearn.linear_model import LogisticRegression

    learned = LogisticRegression(max_iter=1000).fit(_flat(images), labels.numpy())
    return [int(label) for label in learned.predict(_flat(test))]


def _flat(images: Tensor) -> NDArray[np.float32]:
    """(N, 3 * side * side) in [0, 1]."""
    side = min(RAW_SIDE, images.shape[-1])
    small = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, side)
    return np.asarray(small.flatten(1), dtype=np.float32)
