"""What `generate.py` times: the published loop, the library's own engine, and a loop in which every measure can be switched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from benchmarks.published import GUIDANCE, STEPS, edit, open_loop
from torch import Tensor

from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.prompts import GENERATION_TEMPLATE, fill
from rediffuse.data.geometry import Fit
from rediffuse.data.open import open_images
from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.precision import resolve_device
from rediffuse.generation.local import default_batch
from rediffuse.generation.run import generate
from rediffuse.methods import editing
from rediffuse.methods.da_fusion import STRENGTHS, DAFusion
from rediffuse.methods.editing import EditDraw, EditingMethod
from rediffuse.sampling.packing import pack
from rediffuse.sampling.sampler import run_jobs
from rediffuse.sampling.solvers import trajectory
from rediffuse.sampling.table import SamplingJob

COPIES = 8  # of each photo, two of each strength; the paper makes ten
WORD = "thing"
MEASURES: Mapping[str, str] = {
    "batching": "several images a call",
    "packing": "strengths share calls",
    "latents": "each photo encoded once",
    "prompts": "each prompt encoded once",
    "half": "bfloat16 trunk",
    "solver": f"{editing.SOLVER}, {editing.STEPS} steps",
}
Way = Literal["published", "default"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """An image to be made. photo: its place among the photos."""

    photo: int
    strength: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """Images made, denoiser calls, slots paid for in them, and steps: useful slots."""

    images: int
    calls: int
    slots: int
    steps: int

    @property
    def slot_use(self) -> float:
        return self.steps / self.slots

    @property
    def images_a_call(self) -> float:
        """Images that advance in a call, on average."""
        return self.steps / self.calls


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to make images. run: (folder, images or None for all) -> images made; shown: in the table of rates."""

    run: Callable[[Path, int | None], int]
    work: Callable[[], Work]
    numbers: str
    solver: str
    shown: bool = True


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What the arms share, made before any clock starts: models, photos, words.

    The word of every class is that of `WORD`: so the published pipeline can be told the same in plain text.
    """

    models: Mapping[str, Any]
    pipeline: Any
    photos: ImageSet
    words: Concepts
    rows: tuple[Row, ...]
    batch: int
    measures: tuple[str, ...]

    @classmethod
    def open(cls, model: str, data: str, images: int, batch: int | None, device: str) -> Self:
        where = resolve_device(device)
        models: dict[str, Any] = {"float32": load(model, device=where, dtype="float32")}
        fast: Any = load(model, device=where, dtype="auto")
        models.setdefault(str(fast.dtype).removeprefix("torch."), fast)
        photos = open_images(data, split="train")
        count = images // COPIES
        shots = few_shot(photos, -(-count // len(photos.classes)), seed=0)
        photos = shots.subset(range(count))
        vectors = models["float32"].word_vectors(WORD)
        rows = [
            Row(photo=photo, strength=STRENGTHS[copy % len(STRENGTHS)], seed=photo * COPIES + copy)
            for photo in range(count)
            for copy in range(COPIES)
        ]
        return cls(
            models=models,
            pipeline=open_loop(Path(models["float32"].spec.path), where),
            photos=photos,
            words=Concepts(words=dict.fromkeys(photos.classes, vectors)),
            rows=tuple(rows),
            batch=batch or default_batch(fast, fast.size),
            measures=tuple(name for name in MEASURES if name != "half" or len(models) > 1),
        )

    @property
    def device(self) -> torch.device:
        found: torch.device = self.models["float32"].device
        return found

    @property
    def fast(self) -> str:
        """Numbers that `load` chooses on this machine."""
        return list(self.models)[-1]

    @property
    def prompt(self) -> str:
        return fill(GENERATION_TEMPLATE, WORD)

    def method(self, numbers: str, way: Way) -> DAFusion:
        solver, steps = ("pndm", STEPS) if way == "published" else (editing.SOLVER, editing.STEPS)
        return DAFusion(self.models[numbers], self.words, STRENGTHS, GUIDANCE, solver, steps)

    def without(self, measure: str) -> frozenset[str]:
        """All measures but this; strengths cannot share calls of one image."""
        return frozenset(self.measures) - {measure} - ({"packing"} if measure == "batching" else set())

    def label(self, measures: frozenset[str]) -> str:
        return "own loop: " + (", ".join(name for name in self.measures if name in measures) or "no measure")

    def call(self, model: Denoiser) -> tuple[Denoiser, tuple[Tensor, Tensor, Condition]]:
        """A guided denoiser and the arguments of one full call."""
        method = DAFusion(model, self.words, STRENGTHS, GUIDANCE)
        side = int(model.size or 0) // model.factor
        x = torch.randn(self.batch, model.channels, side, side, generator=torch.Generator().manual_seed(0)).to(model.device)
        t = torch.full((self.batch,), len(model.schedule) // 2, device=model.device)
        condition = model.embed([self.prompt], method.words).index([0] * self.batch)
        return method.guided(), (x, t, condition)


def arms_of(kit: Kit, published: str, equal: str, default: str) -> dict[str, Arm]:
    """All arms by name: the loop, our own with measures added and taken away one by one, and `rediffuse.generate`."""
    numbers = str(kit.pipeline.dtype).removeprefix("torch.")
    arms = {published: Arm(run=partial(_run_published, kit), work=partial(_loop_work, kit), numbers=numbers, solver=f"pndm {STEPS}")}
    sets = [frozenset(kit.measures[:count]) for count in range(len(kit.measures) + 1)]
    for measures in dict.fromkeys([*sets, *(kit.without(measure) for measure in kit.measures)]):
        arms[kit.label(measures)] = Arm(
            run=partial(_run_own, kit, measures), work=partial(_own_work, kit, measures), numbers=kit.fast, solver="", shown=False
        )
    ways: dict[str, tuple[str, Way]] = {equal: (kit.fast, "published"), default: (kit.fast, "default")}
    if kit.fast != "float32":
        ways[f"{equal}, float32"] = ("float32", "published")
    for name, (numbers, way) in ways.items():
        method = kit.method(numbers, way)
        arms[name] = Arm(
            run=partial(_run_generate, kit, method),
            work=partial(_packed_work, kit, method),
            numbers=numbers,
            solver=f"{method.solver} {method.steps}",
        )
    return arms


def _run_published(kit: Kit, folder: Path, images: int | None) -> int:
    rows = _few(kit, images)
    for place, row in enumerate(rows):
        edit(kit.pipeline, kit.photos[row.photo].image, kit.prompt, row.strength, row.seed).save(folder / f"{place}.png")
    return len(rows)


def _run_generate(kit: Kit, method: EditingMethod, folder: Path, images: int | None) -> int:
    """Everything that a user gets: plan, shards, synced files, manifest, card."""
    photos = kit.photos if images is None else kit.photos.subset(range(images // COPIES))
    generate(photos, method, folder / "run", copies=COPIES, batch=kit.batch, progress=False)
    return len(photos) * COPIES


def _run_own(kit: Kit, measures: frozenset[str], folder: Path, images: int | None) -> int:
    """The same images by our sampler, with these measures alone."""
    rows = list(kit.rows) if images is None and "batching" in measures else _few(kit, images)
    method = _method(kit, measures)
    model, guided = method.model, method.guided()
    fit = Fit(mode="pad", size=int(model.size or 0), multiple_of=model.multiple_of)
    squares = {row.photo: fit.to_model(kit.photos[row.photo].image) for row in rows}
    encoded: dict[int, Tensor] = {}
    conditions: dict[str, Condition] = {}
    for group in _groups(rows, measures):
        with torch.no_grad():
            if "latents" in measures:
                new = list(dict.fromkeys(row.photo for row in group if row.photo not in encoded))
                if new:
                    encoded.update(zip(new, model.encode(_stack(squares, new).to(model.device)), strict=True))
                sources = torch.stack([encoded[row.photo] for row in group])
            else:
                sources = model.encode(_stack(squares, [row.photo for row in group]).to(model.device))
        samples = run_jobs(guided, _jobs(kit, method, group, sources, conditions if "prompts" in measures else None), batch=kit.batch)
        with torch.no_grad():
            pictures = model.decode(samples).float().cpu()
        for row, picture in zip(group, pictures, strict=True):
            fit.undo(picture, squares[row.photo][1], "source").save(folder / f"{row.seed}.png")
    return len(rows)


def _jobs(
    kit: Kit, method: DAFusion, rows: Sequence[Row], sources: Tensor, conditions: dict[str, Condition] | None
) -> list[SamplingJob]:  # fmt: skip
    """conditions: those embedded so far; None embeds the prompt and the empty one anew for every image."""
    labels = [int(kit.photos.labels[row.photo] or 0) for row in rows]
    draw = EditDraw(
        strength=torch.tensor([row.strength for row in rows]), seed=torch.tensor([row.seed for row in rows]), label=torch.tensor(labels)
    )
    if conditions is not None:
        return method.jobs(sources, draw, conditions)
    jobs = []
    for place in range(len(rows)):
        with torch.no_grad():
            method.model.embed([""])
        jobs += method.jobs(sources[place : place + 1], draw.index([place]))
    return jobs


def _groups(rows: Sequence[Row], measures: frozenset[str]) -> list[list[Row]]:
    """The rows that are handed to the sampler together."""
    if "batching" not in measures:
        return [[row] for row in rows]
    if "packing" in measures:
        return [list(rows)]
    return [[row for row in rows if row.strength == strength] for strength in STRENGTHS]


def _method(kit: Kit, measures: frozenset[str]) -> DAFusion:
    return kit.method(kit.fast if "half" in measures else "float32", "default" if "solver" in measures else "published")


def _few(kit: Kit, images: int | None) -> list[Row]:
    """An eighth of the rows, of every strength as many: for arms whose rate does not depend on their number."""
    return list(kit.rows[: images or max(len(STRENGTHS), len(kit.rows) // 8 // len(STRENGTHS) * len(STRENGTHS))])


def _stack(squares: Mapping[int, tuple[Tensor, Any]], photos: Sequence[int]) -> Tensor:
    return torch.stack([squares[photo][0] for photo in photos])


def _work(kit: Kit, method: EditingMethod, groups: Sequence[Sequence[Row]]) -> Work:
    schedule = method.model.schedule
    calls = {strength: len(trajectory(schedule, method.solver, method.steps, strength)) for strength in STRENGTHS}
    packings = [pack([calls[row.strength] for row in group], kit.batch if len(group) > 1 else 1) for group in groups]
    return Work(
        images=sum(len(group) for group in groups),
        calls=sum(len(packing) for packing in packings),
        slots=sum(int(packing.sizes.sum()) for packing in packings),
        steps=sum(len(packing.table) for packing in packings),
    )


def _packed_work(kit: Kit, method: EditingMethod) -> Work:
    return _work(kit, method, [kit.rows])


def _own_work(kit: Kit, measures: frozenset[str]) -> Work:
    return _work(kit, _method(kit, measures), _groups(kit.rows, measures))


def _loop_work(kit: Kit) -> Work:
    return _work(kit, kit.method("float32", "published"), [[row] for row in kit.rows])
