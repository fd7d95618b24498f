"""Pictures of one set that are nearly those of another: neighbours by features, then a look at the pixels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError
from rediffuse.evaluation.fidelity.features import DEFAULT, Extractor, Taken, identity_of, take_features
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.kept import Kept, fingerprint
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.statistics import share as share_of

COSINE = 0.85
RMS = 0.12
SHARE = 0.8
"""Of the pictures' own spread: two pictures of one colour that have nothing else in common differ by at least 1."""
NEIGHBOURS = 10
ROWS = 1024
COLUMNS = 8192


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two pictures that are nearly one.

    Attributes:
        first, second: ids.
        cosine: of their features, -1 to 1.
        rms: root mean square of the difference of their pixels in [0, 1], at the size that features are taken at.
        share: rms as a share of the spread of the more varied of the two: the standard deviation of its pixels about its own mean colour.
        mirrored: whether the second is mirrored in that.
        identical: whether both have the same pixels as files.
    """

    first: str
    second: str
    cosine: float
    rms: float
    share: float
    mirrored: bool
    identical: bool

    def to_json(self) -> dict[str, Any]:
        return {key: _finite(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Duplicates(Saved, Sequence[Duplicate]):
    """The pairs that were found, the closest features first; a sequence of them.

    Attributes:
        pairs: as found. first, second: how many pictures each set holds.
        settings: that decided what counts as near.
        seconds: wall time of this call.
    """

    pairs: tuple[Duplicate, ...]
    first: int
    second: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Duplicate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Duplicate, ...]: ...
    def __getitem__(self, index: int | slice) -> Duplicate | tuple[Duplicate, ...]:
        return self.pairs[index]

    def share(self) -> Interval:
        """Of the pictures of the first set, those that are nearly one of the second, with the exact interval over pictures."""
        near = len({pair.first for pair in self.pairs})
        return share_of(np.arange(self.first) < near)

    def to_json(self) -> dict[str, Any]:
        told = {key: _finite(value) for key, value in self.settings.items()}
        return {**asdict(self), "settings": told, "pairs": [pair.to_json() for pair in self.pairs], "share": self.share().to_json()}

    def content(self) -> Content:
        """Headline: pairs, and the share of the first set; a row a pair."""
        headline: dict[str, Interval | float] = {"pairs": float(len(self)), "share": self.share()}
        said = "; ".join(f"{key}: {value}" for key, value in self.settings.items())
        notes = [f"{self.first} pictures beside {self.second}", f"settings: {said}"]
        return Content(headline=headline, rows=[pair.to_json() for pair in self.pairs], seconds=self.seconds, notes=notes)


def near_duplicates(
    first: ImageSet,
    second: ImageSet,
    *,
    extractor: Extractor | None = None,
    taken: Taken | None = None,
    cosine: float = COSINE,
    rms: float = RMS,
    share: float = SHARE,
    neighbours: int = NEIGHBOURS,
    keep: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Duplicates:
    """Pairs of pictures whose features and pixels are both close, the closest features first.

    Features find candidates (they forgive a crop, a codec, a mirror); pixels throw out what only shows the same thing, or is as flat and
    of the same colour. For a look at what resembles, not what is copied, take rms=1 and share=inf.

    Args:
        first, second: sets, such as made pictures and the test split.
        extractor: None takes the bundled `resnet-64`.
        taken: how features are taken; None takes `Taken()`.
        cosine: least similarity of features, in [-1, 1].
        rms: largest difference of pixels, in [0, 1]; 1 takes all candidates.
        share: largest difference as a share of the pictures' own spread, above 0; infinity takes all candidates.
        neighbours: candidates of each picture of the first set, at most.
        keep, identity, progress: as in `measure.measure_fidelity`.
    Returns:
        A sequence of pairs that saves itself.
    """
    if not -1 <= cosine <= 1 or not 0 <= rms <= 1 or neighbours < 1 or not share > 0:
        told = f"{cosine}, {rms}, {share} and {neighbours}"
        raise ConfigError(f"cosine must be in [-1, 1], rms in [0, 1], share above 0, neighbours at least 1, got {told}")
    began = time.monotonic()
    judge, how = Judged.open(DEFAULT, name=DEFAULT) if extractor is None else extractor, taken or Taken()
    kept = None
    if keep is not None:
        sets = {"first": fingerprint(first), "second": fingerprint(second)}
        kept = Kept(keep, {"kind": "duplicates", "extractor": identity_of(judge, identity), **sets, **how.identity()})
    total = len(first) + len(second)

    def from_(before: int) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    ours = take_features(first, judge, how, kept=kept, name="first", progress=from_(0)).values
    theirs = take_features(second, judge, how, kept=kept, name="second", progress=from_(len(first))).values
    found = []
    for row, candidates in similar(ours, theirs, cosine, neighbours):
        found += [pair for pair in _looked_at(first, second, row, candidates, how) if pair.rms <= rms and pair.share <= share]
    return Duplicates(
        pairs=tuple(sorted(found, key=lambda pair: (-pair.cosine, pair.first, pair.second))),
        first=len(first),
        second=len(second),
        settings={"cosine": cosine, "rms": rms, "share": share, "neighbours": neighbours, **how.identity()},
        seconds=time.monotonic() - began,
    )


def similar(first: Tensor, second: Tensor, cosine: float, neighbours: int) -> list[tuple[int, list[tuple[int, float]]]]:
    """(row, [(row of the second, cosine), ...]) of each feature that has a neighbour at least that similar, the nearest first.

    Memory: blocks of `ROWS` x `COLUMNS` similarities, 64 MB, and the pairs. first, second: (N, D), (M, D).
    """
    found = []
    for start in range(0, len(first), ROWS):
        unit = F.normalize(first[start : start + ROWS].double(), dim=1)
        best, place = torch.zeros(len(unit), 0, dtype=torch.float64), torch.zeros(len(unit), 0, dtype=torch.int64)
        for begin in range(0, len(second), COLUMNS):
            likeness = unit @ F.normalize(second[begin : begin + COLUMNS].double(), dim=1).T
            top = likeness.topk(min(neighbours, likeness.shape[1]), dim=1)
            best, place = torch.cat([best, top.values], dim=1), torch.cat([place, top.indices + begin], dim=1)
            chosen = best.topk(min(neighbours, best.shape[1]), dim=1)
            best, place = chosen.values, place.gather(1, chosen.indices)
        for row in (best[:, 0] >= cosine - 1e-9).nonzero()[:, 0].tolist():
            pairs = zip(place[row].tolist(), best[row].tolist(), strict=True)
            found.append((start + row, [(other, min(1.0, value)) for other, value in pairs if value >= cosine - 1e-9]))
    return found


def _looked_at(first: ImageSet, second: ImageSet, row: int, candidates: list[tuple[int, float]], taken: Taken) -> list[Duplicate]:
    fit, found = Fit(mode=taken.fit, size=taken.size), []
    ours = fit.to_model(first[row].image)[0]
    for other, likeness in candidates:
        theirs = fit.to_model(second[other].image)[0]
        straight, mirrored = (float((ours - view).square().mean().sqrt()) for view in (theirs, theirs.flip(-1)))
        spread, nearest = max(_spread(ours), _spread(theirs)), min(straight, mirrored)
        found.append(
            Duplicate(
                first=first.ids[row],
                second=second.ids[other],
                cosine=likeness,
                rms=nearest,
                share=nearest / spread if spread else (0.0 if nearest == 0 else math.inf),
                mirrored=mirrored < straight,
                identical=first.digests[row] == second.digests[other],
            )
        )
    return found


def _spread(image: Tensor) -> float:
    """Standard deviation of (3, H, W) about its mean colour."""
    return float((image - image.mean((1, 2), keepdim=True)).square().mean().sqrt())


def _finite(value: Any) -> Any:
    """None for what JSON has no number for: no bound, or the share of a flat picture."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
