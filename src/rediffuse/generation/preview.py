"""A few images of a plan and a contact sheet, to look at before hours are spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from rediffuse.data.outputs import PREVIEW
from rediffuse.data.types import ImageSet
from rediffuse.generation.plan import REAL, Plan, Variant
from rediffuse.writing import write_json

if TYPE_CHECKING:
    from PIL import Image

    from rediffuse.generation.local import Engine

_CELL, _TEXT = 192, 18


def make_preview(engine: Engine, plan: Plan, photos: ImageSet, out: Path, count: int) -> Path:
    """Make `count` images of the plan beside the run's folder, within rounding what the run will make; returns the contact sheet."""
    sheet = sheet_of(out)
    folder = sheet.parent
    chosen = choose(plan.variants, count)
    names = {variant.file_name: f"{PurePosixPath(variant.file_name).stem}.png" for variant in chosen}
    _clear(folder)
    told = {"run": out.name, "plan": plan.hash, "images": len(chosen), "pictures": sorted(names.values())}
    write_json(folder / PREVIEW, told)  # first: by it readers know the folder
    rows = {name: place for place, name in enumerate(photos.ids)}
    pairs: list[tuple[Image.Image, Image.Image, str]] = []
    room = engine.room(min(plan.batch, len(chosen) or 1), lambda slots: engine.note(f"out of memory: again with batches of {slots}"))
    for variant, image in room.fit(lambda slots: [(row, render()) for row, render in engine.make(chosen, slots, lambda _: None)]):
        image.save(folder / names[variant.file_name])
        pairs.append((photos[rows[variant.source_id]].image, image, f"{variant.class_name[:18]}, strength {variant.strength:g}"))
    contact_sheet(pairs).save(sheet)
    return sheet


def sheet_of(out: Path) -> Path:
    """The contact sheet of a run's preview, beside the run's folder."""
    return out.absolute().with_name(out.absolute().name + "-preview") / "contact_sheet.png"


def _clear(folder: Path) -> None:
    """Remove the pictures of an earlier preview, and nothing else that lies there."""
    try:
        told = json.loads((folder / PREVIEW).read_text(encoding="utf-8"))
        earlier = [name for name in told.get("pictures", ()) if PurePath(name).name == name and name.endswith(".png")]
    except (OSError, ValueError, TypeError, AttributeError):  # none, or not one of ours
        return
    for name in earlier:
        (folder / name).unlink(missing_ok=True)


def choose(variants: Sequence[Variant], count: int) -> list[Variant]:
    """`count` rows, spread evenly over the plan, each time of the strength that was taken least so far."""
    sources: dict[str, list[Variant]] = {}
    for variant in variants:
        if variant.copy != REAL:
            sources.setdefault(variant.source_id, []).append(variant)
    groups, taken = list(sources.values()), dict.fromkeys((v.strength for v in variants if v.copy != REAL), 0)
    chosen: list[Variant] = []
    for place in range(min(count, sum(map(len, groups)))):
        group = groups[place * len(groups) // count]
        left = [variant for variant in group if variant not in chosen] or [v for v in variants if v.copy != REAL and v not in chosen]
        chosen.append(min(left, key=lambda variant: (taken[variant.strength], variant.copy)))
        taken[chosen[-1].strength] += 1
    return chosen


def contact_sheet(pairs: Sequence[tuple[Image.Image, Image.Image, str]]) -> Image.Image:
    """Photo above copy, a line of text below; as square as it can be."""
    from PIL import Image, ImageDraw

    columns = max(1, min(len(pairs), 8))
    lines = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * _CELL, max(1, lines) * (2 * _CELL + _TEXT)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (photo, copy, text) in enumerate(pairs):
        left, top = place % columns * _CELL, place // columns * (2 * _CELL + _TEXT)
        for row, image in enumerate((photo, copy)):
            scale = min(_CELL / image.width, _CELL / image.height)
            fitted = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
            sheet.paste(fitted, (left + (_CELL - fitted.width) // 2, top + row * _CELL + (_CELL - fitted.height) // 2))
        pen.text((left + 4, top + 2 * _CELL + 2), text, fill="black")
    return sheet
