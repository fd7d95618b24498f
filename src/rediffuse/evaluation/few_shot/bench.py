"""What a comparison works on, checked and put together before anything is trained: two sets that share no picture, settings, folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from rediffuse.concepts.recipes import find_recipe
from rediffuse.data.splits import few_shot, held_out_line, holdout
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import DataError
from rediffuse.evaluation.few_shot.arms import Copies
from rediffuse.evaluation.few_shot.cells import CellStore
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.drawn import choose_drawn, stages_of
from rediffuse.evaluation.few_shot.generator import facts, read_card
from rediffuse.evaluation.few_shot.judge import Judge
from rediffuse.evaluation.few_shot.samples import collect_samples
from rediffuse.evaluation.few_shot.settings import GENERATED, SHOTS, CompareSettings
from rediffuse.evaluation.matching import in_classes
from rediffuse.evaluation.provenance import commit, provenance
from rediffuse.generation.environment import identify
from rediffuse.progress import counted
from rediffuse.training.backbones import SCRATCH
from rediffuse.training.model_folders import model_folder
from rediffuse.training.pool import labels_of

HELD_OUT = 0.25
"""Share of each class that is held out where no test photos are given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A comparison that is ready to run.

    Attributes:
        pool, held: photos to take shots from, photos to judge by.
        model: the text-to-image denoiser, if any.
        plan: all that decides what a cell finds, as JSON.
        notes: limits that belong to the figures.
    """

    pool: ImageSet
    held: ImageSet
    model: Denoiser | None
    settings: CompareSettings
    plan: dict[str, Any]
    notes: tuple[str, ...]
    store: CellStore
    copies: Copies
    judge: Judge

    @classmethod
    def prepare(
        cls, images: ImageSet, test: ImageSet | None, model: Denoiser | None, settings: CompareSettings, out: Path, progress: bool,
        *, fewer: bool = False,
    ) -> Bench:  # fmt: skip
        """Check sets, shots, levels and model.

        Args:
            fewer: leave out shots that a class has not enough photos for.
        Raises:
            DataError: too few photos of a class, no labels, or nothing to judge by.
            ModelError: a level that is no classifier.
            ConfigError: arms that make copies, and no model.
        """
        commit()  # is remembered from here on: work of hours may outlast it
        pool, held, notes = split(images, test)
        if fewer:
            settings = replace(settings, shots=within(settings.shots, min(pool.counts())) or settings.shots)
        check_shots(images, pool, settings, held_out=test is None)  # a class with too few photos is an error now
        store = CellStore(out, len(held))
        copies = Copies(pool, model, settings, store, progress)
        device = torch.device("cpu") if model is None else model.device
        return cls(
            pool=pool,
            held=held,
            model=model,
            settings=settings,
            plan=plan_of(pool, held, model, settings),
            notes=notes,
            store=store,
            copies=copies,
            judge=Judge(pool, held, settings, copies, store, device),
        )

    def conclude(self, command: str | None) -> Comparison:
        """What the folder holds of this comparison now, cells of earlier calls with it."""
        there = self.store.check(self.plan)
        drawn = choose_drawn(self.settings, there, self.store, makes=self.model is not None)
        settings, held = drawn.settings, dict(map(tuple, [*((there or {}).get("levels") or ()), *self.plan["levels"]]))
        names = [name for name, _ in settings.levels]
        plan = {
            **self.plan, "seeds": [*settings.seeds], "shots": [*settings.shots], "arms": [*settings.arms],
            "levels": [[name, held[name]] for name in names],
        }  # fmt: skip
        generated = [arm for arm in GENERATED if arm in settings.arms]
        card = read_card(self.model) if generated else {}
        cells, copies = list(settings.cells()), Copies(self.pool, self.model, settings, self.store, False)
        return Comparison(
            name=short_name(self.pool.name),
            classes=self.pool.classes,
            labels=tuple(labels_of(self.held).tolist()),
            pool_images=len(self.pool),
            levels=tuple(names),
            arms=settings.arms,
            shots=settings.shots,
            seeds=settings.seeds,
            settings=plan,
            model=name_model(self.model) | plan["model"] if generated else {},
            card=card,
            results=tuple(found for cell in cells if (found := self.store.read(cell)) is not None),
            failures={cell: reason for cell in cells if (reason := self.store.failure(cell)) is not None},
            stages=stages_of(self.store.stages(), settings),
            provenance=provenance(command, str(self.judge.device)),
            notes=(*facts(self.pool, self.model, card), *self.notes, *drawn.notes),
            samples=tuple(collect_samples(self.pool, copies, generated, max(settings.shots), settings.seeds[0])),
        )


def split(images: ImageSet, test: ImageSet | None) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """(photos to take shots from, photos to judge by, notes): labels in one class list, and no picture on both sides."""
    if not images.classes or None in images.labels:
        raise DataError(
            f"{images.name} has photos without a label; sort the photos into one folder a class, or give a table of file and label"
        )
    if len(images.classes) < 2:
        names = ", ".join(map(repr, images.classes)) or "none"
        raise DataError(f"a classifier needs at least two classes, got {len(images.classes)} ({names}) in {images.name}; add a class")
    notes: tuple[str, ...] = ()
    if test is None:
        pool, held = holdout(images, HELD_OUT, seed=0)
        notes = (held_out_line(images, held, HELD_OUT, "were"),)
    else:
        pool, held = images, in_classes(test, images.classes, f"the training set {images.name}")
    if None in held.labels or not len(held):
        raise DataError(f"{held.name} must hold labelled photos to judge by; give others")
    known = set(held.digests)
    apart = pool.subset([row for row, own in enumerate(pool.digests) if own not in known])
    if len(apart) == len(pool):
        return pool, held, notes
    if not len(apart):
        raise DataError(f"all {len(pool):,} photos of {images.name} are also test photos; give other test photos")
    both = len(pool) - len(apart)
    return apart, held, (*notes, f"{both:,} of {len(pool):,} photos are also test photos, pixel for pixel; no shot was taken from them.")


def within(shots: Sequence[int], photos: int) -> tuple[int, ...]:
    """Those of these shots that so many photos of a class allow."""
    return tuple(n for n in shots if n <= photos)


def check_shots(images: ImageSet, pool: ImageSet, settings: CompareSettings, *, held_out: bool) -> None:
    """Raise DataError where a class has too few photos; where some were held out unasked, say so.

    Args:
        images: all photos that were given; pool: those to take shots from.
    """
    most = max(settings.shots)
    left, name, whole = min(zip(pool.counts(), pool.classes, images.counts(), strict=True))
    if held_out and 0 < left < most:
        fit = within(settings.shots, left) or within(SHOTS, left)
        raise DataError(
            f"class {name!r} has {counted(whole, 'photo')}, {whole - left} held out to judge by, {left} left, {most} were asked for: "
            f"--shots {' '.join(map(str, fit))}, or {'--test FOLDER' if whole >= most else 'add photos'}"
        )
    few_shot(pool, most, settings.seeds[0])


def plan_of(pool: ImageSet, held: ImageSet, model: Denoiser | None, settings: CompareSettings) -> dict[str, Any]:
    """All that decides what a cell finds, as JSON: what a folder is checked against."""
    makes = model is not None and bool(set(settings.arms) & set(GENERATED))
    plan: dict[str, Any] = {
        "format": 1,
        **settings.to_json(),
        "levels": [[name, weights_of(where)] for name, where in settings.levels],
        "photos": {"count": len(pool), "classes": list(pool.classes), "flips": pool.flips, "sha256": digest(pool)},
        "test": {"count": len(held), "sha256": digest(held)},
        "model": identify(model) if makes and model is not None else {},
    }
    plan["making"].pop("batch")  # it changes rounding alone: a smaller one continues
    if isinstance(settings.making.recipe, str):  # what the name stands for may change with the version, and words must not be mixed
        plan["making"]["recipe"] = {"name": settings.making.recipe, **find_recipe(settings.making.recipe).to_settings()}
    return dict(json.loads(json.dumps(plan)))


def name_model(model: Denoiser | None) -> dict[str, Any]:
    """How a model is called: its hub or bundled name, or the last part of its path."""
    if model is None or model.spec is None:
        return {} if model is None else {"name": type(model).__name__, "revision": None}
    known = not Path(model.spec.name).expanduser().exists()
    return {"name": model.spec.name if known else short_name(model.spec.name), "revision": model.spec.revision}


def short_name(name: str) -> str:
    """Without the folders of one machine: `/photos/flowers (train)` is `flowers (train)`."""
    return PurePath(name).name or name


def weights_of(where: str) -> str:
    """sha256 over the weight files of a level, so that a moved folder is the same level and another network is not."""
    if where == SCRATCH:
        return SCRATCH
    found = hashlib.sha256()
    for file in sorted(model_folder(where).glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()


def digest(images: ImageSet) -> str:
    """sha256 over ids, pixels and labels, whatever their order."""
    rows = sorted(zip(images.ids, images.digests, map(str, images.labels), strict=True))
    return hashlib.sha256(json.dumps(rows).encode("utf-8", "surrogatepass")).hexdigest()
