"""A cell of the DiffAug experiment: one arm, one net, one seed; trained, judged, and kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.denoisers.precision import trunk_region
from rediffuse.evaluation.corruptions.constants import SEVERITIES
from rediffuse.evaluation.kept import Kept
from rediffuse.methods.bank import Bank
from rediffuse.progress import notes
from rediffuse.recipes.robust.arms import SIZE
from rediffuse.recipes.robust.corrupted import read_corrupted
from rediffuse.recipes.robust.nets import Budget
from rediffuse.recipes.robust.sets import NATURAL, Shift, Split
from rediffuse.training.augment import CropViews
from rediffuse.training.classifier import Classifier
from rediffuse.training.cost import StepClock, step_cost
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Objective
from rediffuse.training.pool import Pool
from rediffuse.writing import write_json

CLEAN = "clean"
TEST = "test"
CHECKPOINT_EVERY = 300  # steps


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One classifier."""

    net: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.net}_{self.arm}_{self.seed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What a cell's classifier got right.

    Attributes:
        right: "clean" or "fog-3" -> (N,) bool, of each test picture; "natural" -> (M,) bool, of pictures of another make.
        held: accuracy on the pictures that choices are made on.
        facts: seconds, steps and the like, as JSON.
    """

    cell: Cell
    right: Mapping[str, NDArray[np.bool_]]
    held: float
    facts: Mapping[str, Any]

    def share(self, keys: Sequence[str]) -> NDArray[np.float64]:
        """(N,) which part of these copies of each test picture is named rightly."""
        found: NDArray[np.float64] = np.mean([self.right[key] for key in keys], axis=0)
        return found


def keys_of(corruptions: Sequence[str], severities: Sequence[int] = SEVERITIES) -> list[str]:
    return [f"{name}-{severity}" for name in corruptions for severity in severities]


class Diary:
    """Seconds and losses of a training, on the disk beside its checkpoint, so that a kill loses none."""

    def __init__(self, file: Path) -> None:
        self.file, self.began = file, time.monotonic()
        held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.before, self.losses = float(held.get("seconds", 0.0)), [(int(step), float(loss)) for step, loss in held.get("losses", [])]

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def note(self, step: int, values: Mapping[str, float]) -> None:
        self.losses = [(done, loss) for done, loss in self.losses if done < step] + [(step, round(values["loss"], 4))]
        write_json(self.file, {"seconds": round(self.seconds, 1), "losses": self.losses})


def train(
    classifier: Classifier, pool: Pool, objective: Objective, budget: Budget, seed: int, checkpoint: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Diary:  # fmt: skip
    """Train in place; a killed training goes on. Returns what it took and how its loss went.

    At the start it says what a step costs, after the first ones how long one takes.
    """
    settings, tell = budget.settings, notes(True)
    tell(step_cost(objective, classifier, (SIZE, SIZE), settings.steps * settings.batch).line())
    banks = [extra.method for extra in objective.extras if isinstance(extra.method, Bank)]
    clock = StepClock(tell, settings.batch, progress, banks=banks)
    diary = Diary(checkpoint.with_suffix(".json"))
    fit_network(
        classifier, pool, settings=settings, views=CropViews(), objective=objective, procedure=budget.procedure,
        view_size=(SIZE, SIZE), seed=seed, checkpoint=checkpoint, checkpoint_every=CHECKPOINT_EVERY, progress=clock,
        watch=diary.note, watch_every=CHECKPOINT_EVERY,
    )  # fmt: skip
    return diary


def judge(
    classifier: Classifier, test: Split, held: Split, folder: Path, corruptions: Sequence[str], natural: Shift | None = None,
    numbers: torch.dtype = torch.float32,
) -> tuple[dict[str, NDArray[np.bool_]], float]:  # fmt: skip
    """What it gets right of the test pictures, of their corrupted copies and of pictures of another make; the share of the held-out ones.

    numbers: of the trunk; those that it was trained in make half the time of float32.
    """
    pictures, labels = test

    def said(images: Tensor) -> Tensor:
        with trunk_region(classifier.device, numbers):
            return classifier.predict(images)

    def right(images: Tensor) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (said(images).argmax(1) == labels).numpy()
        return found

    found = {CLEAN: right(pictures)}
    for name in corruptions:
        for severity in SEVERITIES:
            found[f"{name}-{severity}"] = right(read_corrupted(folder, name, severity, len(pictures)))
    if natural is not None:
        answers = natural.shown[said(natural.images)[:, natural.shown].argmax(1)]
        found[NATURAL] = (answers == natural.labels).numpy()
    return found, float((said(held[0]).argmax(1) == held[1]).double().mean())


class CellStore:
    """Judgements of finished cells in a folder that belongs to one experiment; see `Kept`."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.kept = Kept(folder, identity)

    def cells(self) -> list[Cell]:
        """Those that are finished."""
        found = []
        for name in self.kept.names():
            net, arm, seed = name.split("_")
            found.append(Cell(net=net, arm=arm, seed=int(seed)))
        return sorted(found)

    def read(self, cell: Cell) -> Judgement | None:
        found = self.kept.read(cell.name)
        if found is None:
            return None
        tensors, notes = found
        counts = json.loads(notes["counts"])
        right = {key: np.unpackbits(bits.numpy(), count=counts[key]).astype(bool) for key, bits in tensors.items()}
        return Judgement(cell=cell, right=right, held=float(notes["held"]), facts=json.loads(notes["facts"]))

    def write(self, judgement: Judgement) -> None:
        bits = {key: torch.from_numpy(np.packbits(value)) for key, value in judgement.right.items()}
        counts = json.dumps({key: len(value) for key, value in judgement.right.items()})
        notes = {"held": repr(judgement.held), "counts": counts, "facts": json.dumps(dict(judgement.facts))}
        self.kept.write(judgement.cell.name, bits, notes)
