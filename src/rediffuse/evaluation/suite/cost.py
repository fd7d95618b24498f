"""What a suite will cost, from rates measured on this machine, before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import COMMON, SMALLEST
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.progress import roughly

TRIAL = 32
"""Images of a timed batch; a denoiser gets a quarter of it."""


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What a part asks for: calls of one image by one classifier, by the denoiser, and pictures that are corrupted."""

    classifier: int = 0
    denoiser: int = 0
    corrupted: int = 0


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds of each of them; the classifier's is a mean over the models, with opening the picture."""

    classifier: float = 0.0
    denoiser: float = 0.0
    corrupted: float = 0.0

    def seconds(self, calls: Calls) -> float:
        return calls.classifier * self.classifier + calls.denoiser * self.denoiser + calls.corrupted * self.corrupted


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """A part, what it asks for in all, the share that is done, and the seconds that the rest will take."""

    part: str
    images: int
    calls: Calls
    done: float
    seconds: float

    @classmethod
    def of(cls, part: str, images: int, groups: Sequence[tuple[Calls, float]], rates: Rates) -> PartCost:
        """groups: (what some classifiers are asked for, the share that is done), one for each that is asked by itself."""
        whole = [rates.seconds(calls) for calls, _ in groups]
        seconds = sum((1 - share) * each for each, (_, share) in zip(whole, groups, strict=True))
        done = 1 - seconds / sum(whole) if sum(whole) else min(share for _, share in groups)
        asked = Calls(**{name: sum(getattr(calls, name) for calls, _ in groups) for name in Calls.__dataclass_fields__})
        return cls(part=part, images=images, calls=asked, done=done, seconds=seconds)

    def line(self) -> str:
        asked = [f"{self.calls.classifier:,} classifier calls"]
        asked += [f"{self.calls.denoiser:,} denoiser calls"] if self.calls.denoiser else []
        if self.done >= 1:
            return f"{self.part}: {self.images:,} images, done"
        there = f" ({self.done:.0%} is there already)" if self.done else ""
        return f"{self.part}: {self.images:,} images, {' and '.join(asked)}{there}: about {roughly(self.seconds)}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What is still to be done, part by part."""

    parts: tuple[PartCost, ...]

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def summary(self) -> str:
        """The lines that are printed before an evaluation."""
        done = all(part.done >= 1 for part in self.parts)
        return "\n".join(
            [*(part.line() for part in self.parts), "all is there already" if done else f"about {roughly(self.seconds)} in all"]
        )

    def check(self, hours: float | None) -> None:
        """Raise ConfigError where it would take longer than allowed."""
        if hours is not None and self.seconds > 3600 * hours:
            dearest = max(self.parts, key=lambda part: part.seconds)
            raise ConfigError(
                f"the evaluation would take about {roughly(self.seconds)} here, {roughly(dearest.seconds)} of it for {dearest.part}; "
                f"--hours allows {hours:g} h. Ask for fewer images (--images), a smaller --suite, or allow more hours. "
                "The same folder goes on with what it has"
            )


def measure(models: Sequence[Judged], images: ImageSet, denoiser: Denoiser | None, *, size: int, fit: str, corrupting: bool) -> Rates:
    """Rates of a few calls; the first of each warms up and is not timed."""
    began = time.perf_counter()
    _, pictures = next(batches(images[:TRIAL], size=size, fit=fit))
    opening = (time.perf_counter() - began) / len(pictures)
    asking = sum(_timed(model.logits, pictures) for model in models) / len(models)
    rate = 0.0
    if denoiser is not None:
        rate = _timed(lambda given: _believe(denoiser, given), pictures[: max(1, TRIAL // 4)])
    making = _corrupting(pictures) if corrupting and size >= SMALLEST else 0.0
    return Rates(classifier=asking + opening / len(models), denoiser=rate, corrupted=making)


@torch.no_grad()
def _believe(denoiser: Denoiser, pictures: Tensor) -> Tensor:
    t = torch.full((len(pictures),), len(denoiser.schedule) // 4, dtype=torch.int64, device=denoiser.device)
    believed: Tensor = denoiser(denoiser.encode(pictures.to(denoiser.device)), t)
    return believed.cpu()


def _corrupting(pictures: Tensor) -> float:
    """Seconds a picture, mean over the common corruptions."""
    levels = pictures[:8].mul(255).round().to(torch.uint8)
    return sum(_timed(lambda given, name=name: corrupt(given, name, 3), levels) for name in COMMON) / len(COMMON)  # type: ignore[misc]


def _timed(call: Callable[[Tensor], Tensor], pictures: Tensor) -> float:
    """Seconds a picture."""
    call(pictures[:1])
    began = time.perf_counter()
    call(pictures)
    return (time.perf_counter() - began) / len(pictures)
