"""A learning under way, on disk: a killed run continues to the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from rediffuse.concepts.concepts import write_tensors
from rediffuse.concepts.recipes import InversionRecipe
from rediffuse.concepts.tokens import WORDS
from rediffuse.differences import short, unequal
from rediffuse.errors import ModelError, PlanError

_FIELDS = ("rows", "first", "second")
_FREE = ("batch",)  # of a task: it decides nothing but rounding


@dataclass(frozen=True, eq=False, kw_only=True)
class LearningState:
    """After `step` updates: rows (C, k, D) and AdamW's two moments of the same shape.

    starts: JSON, how each word began; seconds: that it took to come here, in all lives of the learning.
    """

    step: int
    rows: Tensor
    first: Tensor
    second: Tensor
    starts: Sequence[Mapping[str, Any]]
    seconds: float = 0.0

    @classmethod
    def begin(cls, rows: Sequence[Tensor], starts: Sequence[Mapping[str, Any]]) -> Self:
        """Before the first update. rows: (k, D) for each class."""
        stacked = torch.stack(list(rows))
        return cls(step=0, rows=stacked, first=torch.zeros_like(stacked), second=torch.zeros_like(stacked), starts=starts)

    def index(self, rows: Sequence[int]) -> Self:
        """The state of these words, in this order."""
        chosen = torch.tensor(rows)
        return replace(
            self, rows=self.rows[chosen], first=self.first[chosen], second=self.second[chosen], starts=[self.starts[row] for row in rows]
        )

    def optimizer(self, rows: Tensor, recipe: InversionRecipe) -> torch.optim.AdamW:
        """AdamW on the new rows alone, as it was at this step. It works elementwise, so words do not touch each other."""
        optimizer = torch.optim.AdamW(
            [rows], lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon, weight_decay=recipe.weight_decay
        )
        moments = {"exp_avg": self.first.to(rows.device, copy=True), "exp_avg_sq": self.second.to(rows.device, copy=True)}
        optimizer.state[rows] = {"step": torch.tensor(float(self.step)), **moments}
        return optimizer

    def after(self, step: int, rows: Tensor, optimizer: torch.optim.AdamW, seconds: float) -> Self:
        """The state at a later step, so many seconds later; copies, on the CPU."""
        moments = optimizer.state[rows]
        words, first, second = (tensor.detach().to("cpu", copy=True) for tensor in (rows, moments["exp_avg"], moments["exp_avg_sq"]))
        return replace(self, step=step, rows=words, first=first, second=second, seconds=self.seconds + seconds)

    def save(self, file: Path, task: Mapping[str, Any]) -> None:
        """Write it with the task that it belongs to."""
        tensors = {name: getattr(self, name).contiguous() for name in _FIELDS}
        told = {"task": json.dumps(task), "step": str(self.step), "starts": json.dumps(list(self.starts)), "seconds": repr(self.seconds)}
        write_tensors(file, tensors, told)

    @classmethod
    def load(cls, file: Path, task: Mapping[str, Any]) -> Self | None:
        """The state of an earlier run of this task; None where there is no file.

        Raises:
            PlanError: the file belongs to another task; the difference is named.
            ModelError: the file is no such state.
        """
        if not file.exists():
            return None
        state, theirs = cls._read(file)
        if unlike := differences(theirs, task):
            # Words that were learned may be those of a run, and are lost with the file; of a learning under way nothing is made yet.
            learned = (file.parent / WORDS).exists()
            spare = "" if learned or state.step >= theirs["recipe"]["steps"] else ", or delete it: it is not finished"
            use = f"; `augment --words {file.parent}` makes copies with its words as they are" if learned else ""
            raise PlanError(f"{file} belongs to another learning: {'; '.join(unlike)}. Give another folder{spare}{use}")
        places = {name: place for place, name in enumerate(theirs["placeholders"])}
        return state.index([places[name] for name in task["placeholders"]])

    @classmethod
    def _read(cls, file: Path) -> tuple[Self, Any]:
        """What a file holds: a state, and the task that it belongs to."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as opened:
                told = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in _FIELDS}
            step, starts, seconds = int(told["step"]), json.loads(told["starts"]), float(told.get("seconds", 0.0))
            return cls(step=step, starts=starts, seconds=seconds, **tensors), json.loads(told["task"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ModelError(f"{file} is no checkpoint of a learning ({error}); delete it or name another") from error


def learning_seconds(file: Path) -> float:
    """How long the learning of a checkpoint took so far, all its lives together; what a kill threw away is not in it."""
    return LearningState._read(file)[0].seconds


def differences(theirs: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    """In words, how another learning differs from this one; empty where both end at the same words."""
    old, new = deciding(theirs), deciding(json.loads(json.dumps(task)))
    told = []
    if old["photos"].pop("sha256", None) != new["photos"].pop("sha256", None):
        before, now = old["photos"].pop("count", None), new["photos"].pop("count", None)
        told.append(f"other photos: {before} then, {now}{' others' if before == now else ''} now")
    if old["model"].pop("weights_hash", None) != new["model"].pop("weights_hash", None):
        for model in (old["model"], new["model"]):
            model.pop("name", None), model.pop("revision", None)
        told.append(f"another model: {_model_name(theirs)} then, {_model_name(task)} now")
    return [*told, *(f"{name} was {short(before)}, now {short(now)}" for name, before, now in unequal(old, new))][:5]


def _model_name(task: Mapping[str, Any]) -> str:
    """With the beginning of its weights' hash, which tells apart two of one name."""
    model = dict(task.get("model", {}))
    return f"{model.get('name') or 'one without a name'} ({str(model.get('weights_hash') or 'unknown')[:12]})"


def deciding(task: Mapping[str, Any]) -> dict[str, Any]:
    """What of a task decides its words. Photos count by their pixels and models by their weights, not by what they are called."""
    model, photos = dict(task.get("model", {})), dict(task.get("photos", {}))
    photos.pop("name", None)
    if model.get("weights_hash"):
        model.pop("name", None)
        model.pop("revision", None)
    return {**{name: value for name, value in task.items() if name not in _FREE}, "model": model, "photos": photos}
