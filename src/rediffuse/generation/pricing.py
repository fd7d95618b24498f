"""What a plan will cost, before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rediffuse.data.types import ImageSet
from rediffuse.generation.plan import REAL, Plan, Settings, Variant
from rediffuse.progress import counted, roughly
from rediffuse.sampling.packing import pack

# Share of the raw pixels that a file of a photo takes, about.
_SHRINKS_TO = {"png": 0.65, "webp": 0.5, "jpeg": 0.25}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Totals of the shards that are still to be made.

    Attributes:
        images: to be made; done: there already; photos: sources in all, 0 where pictures come from noise.
        calls: of the denoiser; slots: that these calls run; steps: useful ones among the slots.
        seconds: at the plan's rate, None if that is unknown.
        gigabytes: of files; free: on the disk, None if unknown.
    """

    images: int
    photos: int
    shards: int
    calls: int
    slots: int
    steps: int
    seconds: float | None
    gigabytes: float
    free: float | None
    done: int

    @property
    def slot_use(self) -> float:
        """Useful slots as a share of all."""
        return self.steps / self.slots if self.slots else 1.0

    def summary(self) -> str:
        """The lines that are printed before a run."""
        time = "unknown time" if self.seconds is None else f"about {roughly(self.seconds)}"
        there = f"; {self.done} are there" if self.done else ""
        room = "" if self.free is None else f", {_size(self.free)} free"
        lines = [
            f"{counted(self.images, 'image')} from {counted(self.photos, 'photo') if self.photos else 'noise'}{there}",
            f"{counted(self.calls, 'model call')} in {counted(self.shards, 'shard')}, slot use {self.slot_use:.2f}, "
            f"{self.steps} image steps",
            f"{time} and {_size(self.gigabytes)}{room}",
        ]
        if self.free is not None and self.gigabytes > self.free:
            lines.append("the disk will probably not hold it: make room, or choose the format jpeg or the size model")
        return "\n".join(lines)


def price(plan: Plan, out: Path, finished: Sequence[int] = ()) -> Cost:
    """The cost of the shards of a plan that are not finished."""
    shards = [rows for number, rows in enumerate(plan.shards()) if number not in set(finished)]
    packings = [pack([variant.calls for variant in rows if variant.copy != REAL], plan.batch) for rows in shards]
    slots = sum(int(packing.sizes.sum()) for packing in packings)
    images = sum(len(rows) for rows in shards)
    return Cost(
        images=images,
        photos=len({variant.source_id for variant in plan.variants if variant.source_sha256}),
        shards=len(shards),
        calls=sum(len(packing) for packing in packings),
        slots=slots,
        steps=sum(len(packing.table) for packing in packings),
        seconds=None if plan.rate is None else slots / plan.rate,
        gigabytes=plan.gigabytes * images / max(1, len(plan.variants)),
        free=_free(out),
        done=len(plan.variants) - images,
    )


def gigabytes(photos: ImageSet, variants: Sequence[Variant], settings: Settings) -> float:
    """That the files of these rows take, about."""
    sizes = dict(zip(photos.ids, photos.sizes, strict=True))
    pixels = sum(_pixels(*sizes[variant.source_id], settings) for variant in variants)
    return pixels * 3 * _SHRINKS_TO[settings.format] / 1e9


def _pixels(width: int, height: int, settings: Settings) -> int:
    if settings.fit == "crop" or (settings.fit == "squash" and settings.size == "model"):
        return settings.side**2
    if settings.size == "source":
        return width * height
    return round(settings.side**2 * min(width, height) / max(width, height))


def _free(out: Path) -> float | None:
    place = out.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free / 1e9
    except OSError:
        return None


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:.1f} MB"
