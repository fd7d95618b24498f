"""Finished cells on disk: one file each, written whole, so that a killed comparison goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rediffuse.data.names import is_safe_name, slug
from rediffuse.data.outputs import CELLS, SETTINGS
from rediffuse.differences import short, unequal
from rediffuse.errors import DataError, PlanError
from rediffuse.evaluation.few_shot.settings import Cell
from rediffuse.progress import counted
from rediffuse.writing import holds_nothing, write_json

GROWS = ("shots", "seeds", "arms", "levels")
"""Settings that a later call may extend: what they add are further cells."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one classifier did.

    Attributes:
        cell: which.
        predictions: class index of each test image.
        accuracy: mean over classes.
        top1: share of all test images.
        alpha: probability of a copy in its training; 0 where there are none.
        real, synthetic: images that it was trained on.
        seconds: of training and judging it.
    """

    cell: Cell
    predictions: tuple[int, ...]
    accuracy: float
    top1: float
    alpha: float
    real: int
    synthetic: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "predictions": list(self.predictions)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CellResult:
        known = {name: values[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "cell": Cell(**values["cell"]), "predictions": tuple(values["predictions"])})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Work that several cells share: learning words or making copies.

    Attributes:
        name: "learn" or "generate"; arm, shots, seed: for which.
        seconds: that it took, all its lives together. Of a life that was killed, learning counts what was kept, and making nothing.
        images: made; calls: image steps, guidance counted once.
    """

    name: str
    arm: str
    shots: int
    seed: int
    seconds: float
    images: int = 0
    calls: int = 0


class CellStore:
    """The folder of a comparison: settings, cells, stages, failures.

    Args:
        out: the folder.
        test_images: a cell has as many predictions.
    """

    def __init__(self, out: Path, test_images: int) -> None:
        self.out, self.test_images = out, test_images

    def path(self, cell: Cell) -> Path:
        level = cell.level if is_safe_name(cell.level) else slug(cell.level)
        return self.out / CELLS / level / cell.arm / f"shots-{cell.shots}" / f"seed-{cell.seed}.json"

    def read(self, cell: Cell) -> CellResult | None:
        """A finished cell; None where there is none yet. A damaged file counts as none: it is made again."""
        try:
            found = CellResult.from_json(json.loads(self.path(cell).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None
        return found if found.cell == cell and len(found.predictions) == self.test_images else None

    def write(self, result: CellResult) -> None:
        write_json(self.path(result.cell), result.to_json())
        self._failure(result.cell).unlink(missing_ok=True)

    def fail(self, cell: Cell, reason: str) -> None:
        """Note why a cell is missing; the next call tries it again."""
        write_json(self._failure(cell), {"cell": asdict(cell), "reason": reason})

    def failure(self, cell: Cell) -> str | None:
        path = self._failure(cell)
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["reason"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}; remove it, and the cell is tried again") from error

    def _failure(self, cell: Cell) -> Path:
        path = self.path(cell)
        return path.with_name(path.stem + ".failed.json")

    def add_stage(self, stage: Stage) -> None:
        write_json(self.out / "stages" / f"{stage.name}-{stage.arm}-shots-{stage.shots}-seed-{stage.seed}.json", asdict(stage))

    def stages(self) -> list[Stage]:
        return [_stage(file) for file in sorted((self.out / "stages").glob("*.json"))]

    def claim(self, plan: Mapping[str, Any]) -> None:
        """Write what is compared, or check that the folder holds the same; shots, seeds, arms and levels may grow.

        Raises:
            PlanError: another comparison's folder, with what differs; or a folder that holds something else.
        """
        stored = self.check(plan)
        grown: dict[str, Any] = {} if stored is None else {name: _union(stored.get(name), plan.get(name)) for name in GROWS}
        if stored is not None and not plan.get("model"):
            grown["model"] = stored.get("model", {})
        write_json(self.out / SETTINGS, {**plan, **grown})
        (self.out / CELLS).mkdir(exist_ok=True)  # by both, readers of photos know the folder from the start

    def check(self, plan: Mapping[str, Any]) -> dict[str, Any] | None:
        """As `claim`, but nothing is written; returns what the folder holds, None where it is new."""
        path = self.out / SETTINGS
        if not path.exists():
            if self.out.is_dir() and not holds_nothing(self.out):
                raise PlanError(f"{self.out} holds something else than a comparison; give an empty or new folder")
            return None
        try:
            stored: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged: {error}; give another folder") from error
        if not isinstance(stored, dict):
            raise DataError(f"{path} is damaged: it holds a {type(stored).__name__}, no settings; give another folder")
        differences = compare_plans(stored, plan)
        if differences:
            raise PlanError(f"{self.out} holds another comparison: {'; '.join(differences)}. Give another folder, or the same settings")
        return stored


def _stage(file: Path) -> Stage:
    try:
        return Stage(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged: {error}; remove it, and the page does without its seconds and images") from error


def compare_plans(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, where two plans differ outside of what may grow; of other photos no more than that."""
    if _photos(stored) != _photos(wanted):
        old, new = _described(stored), _described(wanted)
        same = f", with other pixels or names ({str(_photos(stored))[:12]} and {str(_photos(wanted))[:12]})" if old == new else ""
        return [f"its photos were {old}, now they are {new}{same}"]
    known = dict(map(tuple, stored.get("levels", ())))
    moved = [(level, known.get(level, where), where) for level, where in wanted.get("levels", ())]
    found = [f"level {level} was {old}, now {new}" for level, old, new in moved if old != new]
    apart = GROWS if stored.get("model") and wanted.get("model") else (*GROWS, "model")  # no model yet without arms that make copies
    before, now = ({name: value for name, value in plan.items() if name not in apart} for plan in (stored, wanted))
    return found + [f"{name} was {short(old)}, now {short(new)}" for name, old, new in unequal(before, now)]


def _photos(plan: Mapping[str, Any]) -> Any:
    return dict(plan.get("photos") or {}).get("sha256")


def _described(plan: Mapping[str, Any]) -> str:
    """Photos of a plan by number and classes, so many that another set can be told."""
    photos = dict(plan.get("photos") or {})
    classes = [str(name) for name in photos.get("classes") or ()]
    shown = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    return f"{counted(int(photos.get('count') or 0), 'photo')} of {counted(len(classes), 'class', 'classes')} ({shown})"


def _union(before: Any, now: Any) -> list[Any]:
    return [*(before or []), *(value for value in now or [] if value not in (before or []))]
