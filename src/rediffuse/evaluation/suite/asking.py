"""What a suite is asked about, and what a part of it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rediffuse.data.splits import chosen
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.evaluation.corruptions.frost import frost_overlays
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.kept import numbers_of
from rediffuse.evaluation.suite.cost import Calls
from rediffuse.evaluation.suite.settings import SuiteSettings

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Asking:
    """What a suite is asked about. near and far: sets of unknown images by name."""

    models: Sequence[Judged]
    data: ImageSet
    settings: SuiteSettings
    denoiser: Denoiser | None = None
    near: Mapping[str, ImageSet] = field(default_factory=dict)
    far: Mapping[str, ImageSet] = field(default_factory=dict)
    train: ImageSet | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classifiers."""
        return tuple(model.name for model in self.models)

    def some(self, count: int) -> ImageSet:
        return chosen(self.data, count, self.settings.seed)

    @property
    def where(self) -> dict[str, Any]:
        """Size and fit, as yardsticks take them."""
        return {"size": self.settings.size, "fit": self.settings.fit}

    @property
    def pixels(self) -> Denoiser:
        """The denoiser of a part that needs one; `parts` asks for no such part without."""
        if self.denoiser is None:
            raise RuntimeError("a part that needs a denoiser was asked without one")
        return self.denoiser


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One part, asked of some classifiers.

    Attributes:
        run: (folder for what is kept, progress) -> what they said.
        join: what several runs of different classifiers said -> its result, with the classifiers in the order of this part.
        apart: some of the classifiers -> the same asked of them alone.
        key: what decides its numbers beside models, size, fit and seed; it names its place.
        state: names the note of how far it is, where calls that ask for different things share a place.
        share: the folder of its place -> how much of it lies there; None where the note alone says it.
    """

    name: str
    models: Sequence[Judged]
    images: ImageSet
    calls: Calls
    run: Callable[[Path | None, Progress | None], Any]
    join: Callable[[Sequence[Any]], Any]
    apart: Callable[[Sequence[Judged]], Part]
    key: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    share: Callable[[Path], float] | None = None


def denoiser_told(denoiser: Denoiser | None) -> dict[str, Any]:
    """What of a denoiser decides a part's numbers, for its key."""
    return {"denoiser": None if denoiser is None else denoiser.fingerprint(), "numbers": [] if denoiser is None else numbers_of(denoiser)}


def frost_told(asking: Asking) -> dict[str, Any]:
    """Which photos of frost decide a part's numbers, for its key; none where pictures are too small to corrupt."""
    own = asking.settings
    return {"frost": frost_overlays(own.size).digest if own.corruptible else None}


def part_of(progress: Progress | None, place: int, count: int) -> Progress | None:
    """Of a piece of work that is done `count` times."""
    return None if progress is None else lambda done, total: progress(place * total + done, count * total)
