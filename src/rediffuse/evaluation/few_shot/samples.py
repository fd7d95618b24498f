"""Pictures for a contact sheet: a photo of each class and its copies, by arm and strength."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.splits import few_shot
from rediffuse.data.types import ImageSet
from rediffuse.writing import write_rows

if TYPE_CHECKING:
    from PIL import Image

    from rediffuse.evaluation.few_shot.arms import Copies

MOST_CLASSES = 10
SIDE = 128
"""Largest side in pixels of a picture on the sheet."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture of the sheet. arm and strength are None for the photo itself; seed and shots say where its copies come from."""

    class_name: str
    source: str
    arm: str | None
    strength: float | None
    seed: int
    shots: int
    png: bytes


def collect_samples(pool: ImageSet, copies: Copies, arms: Sequence[str], shots: int, seed: int) -> list[Sample]:
    """The first photo of each class (up to `MOST_CLASSES`, spread over them) and, for each arm, its first copy of each strength."""
    photos = few_shot(pool, shots, seed)
    first: dict[int | None, int] = {}
    for row, label in enumerate(photos.labels):
        first.setdefault(label, row)
    rows = list(first.values())
    step = max(1, len(rows) / MOST_CLASSES)
    chosen = photos.subset([rows[int(place * step)] for place in range(min(len(rows), MOST_CLASSES))])
    found = []
    for example in chosen:
        name = chosen.classes[example.label or 0]
        found.append(Sample(class_name=name, source=example.id, arm=None, strength=None, seed=seed, shots=shots, png=_png(example.image)))
    for arm in arms:
        if copies.complete(arm, shots, seed):
            found += _of_arm(chosen, copies, arm, shots, seed)
    return found


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """As parquet; nothing is written where there are none."""
    if samples:
        write_rows(path, [asdict(sample) for sample in samples])


def read_samples(path: Path) -> list[Sample]:
    """What `write_samples` wrote; none where there is no file."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    return [Sample(**row) for row in rows]


def _of_arm(chosen: ImageSet, copies: Copies, arm: str, shots: int, seed: int) -> list[Sample]:
    from rediffuse.generation.store import Run

    run = Run(copies.folder(arm, shots, seed))
    strengths = dict(zip(run.manifest["file_name"].to_pylist(), map(_short, run.manifest["strength"].to_pylist()), strict=True))
    classes = dict(zip(chosen.ids, chosen.labels, strict=True))
    found: dict[tuple[str, float], Sample] = {}
    for row, (name, source) in enumerate(zip(run.ids, run.sources, strict=True)):
        if source in classes and (source, strengths[name]) not in found:
            label = chosen.classes[classes[source] or 0]
            found[source, strengths[name]] = Sample(
                class_name=label, source=source, arm=arm, strength=strengths[name], seed=seed, shots=shots, png=_png(run[row].image)
            )
    return [found[key] for key in sorted(found)]


def _short(strength: float | None) -> float:
    return round(strength or 0.0, 6)


def _png(image: Image.Image) -> bytes:
    from PIL import Image

    if max(image.size) > SIDE:
        image = image.copy()
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
