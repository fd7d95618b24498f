"""What test-time ensembles add to trained nets: the same pictures clean, corrupted at severity 5, and of another make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.evaluation.corruptions.subsets import SubsetResult, subset_accuracy
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.suite.columns import Columns, ask_columns, looks
from rediffuse.evaluation.test_time.dda import DDA, DDASettings
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble
from rediffuse.evaluation.test_time.ensembles import Ensemble
from rediffuse.evaluation.test_time.judging import judged_by
from rediffuse.evaluation.test_time.sharing import SharedViews
from rediffuse.recipes.robust.arms import SIZE
from rediffuse.recipes.robust.sets import FIT
from rediffuse.recipes.robust.trained import Trained, difference, figure, flat

ENSEMBLE, DDA_ALONE, DDA_BOTH = "ensemble", "dda", "dda_se"
"""DiffAug's ensemble, which holds the raw picture too; what DDA makes of a picture; and both together, its published self-ensemble."""
SEVERITY = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What nets and their ensembles make of the same pictures. natural: None where there are none of another make."""

    columns: Columns
    natural: SubsetResult | None

    def right(self, measure: str, names: Sequence[str]) -> NDArray[Any]:
        """(models, pictures) of "clean", "corrupted_5" or "natural": whether, or how often, each picture is named rightly."""
        if measure == "clean":
            return np.stack([self.columns.clean.find(name).as_is.right for name in names])
        if measure == "natural" and self.natural is not None:
            rows = [self.natural.models.index(name) for name in names]
            return np.asarray(self.natural.right[rows])
        corrupted = self.columns.corrupted
        if measure != "corrupted_5" or corrupted is None:
            raise KeyError(measure)
        return np.asarray(corrupted.right[[corrupted.models.index(name) for name in names]].mean(axis=(1, 2)))

    @property
    def measures(self) -> tuple[str, ...]:
        there = {"clean": True, "corrupted_5": self.columns.corrupted is not None, "natural": self.natural is not None}
        return tuple(name for name, is_there in there.items() if is_there)


def made_by(kind: str, denoiser: Denoiser, dda: DDASettings, shared: SharedViews) -> Callable[[nn.Module], Ensemble]:
    """From a classifier to its ensemble; views are made once for all of them."""

    def made(classifier: nn.Module) -> Ensemble:
        ensemble: Ensemble
        if kind == ENSEMBLE:
            ensemble = DiffAugEnsemble(classifier, denoiser)
        else:
            ensemble = DDA(classifier, denoiser, replace(dda, self_ensemble=kind == DDA_BOTH))
        ensemble.shared = shared
        return ensemble

    return made


def ask(
    kind: str,
    trained: Trained,
    make: Callable[[nn.Module], Ensemble],
    images: ImageSet,
    natural: ImageSet | None,
    keep: Path,
    progress: Progress | None = None,
) -> Told:
    """Ask the nets and their ensembles; what is done stays done."""

    beside: list[Judged] = [judged_by(model, make, _asked(model.name, kind)) for model in trained.models]
    both = len(images) * looks([SEVERITY])
    total = both + (0 if natural is None else len(natural))

    def shifted(before: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(before + done, total)

    columns = ask_columns(
        kind, trained.models, beside, images, size=SIZE, fit=FIT, severities=(SEVERITY,), seed=0, keep=keep, progress=shifted(0)
    )
    found = None
    if natural is not None:
        found = subset_accuracy(
            [*trained.models, *beside], natural, size=SIZE, fit=FIT, keep=keep.with_name(f"{keep.name}-natural"), progress=shifted(both)
        )
    return Told(columns=columns, natural=found)


def rows_of(kind: str, told: Told, trained: Trained, beside: Told | None = None) -> list[dict[str, Any]]:
    """A row an arm: the nets alone, their ensembles, and what these change; and calibration errors, means over seeds, which few pictures
    raise by chance (`..._by_chance`: of true confidences).

    beside: what DiffAug's ensemble makes of the same pictures, to be held against.
    """
    rows = []
    for arm, names in trained.arms.items():
        asked = [_asked(name, kind) for name in names]
        row: dict[str, Any] = {"table": kind, "arm": arm, "seeds": len(names), "pictures": told.columns.images}
        for measure in told.measures:
            alone, together = told.right(measure, names), told.right(measure, asked)
            row |= flat(measure, figure(alone)) | flat(f"{kind}_{measure}", figure(together))
            row |= flat(f"{kind}_gain_{measure}", difference(together, alone))
            if beside is not None and measure in beside.measures:
                other = beside.right(measure, [_asked(name, ENSEMBLE) for name in names])
                row |= flat(f"{kind}_over_{ENSEMBLE}_{measure}", difference(together, other))
        for ending, own in (("ece", names), (f"{kind}_ece", asked)):
            errors = [told.columns.clean.find(name).row() for name in own]
            row[ending] = float(np.mean([error["ece"] for error in errors]))
            row[f"{ending}_by_chance"] = float(np.mean([error["ece_by_chance"] for error in errors]))
        rows.append(row)
    return rows


def headline_of(kind: str, told: Told, trained: Trained, arm: str) -> dict[str, Interval]:
    """What the ensemble adds to an arm's nets under corruptions."""
    if "corrupted_5" not in told.measures or arm not in trained.arms:
        return {}
    names = trained.arms[arm]
    together = told.right("corrupted_5", [_asked(name, kind) for name in names])
    return {f"{kind}_gain": difference(together, told.right("corrupted_5", names))}


def _asked(name: str, kind: str) -> str:
    return f"{name}, {kind}"
