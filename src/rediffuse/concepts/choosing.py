"""The choice of start words under way, on disk: a stopped one goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rediffuse.concepts.state import deciding
from rediffuse.differences import short, unequal
from rediffuse.errors import ModelError, PlanError
from rediffuse.writing import write_json

SAVE_EVERY = 20.0  # seconds
_RECIPE = ("start", "start_rows", "vectors", "fit")  # what of a recipe decides the choice


@dataclass(frozen=True, eq=False, kw_only=True)
class Choice:
    """How far a choice is. turn: the round under way, from 0.

    alive: of each class, the candidates in that round; sums: (classes, candidates) float64, of their losses; calls: of each class.
    """

    turn: int
    alive: Sequence[Sequence[int]]
    sums: Tensor
    calls: Sequence[int]

    @classmethod
    def begin(cls, classes: int, candidates: int) -> Self:
        sums = torch.zeros(classes, candidates, dtype=torch.float64)
        return cls(turn=0, alive=[range(candidates)] * classes, sums=sums, calls=[0] * classes)

    def after(self, asked: Sequence[tuple[int, int, int]], losses: Sequence[float]) -> Self:
        """With the losses of further samples, each (class, candidate, look); a new state, so that an interrupt finds a whole one."""
        sums, calls = self.sums.clone(), list(self.calls)
        for (place, who, _), loss in zip(asked, losses, strict=True):
            sums[place, who] += loss
            calls[place] += 1
        return replace(self, sums=sums, calls=calls)

    def next_round(self, keep: int) -> Self:
        """With the best candidates of each class."""
        ranked = (sorted(group, key=lambda who: (float(self.sums[place, who]), who))[:keep] for place, group in enumerate(self.alive))
        return replace(self, turn=self.turn + 1, alive=list(ranked))


class KeptChoice:
    """A choice in a file beside the checkpoint of its learning; it is removed when the learning has one.

    Args:
        checkpoint: of the learning.
        task: that the learning belongs to; what of it decides the choice must be the same.
        candidates: the known words.
    Attributes:
        seconds: that earlier lives of the choice took.
    Raises:
        PlanError: the file belongs to another choice.
        ModelError: it cannot be read.
    """

    def __init__(self, checkpoint: Path, task: Mapping[str, Any], candidates: Sequence[str]) -> None:
        self.file = choice_file(checkpoint)
        self.names = list(task["placeholders"])
        self.task = _deciding(json.loads(json.dumps(task)), candidates)
        self.seconds, self._began = 0.0, time.monotonic()
        self._saved = self._began
        if self.file.exists():
            theirs = self._read()
            if differences := unequal(theirs["task"], self.task):
                told = "; ".join(f"{name} was {short(old)}, now {short(new)}" for name, old, new in differences[:5])
                raise PlanError(
                    f"{self.file} is the choice of start words of another learning: {told}. Give another folder, or delete this file, "
                    "which holds no words"
                )
            self.seconds = float(theirs["seconds"])

    def load(self) -> Choice | None:
        """What lies there, with the classes in the order of the task."""
        if not self.file.exists():
            return None
        found = self._read()
        own = [found["classes"][name] for name in self.names]
        sums = torch.tensor([[float.fromhex(value) for value in each["sums"]] for each in own], dtype=torch.float64)
        return Choice(turn=int(found["round"]), alive=[each["alive"] for each in own], sums=sums, calls=[each["calls"] for each in own])

    def note(self, choice: Choice) -> None:
        """Save it now and then."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save(choice)

    def save(self, choice: Choice) -> None:
        rows = zip(self.names, choice.alive, choice.sums.tolist(), choice.calls, strict=True)
        classes = {  # hexadecimal keeps every bit, and what is not finite
            name: {"alive": list(alive), "sums": [value.hex() for value in sums], "calls": calls} for name, alive, sums, calls in rows
        }
        seconds = self.seconds + time.monotonic() - self._began
        write_json(self.file, {"task": self.task, "round": choice.turn, "seconds": seconds, "classes": classes})
        self._saved = time.monotonic()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
            if not {"task", "round", "seconds", "classes"} <= found.keys():
                raise ValueError("it lacks a part")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{self.file} cannot be read as a choice of start words ({error}); delete it, it holds no words") from error
        return found


def choice_file(checkpoint: Path) -> Path:
    """Where the choice before a learning is kept. It is no token file, which would be read as words."""
    return checkpoint.with_name(f"{checkpoint.stem}.starts.json")


def _deciding(task: Mapping[str, Any], candidates: Sequence[str]) -> dict[str, Any]:
    own = deciding(task)
    words = hashlib.sha256("\n".join(candidates).encode("utf-8", "surrogatepass")).hexdigest()
    return {**own, "recipe": {name: own["recipe"][name] for name in _RECIPE}, "known_words": words}
