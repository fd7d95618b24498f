"""Classifiers of finished cells, and their figures by arm: a mean over seeds, paired by picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rediffuse.errors import ConfigError
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, bootstrap, paired_bootstrap, paired_t_interval, t_interval
from rediffuse.recipes.robust.cells import Cell


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """Trained nets. models: in the order of arms, then seeds; arms: arm -> names of its models, one a seed."""

    models: tuple[Judged, ...]
    arms: Mapping[str, tuple[str, ...]]

    @classmethod
    def open(cls, work: Path, net: str, arms: Sequence[str], seeds: Iterable[int], device: torch.device) -> Trained:
        """Those of an experiment's folder. Raises ConfigError with the first that is not there."""
        models, named = [], {}
        for arm in arms:
            cells = [Cell(net=net, arm=arm, seed=seed) for seed in seeds]
            for cell in cells:
                folder = work / "nets" / cell.name
                if not (folder / "config.json").exists():
                    told = f"--net {net} --arms {arm} --seeds {cell.seed + 1} --work {work}"
                    raise ConfigError(f"{folder} is not there; python -m rediffuse.recipes.diffaug_cifar10 {told} makes it")
                models.append(Judged.open(str(folder), device=device, name=f"{arm} {cell.seed}"))
            named[arm] = tuple(f"{arm} {cell.seed}" for cell in cells)
        return cls(models=tuple(models), arms=named)


def figure(values: NDArray[Any]) -> Interval:
    """Mean of (seeds, pictures): over seeds where there are enough, else over drawn pictures."""
    if len(values) >= MIN_SEEDS:
        return t_interval(values.mean(axis=1).tolist())
    return bootstrap(values, None)


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> Interval:
    """Of two (seeds, pictures), seed by seed and picture by picture."""
    if len(ours) >= MIN_SEEDS:
        return paired_t_interval(ours.mean(axis=1).tolist(), theirs.mean(axis=1).tolist())
    return paired_bootstrap(np.asarray(ours), np.asarray(theirs), None)


def flat(name: str, found: Interval) -> dict[str, Any]:
    """A figure and its ends as columns of a table."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
