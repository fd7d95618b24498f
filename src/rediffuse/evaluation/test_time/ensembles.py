"""A classifier asked several times about an image: about the image itself and about views that something made of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.evaluation.judged import not_finite
from rediffuse.evaluation.kept import numbers_of
from rediffuse.evaluation.test_time.predictions import Predictions
from rediffuse.evaluation.test_time.sharing import SharedViews
from rediffuse.methods.base import check_images
from rediffuse.training.classifier import evaluating

Reduce = Literal["probabilities", "logits"]
Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
CHUNK = 64
"""Views in one call of denoiser and classifier."""
_BLOCK = 8
"""Images that are under way together, in chunks: what is remembered of them is freed before the next ones."""
_SLACK = 1e-3
"""Lead beyond the exact bound before an image is let go, so that rounding never decides."""


class Ensemble(nn.Module, ABC):
    """Base of what asks a classifier about views of an image and takes the mean. Each view is a pure function of image and seed.

    Attributes:
        members: names of the views, in the order in which they are asked.
        reduce: whether probabilities or logits are averaged.
        early_exit: whether an image is let go once its decision cannot change; see `predict`.
        settings: plain values, for results.
        shared: where views lie that ensembles of other classifiers have asked for too; None makes all anew.
    Args:
        classifier: (B, 3, H, W) in [0, 1] -> logits (B, K), such as `training.classifier.Classifier`.
        seed: of all noise.
        chunk: views in one call; bounds memory whatever the number of images and members.
    """

    members: tuple[str, ...]
    reduce: Reduce = "probabilities"
    early_exit: bool = False
    multiple_of: int = 1
    shared: SharedViews | None = None

    def __init__(self, classifier: nn.Module, *, seed: int = 0, chunk: int = CHUNK) -> None:
        super().__init__()
        if chunk < 1:
            raise ConfigError(f"chunk is the number of views in one call and must be at least 1, got {chunk}")
        self.classifier, self.seed, self.chunk = classifier, seed, chunk

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]: ...

    @property
    def made_by(self) -> dict[str, Any]:
        """Of the settings those that decide a view beside its member's name, for ensembles that share views."""
        return self.settings

    @abstractmethod
    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        """The view of each image that its member sees.

        images: (B, 3, H, W) in [0, 1]; member: (B,) int64 on the CPU, index into `members`; seeds: (B,) int64 on the CPU.
        """

    def check(self, images: Tensor) -> None:
        """Raise DataError for images that cannot be seen."""
        check_images(images, self.multiple_of)

    def operations(self, size: int) -> float:
        """Floating-point operations of the denoiser for one image of so many pixels a side; the classifier's are few beside them."""
        return 0.0

    def forward(self, images: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Log probabilities (B, K) of the whole ensemble; gradients flow, so that it can be attacked as the one classifier that it is.

        All views of a batch are held at once. Args as in `predict`.
        """
        self.check(images)
        count, total = len(images), len(self.members)
        seeds = self._seeds(count, seeds)
        row = torch.arange(count).repeat_interleave(total)
        member = torch.arange(total).repeat(count)
        with evaluating(self):
            logits = self._logits(self.views(images[row.to(images.device)], member, seeds[row])).float()
        said = logits.view(count, total, -1)
        if self.reduce == "logits":
            return said.mean(1).log_softmax(-1)
        return said.log_softmax(-1).logsumexp(1) - math.log(total)

    @torch.no_grad()
    def predict(self, images: Tensor, seeds: Tensor | None = None, progress: Progress | None = None) -> Predictions:
        """Ask all members about all images.

        With `early_exit` an image is let go when its leader cannot be overtaken: after m of M members the leader is ahead of the second by
        more than M - m in summed probability, and a member adds at most 1 to the second and at least 0 to the leader. The decisions,
        also those after each further member, are then exactly those of all members; the probabilities are the mean over the members that
        were asked. It saves at most the calls after the first half, for images of which the classifier is sure.

        Args:
            images: (N, 3, H, W) float in [0, 1], on any device.
            seeds: (N,) int64, one an image: its views depend on its seed alone, however the images are cut into batches. None numbers
                the images; `image_seeds` makes them from names or hashes, so that an image keeps its views in any company.
            progress: called with (images done, images in all).
        Raises:
            DataError: images of the wrong type, range or size.
            ModelError: views or logits that are NaN or infinite.
        """
        self.check(images)
        seeds = self._seeds(len(images), seeds)
        size, done = _BLOCK * self.chunk, 0

        def tick(views: int) -> None:
            nonlocal done
            done += views
            if progress is not None:
                progress(done // len(self.members), len(images))

        with evaluating(self):
            starts = range(0, max(1, len(images)), size)
            parts = [self._block(images[start : start + size], seeds[start : start + size], tick) for start in starts]
        return Predictions.cat(parts)

    def _block(self, images: Tensor, seeds: Tensor, tick: Callable[[int], None]) -> Predictions:
        began = time.perf_counter()
        count, total = len(images), len(self.members)
        sums = torch.zeros(count, 1, dtype=torch.float64)  # (N, 1) until the number of classes is known, then (N, K)
        decisions, asked = torch.zeros(count, total, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        active = torch.arange(count)
        for first, end in self._stages():
            scores = self._ask(images, seeds, active, first, end, tick)  # (A, end - first, K)
            if first == 0:
                sums = sums.expand(-1, scores.shape[2]).clone()
            running = sums[active].unsqueeze(1) + scores.cumsum(1)
            decisions[active, first:end] = running.argmax(2)
            sums[active] = running[:, -1]
            asked[active] = end
            if end < total:
                sure = decided(sums[active], total - end)
                done = active[sure]
                decisions[done, end:] = decisions[done, end - 1 : end]
                active = active[~sure]
                tick(len(done) * (total - end))
            if not len(active):
                break
        mean = sums / asked.clamp(min=1).unsqueeze(1)
        probabilities = (mean.softmax(1) if self.reduce == "logits" else mean).float()
        found = {"probabilities": probabilities, "decisions": decisions, "asked": asked}
        return Predictions(members=self.members, settings=self.settings, seconds=time.perf_counter() - began, **found)

    def _stages(self) -> Iterator[tuple[int, int]]:
        """Ranges of members that are asked together: all, or with early exit the first ones without which nothing is decided, then each."""
        total = len(self.members)
        start = 0
        if self.early_exit:
            for end in range(total // 2 + 1, total):  # a lead is at most m, and must be above M - m
                yield start, end
                start = end
        yield start, total

    def _ask(self, images: Tensor, seeds: Tensor, active: Tensor, first: int, end: int, tick: Callable[[int], None]) -> Tensor:
        """(A, end - first, K) float64: what members first to end say of the images that are under way."""
        row = active.repeat_interleave(end - first)
        member = torch.arange(first, end).repeat(len(active))
        said = []
        for start in range(0, max(1, len(row)), self.chunk):
            part = slice(start, start + self.chunk)
            said.append(self._said(images, seeds, row[part], member[part]))
            tick(len(row[part]))
        return torch.cat(said).view(len(active), end - first, said[0].shape[-1])

    def _said(self, images: Tensor, seeds: Tensor, row: Tensor, member: Tensor) -> Tensor:
        """(R, K) float64 on the CPU: one call."""
        chosen = images[row.to(images.device)].to(self.device)
        logits = self._logits(self._views(chosen, member, seeds[row])).cpu().double()  # in this order: Apple's devices have no float64
        return logits if self.reduce == "logits" else logits.softmax(-1)

    def _logits(self, views: Tensor) -> Tensor:
        """(R, K) of views; NaN would otherwise be the first class. Raises ModelError."""
        logits: Tensor = self.classifier(views)
        if not bool(logits.isfinite().all()):
            raise not_finite(self.classifier, "the classifier", "logits", views)
        return logits

    def _views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        if self.shared is None:
            return self.views(images, member, seeds)
        numbers = [numbers_of(part) for name, part in self.named_children() if name != "classifier"]  # `made_by` says nothing of them
        told = json.dumps({"made_by": self.made_by, "numbers": numbers}, sort_keys=True, default=str)
        names = [self.members[place] for place in member.tolist()]

        def make(rows: Tensor) -> Tensor:
            return self.views(images[rows.to(images.device)], member[rows], seeds[rows])

        return self.shared.get(told, images, names, seeds, make)

    def _seeds(self, count: int, seeds: Tensor | None) -> Tensor:
        if seeds is None:
            return image_seeds(self.seed, range(count))
        if seeds.shape != (count,) or seeds.dtype != torch.int64:
            raise ConfigError(f"seeds must be ({count},) int64, one an image, got {tuple(seeds.shape)} {seeds.dtype}")
        return seeds.cpu()

    @property
    def device(self) -> torch.device:
        """Of the classifier; without weights, of whatever has some."""
        return next((value.device for part in (self.classifier, self) for value in part.parameters()), torch.device("cpu"))


class Plain(Ensemble):
    """The classifier alone, by the same door as the ensembles."""

    members = ("raw",)

    @property
    def settings(self) -> dict[str, Any]:
        return {"ensemble": "none"}

    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        return images


def decided(sums: Tensor, left: int) -> Tensor:
    """(N,) bool: whether `left` members more cannot change the leader. sums: (N, K) summed probabilities."""
    best = sums.topk(min(2, sums.shape[1]), dim=1).values
    lead = best[:, 0] - best[:, 1] if sums.shape[1] > 1 else torch.full_like(best[:, 0], torch.inf)
    return lead > left + _SLACK


def image_seeds(seed: int, keys: Sequence[object]) -> Tensor:
    """(N,) int64: a seed for each image from the ensemble's seed and a key of its own, such as the hash of its pixels."""
    return torch.tensor([seed_of(seed, str(key)) for key in keys], dtype=torch.int64)


def seed_of(*key: int | str) -> int:
    """A non-negative int64 that is a function of this key alone."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest(), "little") >> 1
