"""Every figure of made pictures beside real ones, over all of them and class by class."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError
from rediffuse.evaluation.fidelity.features import DEFAULT, Extractor, Taken, identity_of, take_features
from rediffuse.evaluation.fidelity.inception import SPLITS, ClassSums
from rediffuse.evaluation.fidelity.kernel import SUBSET, SUBSETS, Kid, kid
from rediffuse.evaluation.fidelity.manifold import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, Manifold, manifold
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.kept import Kept, fingerprint
from rediffuse.evaluation.saved import Content, Saved


@dataclass(frozen=True, kw_only=True)
class FidelityFigures:
    """Of all images, or of a class; None where there are too few images.

    Attributes:
        name: "all", or a class.
        real, made: images.
        fid_like: Frechet distance on these features; FID only where they are the published Inception's.
        kid_like: kernel distance on these features, with its spread over subsets.
        manifold: precision, recall, density, coverage.
    """

    name: str
    real: int
    made: int
    fid_like: float | None
    kid_like: Kid | None
    manifold: Manifold | None


@dataclass(frozen=True, kw_only=True)
class FidelityResult(Saved):
    """How near made pictures are to real ones, on the features of one network.

    Attributes:
        extractor, width: whose features, and how many values each.
        whole, classes: figures of all images, and of each class that both sets have.
        inception, inception_real: (value, spread) of the Inception-Score-like figure of both sets; None without class probabilities.
    """

    extractor: str
    width: int
    whole: FidelityFigures
    classes: tuple[FidelityFigures, ...] = ()
    inception: tuple[float, float] | None = None
    inception_real: tuple[float, float] | None = None
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def headline(self) -> dict[str, float]:
        """fid_like, kid_like, precision, recall, density, coverage, inception_like: those that there are."""
        found: dict[str, float | None] = {
            "fid_like": self.whole.fid_like,
            "kid_like": None if self.whole.kid_like is None else self.whole.kid_like.value,
            **({} if self.whole.manifold is None else asdict(self.whole.manifold)),
            "inception_like": None if self.inception is None else self.inception[0],
        }
        return {key: value for key, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def content(self) -> Content:
        """The headline; a row for all images and one a class."""
        rows = [asdict(row) for row in (self.whole, *self.classes)]
        rows[0].update(inception_like=self.inception, inception_like_real=self.inception_real)
        told = [
            f"Features: {self.extractor}, {self.width} values. Figures on other features, sizes or counts are no measure against these.",
            "settings: " + "; ".join(f"{key}: {value}" for key, value in self.settings.items()),
        ]
        return Content(headline=self.headline(), rows=rows, seconds=self.seconds, notes=told)


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Settings of `measure_fidelity`; the published ones are the defaults.

    Args:
        taken: how features are taken.
        subsets, subset: of KID.
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        splits: of the Inception-Score-like figure.
        per_class: figures of each class too, where both sets have labels.
        seed: of KID's subsets.
        device, numbers: where and in which numbers distances of features are made.
    """

    taken: Taken = field(default_factory=Taken)
    subsets: int = SUBSETS
    subset: int = SUBSET
    neighbours: int = PRECISION_NEIGHBOURS
    density_neighbours: int = DENSITY_NEIGHBOURS
    splits: int = SPLITS
    per_class: bool = True
    seed: int = 0
    device: str = "cpu"
    numbers: str = "float64"

    def __post_init__(self) -> None:
        if self.numbers not in ("float64", "float32"):
            raise ConfigError(f"numbers must be float64 or float32, got {self.numbers!r}")
        for name in ("subsets", "neighbours", "density_neighbours", "splits"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.subset < 2:
            raise ConfigError(f"subset must be at least 2, got {self.subset}")


def measure_fidelity(
    real: ImageSet,
    made: ImageSet,
    *,
    extractor: Extractor | None = None,
    settings: Fidelity | None = None,
    keep: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FidelityResult:
    """Compare made pictures with real ones that nothing was made from, such as a test split, on the features of one network.

    Memory: features, N x D x 4 bytes a set (in files under `keep`, else in memory), and blocks of distances under 0.3 GB.

    Args:
        extractor: None takes the bundled `resnet-64`. Published FID asks for `published.inception`, whose weights are not bundled.
        settings: None takes `Fidelity()`.
        keep: folder for features; the same call again continues from it. The caller removes it (`kept.forget`).
        identity: what tells a bare function from another; see `features.identity_of`.
        progress: called with (images done, images in all) while features are taken.
    Raises:
        DataError: a set without images.
    """
    began, own = time.monotonic(), settings or Fidelity()
    judge = Judged.open(DEFAULT, name=DEFAULT) if extractor is None else extractor
    told = {key: value for key, value in asdict(own).items() if key != "device"}
    kept = None
    if keep is not None:
        sets = {"real": fingerprint(real), "made": fingerprint(made)}
        kept = Kept(
            keep, {"kind": "fidelity", "extractor": identity_of(judge, identity), **sets, **own.taken.identity(), "splits": own.splits}
        )
    total = len(real) + len(made)

    def from_(before: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    first = take_features(real, judge, own.taken, kept=kept, name="real", splits=own.splits, progress=from_(0))
    second = take_features(made, judge, own.taken, kept=kept, name="made", splits=own.splits, progress=from_(len(real)))
    pairs = _classes(real, made) if own.per_class else []
    return FidelityResult(
        extractor=judge.name if isinstance(judge, Judged) else str(getattr(judge, "__name__", type(judge).__name__)),
        width=first.values.shape[1],
        whole=compare_features("all", first.values, second.values, own),
        classes=tuple(compare_features(name, first.values[ours], second.values[theirs], own) for name, ours, theirs in pairs),
        inception=_score(second.sums),
        inception_real=_score(first.sums),
        seconds=time.monotonic() - began,
        settings=told,
    )


def compare_features(name: str, real: Tensor, made: Tensor, settings: Fidelity) -> FidelityFigures:
    """Figures of two sets of features (N, D), (M, D) that are at hand already."""
    fewest = min(len(real), len(made))
    enough = fewest > max(settings.neighbours, settings.density_neighbours)
    return FidelityFigures(
        name=name,
        real=len(real),
        made=len(made),
        fid_like=frechet(real, made) if fewest > 1 else None,
        kid_like=kid(real, made, subsets=settings.subsets, size=settings.subset, seed=settings.seed) if fewest > 1 else None,
        manifold=manifold(
            real,
            made,
            neighbours=settings.neighbours,
            density_neighbours=settings.density_neighbours,
            device=settings.device,
            dtype=torch.float64 if settings.numbers == "float64" else torch.float32,
        )
        if enough
        else None,
    )


def _classes(real: ImageSet, made: ImageSet) -> list[tuple[str, list[int], list[int]]]:
    """(name, real rows, made rows) of each class that has images in both sets."""
    ours, theirs = _rows(real), _rows(made)
    return [(name, ours[name], theirs[name]) for name in real.classes if name in ours and name in theirs]


def _rows(images: ImageSet) -> dict[str, list[int]]:
    """Class -> its rows, in order, of classes that have some."""
    found: dict[str, list[int]] = {}
    for row, label in enumerate(images.labels):
        if label is not None:
            found.setdefault(images.classes[label], []).append(row)
    return found


def _score(sums: ClassSums | None) -> tuple[float, float] | None:
    return None if sums is None else sums.score()
