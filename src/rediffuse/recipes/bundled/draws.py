"""Samples of the bundled generator: edits of pictures and draws from noise, those kept in pieces so that a killed judgement goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from rediffuse.concepts.prompts import GENERATION_TEMPLATE
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import DataError
from rediffuse.progress import Bar
from rediffuse.sampling.guided import ClassifierFree
from rediffuse.sampling.sampler import run_jobs
from rediffuse.sampling.solvers import from_noise, trajectory
from rediffuse.sampling.table import SamplingJob
from rediffuse.writing import whole

BATCH = 64
PIECE = 4 * BATCH
SOLVER: Final = "dpm++2m"
KEY = "images"


def floats(images: Tensor) -> Tensor:
    return images.float() / 255


def to_bytes(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def pieces(
    model: Denoiser,
    names: Sequence[str],
    images: Tensor | None,
    *,
    strength: float,
    guidance: float,
    steps: int,
    seed: int,
    wanted: Callable[[int], bool] = lambda start: True,
) -> Iterator[tuple[int, Tensor]]:
    """(first row, pictures) for each stretch of `PIECE` rows that is wanted; the seed of a row is its own, whatever is drawn beside it."""
    guided = ClassifierFree(model, guidance)
    conditions = {name: model.embed([GENERATION_TEMPLATE.format(name)]) for name in dict.fromkeys(names)}
    table = from_noise(model.schedule, SOLVER, steps) if images is None else trajectory(model.schedule, SOLVER, steps, strength)
    blank = torch.zeros(model.channels, 64 // model.factor, 64 // model.factor)
    for start in range(0, len(names), PIECE):
        if not wanted(start):
            continue
        rows = range(start, min(start + PIECE, len(names)))
        sources = [blank] * len(rows) if images is None else list(model.encode(floats(images[rows.start : rows.stop]).to(model.device)))
        jobs = [
            SamplingJob(source=source, table=table, condition=conditions[names[row]], seed=seed * 1_000_003 + row)
            for row, source in zip(rows, sources, strict=True)
        ]
        yield start, to_bytes(model.decode(run_jobs(guided, jobs, BATCH))).cpu()


@torch.no_grad()
def edits(
    model: Denoiser, names: Sequence[str], images: Tensor | None, *, strength: float, guidance: float, steps: int, seed: int
) -> Tensor:
    """One picture a name: edited from its image at a strength, or drawn from noise. Returns (N, 3, 64, 64) uint8."""
    made = pieces(model, names, images, strength=strength, guidance=guidance, steps=steps, seed=seed)
    return torch.cat([part for _, part in made])


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Pictures drawn from noise, one for each name, kept in pieces in a subfolder of their own for each model and setting.

    folder: of all draws. names: (N,) class of each picture.
    """

    folder: Path
    model: Denoiser
    names: Sequence[str]
    guidance: float
    steps: int
    seed: int

    @cached_property
    def files(self) -> dict[int, Path]:
        """First row -> file of its piece."""
        numbers = "" if self.model.spec is None else dict(self.model.spec.options).get("dtype", "")
        said = json.dumps([self.model.fingerprint(), numbers, list(self.names), self.guidance, self.steps, self.seed, SOLVER, PIECE])
        place = self.folder / hashlib.sha256(said.encode()).hexdigest()[:16]
        return {start: place / f"{start:06}.safetensors" for start in range(0, len(self.names), PIECE)}

    @torch.no_grad()
    def draw(self, part: tuple[int, int] = (0, 1)) -> None:
        """Draw what is not there. part: (I, N) draws the pieces I, I + N, ... alone, so that N processes share the work."""
        from safetensors.torch import save_file

        def wanted(start: int) -> bool:
            return start // PIECE % part[1] == part[0] and not self.files[start].exists()

        with Bar(unit="pictures") as bar:
            bar.stage("drawing", sum(min(PIECE, len(self.names) - start) for start in self.files if wanted(start)))
            for start, made in self._pieces(wanted):
                with whole(self.files[start]) as waiting:
                    save_file({KEY: made.contiguous()}, waiting)
                bar.advance(len(made))

    def _pieces(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Tensor]]:
        return pieces(self.model, self.names, None, strength=1.0, guidance=self.guidance, steps=self.steps, seed=self.seed, wanted=wanted)

    def all(self) -> Tensor:
        """(N, 3, 64, 64) uint8; what is missing is drawn. Raises DataError: a piece is damaged."""
        self.draw()
        return torch.cat([_read(path, min(PIECE, len(self.names) - start)) for start, path in self.files.items()])


def _read(path: Path, rows: int) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        images: Tensor = load_file(path)[KEY]
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it and it is drawn again") from error
    if images.dtype != torch.uint8 or images.shape != (rows, 3, 64, 64):
        raise DataError(f"{path} holds {tuple(images.shape)} {images.dtype}, not {rows} pictures; remove it and it is drawn again")
    return images
