"""What a comparison found: accuracies with intervals, paired differences, verdicts. A typed value that saves itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import DataError
from rediffuse.evaluation.few_shot.cells import CellResult, Stage
from rediffuse.evaluation.few_shot.generator import WEAK, is_weak
from rediffuse.evaluation.few_shot.samples import Sample, read_samples, write_samples
from rediffuse.evaluation.few_shot.settings import ARMS, DA_FUSION, PIXELS, REAL_GUIDANCE, STANDARD, Cell, level_key
from rediffuse.evaluation.provenance import Provenance
from rediffuse.evaluation.results import Figure, Result
from rediffuse.evaluation.statistics import (
    MIN_SEEDS,
    Interval,
    Verdict,
    bootstrap,
    paired_bootstrap,
    paired_t_interval,
    t_interval,
    verdict,
)
from rediffuse.training.backbones import SCRATCH
from rediffuse.writing import write_json, write_rows

FILE_NAME, TABLE, CELLS, SAMPLES = "comparison.json", "table.parquet", "cells.parquet", "samples.parquet"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of arms, finished or not: missing cells are known as missing.

    Attributes:
        name: of the image set.
        classes, labels: names, and the true class of each test image.
        pool_images: photos that shots were taken from.
        levels, arms, shots, seeds: what was asked for, with what the folder held before.
        settings: all of it, as JSON.
        model: the text-to-image model: name, revision, weights_hash, dtype; empty where no arm makes copies.
        card: what the model's folder says of itself: classification_accuracy_score, notes.
        results: finished cells.
        failures: reasons of cells that were tried in vain.
        stages: words learned and images made.
        notes: limits that belong to the figures.
        samples: pictures for the contact sheet.
    """

    name: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    pool_images: int
    levels: tuple[str, ...]
    arms: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    card: Mapping[str, Any]
    results: tuple[CellResult, ...]
    failures: Mapping[Cell, str]
    stages: tuple[Stage, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = field(default=(), compare=False)

    def asked(self) -> list[Cell]:
        """Every cell that was asked for."""
        pairs = [(level, arm) for level in self.levels for arm in self.arms if arm != PIXELS]
        pairs = [(PIXELS, PIXELS)] * (PIXELS in self.arms) + pairs
        return [Cell(level=level, arm=arm, shots=n, seed=s) for level, arm in pairs for n in self.shots for s in self.seeds]

    def missing(self) -> list[Cell]:
        """Cells that were asked for and are not there."""
        there = {result.cell for result in self.results}
        return [cell for cell in self.asked() if cell not in there]

    def accuracy(self, level: str, arm: str, shots: int | None = None) -> Interval | None:
        """Mean accuracy over the seeds that are there, with its interval; None where none is.

        Args:
            shots: a number, or None: the mean over all shot numbers, taken within each seed first.
        """
        runs = self._runs(level, arm, shots)
        if not runs:
            return None
        if len(runs) >= MIN_SEEDS:
            return t_interval([self._score(run) for run in runs.values()])
        return bootstrap(np.stack(list(runs.values())), self.labels)

    def gain(self, level: str, arm: str, baseline: str = STANDARD, shots: int | None = None) -> Interval | None:
        """Paired difference arm - baseline over the seeds that both have; None where there is none.

        At `MIN_SEEDS` seeds and more the interval is over seeds, below over test images.
        """
        ours, theirs = self._runs(level, arm, shots), self._runs(level, baseline, shots)
        both = [seed for seed in ours if seed in theirs]
        if not both:
            return None
        if len(both) >= MIN_SEEDS:
            return paired_t_interval([self._score(ours[seed]) for seed in both], [self._score(theirs[seed]) for seed in both])
        return paired_bootstrap(np.stack([ours[seed] for seed in both]), np.stack([theirs[seed] for seed in both]), self.labels)

    def from_scratch(self, level: str) -> bool:
        """Whether a level, whatever its name, starts from random weights."""
        return bool(dict(self.settings["levels"])[level] == SCRATCH)

    def verdict(self, level: str, arm: str, baseline: str = STANDARD) -> Verdict | None:
        """What the gain over all shots says; None where nothing is known yet."""
        gain = self.gain(level, arm, baseline)
        return None if gain is None else verdict(gain)

    def headline(self) -> dict[str, Interval]:
        """The figures that are quoted: DA-Fusion's gain over each baseline at each level, shots averaged within a seed first."""
        found = {}
        for level in self.levels:
            for baseline in (STANDARD, REAL_GUIDANCE):
                gain = self.gain(level, DA_FUSION, baseline) if {baseline, DA_FUSION} <= set(self.arms) else None
                if gain is not None:
                    found[f"gain_over_{baseline.replace('-', '_')}_{level_key(level)}"] = gain
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each level, arm and number of shots (null: their mean); missing cells leave nulls."""
        table = []
        for level, arm in dict.fromkeys((cell.level, cell.arm) for cell in self.asked()):
            for shots in (*self.shots, None):
                row: dict[str, Any] = {"level": level, "arm": arm, "shots": shots}
                row |= _flat("accuracy", self.accuracy(level, arm, shots))
                row["missing_seeds"] = len(self.seeds) - len(self._runs(level, arm, shots))
                for baseline in (STANDARD, REAL_GUIDANCE):
                    compared = baseline in self.arms and level != PIXELS and ARMS.index(arm) > ARMS.index(baseline)
                    gain = self.gain(level, arm, baseline, shots) if compared else None
                    row |= _flat(f"gain_over_{baseline.replace('-', '_')}", gain)
                table.append(row)
        return table

    def result(self, name: str) -> Result:
        """The comparison as a file of `results/`; see `results.save_result`."""
        return Result(
            name=name,
            headline={key: Figure.of(interval) for key, interval in self.headline().items()},
            rows=self.rows(),
            command=self.provenance.command,
            commit=self.provenance.commit,
            date=self.provenance.date,
            hardware=self.provenance.hardware,
            seconds=self.seconds,
            notes=[*self.limits, *self._made_by()],
        )

    @property
    def limits(self) -> tuple[str, ...]:
        """What must stand beside every figure: a weak generator first, then the notes."""
        return (WEAK, *self.notes) if self.weak_generator else self.notes

    def _made_by(self) -> list[str]:
        """Which weights made the copies, for a file that outlives the folder."""
        weights = self.model.get("weights_hash")
        return [f"Copies by {self.model.get('name')}, weights {str(weights)[:12]}."] if weights else []

    @property
    def images(self) -> int:
        """Images made."""
        return sum(stage.images for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of all work; what was under way when a kill came is not in it."""
        return sum(stage.seconds for stage in self.stages) + sum(result.seconds for result in self.results)

    @property
    def weak_generator(self) -> bool:
        """Whether the model's own card says that a classifier trained on its images reaches less than half of what real ones give."""
        return is_weak(self.card)

    def save(self, folder: str | Path) -> Path:
        """Write comparison.json, table.parquet, cells.parquet and samples.parquet; returns the first."""
        target = Path(folder)
        path = target / FILE_NAME
        write_json(path, self.to_json())
        for name, rows in ((TABLE, self.rows()), (CELLS, [_cell_row(result) for result in self.results])):
            if rows:
                write_rows(target / name, rows)
        write_samples(target / SAMPLES, self.samples)
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read what `save` wrote. Raises DataError where there is no comparison."""
        path = Path(folder) / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_json(values, read_samples(Path(folder) / SAMPLES))
        except FileNotFoundError as error:
            raise DataError(f"{folder} holds no comparison: it has no {FILE_NAME}; give the folder of `rediffuse compare`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read as a comparison: {type(error).__name__}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("samples", "results", "failures", "stages")}
        return {
            "format": FORMAT,
            **own,
            "provenance": asdict(self.provenance),
            "results": [result.to_json() for result in self.results],
            "failures": [{"cell": asdict(cell), "reason": reason} for cell, reason in self.failures.items()],
            "stages": [asdict(stage) for stage in self.stages],
            "headline": {key: interval.to_json() for key, interval in self.headline().items()},
            "rows": self.rows(),
            "images": self.images,
            "seconds": round(self.seconds, 1),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], samples: Sequence[Sample] = ()) -> Comparison:
        if values["format"] != FORMAT:
            raise DataError(f"the comparison has format {values['format']!r} and this version reads {FORMAT}; update rediffuse")
        plain: dict[str, Any] = {name: values[name] for name in ("name", "pool_images", "settings", "model", "card")}
        tuples: dict[str, Any] = {name: tuple(values[name]) for name in ("classes", "labels", "levels", "arms", "shots", "seeds", "notes")}
        return cls(
            **plain,
            **tuples,
            results=tuple(CellResult.from_json(result) for result in values["results"]),
            failures={Cell(**line["cell"]): line["reason"] for line in values["failures"]},
            stages=tuple(Stage(**stage) for stage in values["stages"]),
            provenance=Provenance(**values["provenance"]),
            samples=tuple(samples),
        )

    def _runs(self, level: str, arm: str, shots: int | None) -> dict[int, NDArray[np.float64]]:
        """(images,) share right for each seed that is there; with shots None, their mean, for seeds that have all of them."""
        truth = np.asarray(self.labels)
        wanted = self.shots if shots is None else (shots,)
        right: dict[int, dict[int, NDArray[np.float64]]] = {}
        for result in self.results:
            cell = result.cell
            if (cell.level, cell.arm) == (level, arm) and cell.shots in wanted and cell.seed in self.seeds:
                right.setdefault(cell.seed, {})[cell.shots] = (np.asarray(result.predictions) == truth).astype(np.float64)
        return {seed: np.mean(list(own.values()), axis=0) for seed, own in sorted(right.items()) if len(own) == len(wanted)}

    def _score(self, right: NDArray[np.float64]) -> float:
        """Mean over classes of the share right."""
        truth = np.asarray(self.labels)
        return float(np.mean([right[truth == label].mean() for label in np.unique(truth)]))


def _flat(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_basis": None}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high, f"{name}_basis": interval.basis}


def _cell_row(result: CellResult) -> dict[str, Any]:
    values = asdict(result)
    return {**values.pop("cell"), **{name: value for name, value in values.items() if name != "predictions"}}
