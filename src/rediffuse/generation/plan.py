"""The full table of variants, before anything runs: which copy of which photo, how strong, with which noise, in which shard.

Every row is a function of the run's seed and its own source (id and pixels), so that another photo changes no other row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.data.geometry import FIT_MODES
from rediffuse.data.names import slug
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rediffuse.methods.editing import EditDraw, EditingMethod

FORMATS: Mapping[str, str] = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
LARGEST: Mapping[str, int] = {"webp": 16_383, "jpeg": 65_500}  # pixels along a side that these hold
SHARD_BATCHES = (4, 32)  # at least and at most
REAL = -1  # the copy number of a real image


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked for beside photos and method.

    Args:
        copies: images made of each photo.
        seed: of the whole run.
        side: side in pixels of the square that the model sees.
        fit: how photos become that square: pad (undone on output), crop or squash.
        size: of the images written: the source's, or the model's.
        format: png and webp keep every pixel; jpeg (quality 95) does not.
        keep_real: whether the real photos go into the folder too (copy -1).
        target_per_class: images each class shall have in the folder, real ones counted where they are kept; replaces copies.
    """

    copies: int = 10
    seed: int = 0
    side: int
    fit: Literal["pad", "crop", "squash"] = "pad"
    size: Literal["source", "model"] = "source"
    format: Literal["png", "webp", "jpeg"] = "png"
    keep_real: bool = False
    target_per_class: int | None = None

    def __post_init__(self) -> None:
        for name in ("copies", "target_per_class"):
            value = getattr(self, name)
            if name == "target_per_class" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} must be a whole number, got {value!r}")
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        for name, allowed in (("fit", FIT_MODES), ("size", ("source", "model")), ("format", tuple(FORMATS))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One image to come: a row of the plan. A kept real image has copy -1 and neither strength, seed nor prompt.

    Where `source_sha256` is empty there is no source, and `source_id` is a name for the row alone.
    """

    file_name: str
    source_id: str
    source_sha256: str
    label: int
    class_name: str
    copy: int
    strength: float | None
    seed: int | None
    prompt: str | None
    calls: int
    shard: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run before it runs.

    Attributes:
        settings: all that decides what is made, as JSON: `Settings`, the method's, denoiser and concepts by their hashes.
        denoiser: its name, with the revision of a hub name; what it is called decides nothing.
        variants: the rows, all of a source together, in the order of the photos.
        classes: true class names; labels are indices into them.
        batch: slots of a denoiser call.
        threads: of the processor, for each worker.
        dtype: of the model's trunk.
        rate: image steps a second, measured or given; None if nothing is left to do.
        gigabytes: that the images will take, about.
    """

    settings: Mapping[str, Any]
    variants: tuple[Variant, ...]
    classes: tuple[str, ...]
    denoiser: str
    batch: int
    threads: int
    dtype: str
    rate: float | None = None
    gigabytes: float = 0.0

    def __post_init__(self) -> None:
        if len({variant.file_name for variant in self.variants}) != len(self.variants):
            raise DataError(
                "two images of the plan would have one file name; rename the photos so that their names differ by more than blanks"
            )

    @property
    def hash(self) -> str:
        """Identifies what is made; how it is cut into batches and shards does not count."""
        rows = [[value for name, value in _row(variant).items() if name != "shard"] for variant in self.variants]
        return hashlib.sha256(json.dumps([self.settings, self.classes, rows], sort_keys=True).encode()).hexdigest()

    def shards(self) -> list[tuple[Variant, ...]]:
        """The rows of each shard."""
        found: list[list[Variant]] = [[] for _ in range(1 + max((variant.shard for variant in self.variants), default=-1))]
        for variant in self.variants:
            found[variant.shard].append(variant)
        return [tuple(rows) for rows in found]

    @property
    def steps(self) -> int:
        """Image steps: denoiser calls if each image went alone."""
        return sum(variant.calls for variant in self.variants)

    def rows(self) -> list[dict[str, Any]]:
        """The table as it is stored."""
        return [_row(variant) for variant in self.variants]


def _row(variant: Variant) -> dict[str, Any]:
    row = asdict(variant)
    return {"class" if name == "class_name" else name: value for name, value in row.items()}


def variant_from_row(row: Mapping[str, Any]) -> Variant:
    """Back from `Plan.rows`."""
    return Variant(**{f.name: row["class" if f.name == "class_name" else f.name] for f in fields(Variant)})


def derived(*parts: int | str) -> int:
    """A non-negative int64 that is a function of these parts alone."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "little") >> 1


def tabulate(photos: ImageSet, method: EditingMethod, settings: Settings) -> tuple[Variant, ...]:
    """The rows for these photos, not yet cut into shards.

    Raises:
        DataError: no photos, or photos without a label.
        ConfigError: a class that the method does not know.
    """
    _check_photos(photos, method, settings)
    labels = _method_labels(photos, method)
    folders = class_folders(photos.classes)
    draws = _draws(photos, method, labels, settings)
    prompts, calls = method.prompts(draws.label), [len(table) for table in method.tables(draws)]
    rows = iter(zip(draws.to_rows(), prompts, calls, strict=True))
    variants: list[Variant] = []
    for source, count in enumerate(copies_of_each(photos, settings)):
        source_id, label = photos.ids[source], photos.labels[source]
        if label is None:
            raise DataError(f"{source_id} has no label")
        name = photos.classes[label]
        stem, ending = f"{folders[label]}/{file_stem(source_id)}", FORMATS[settings.format]
        base = Variant(
            file_name=f"{stem}-real{ending}", source_id=source_id, source_sha256=photos.digests[source], label=label, class_name=name,
            copy=REAL, strength=None, seed=None, prompt=None, calls=0,
        )  # fmt: skip
        if settings.keep_real:
            variants.append(base)
        for copy in range(count):
            row, prompt, steps = next(rows)
            made = {"strength": row["strength"], "seed": row["seed"], "prompt": prompt, "calls": steps}
            variants.append(replace(base, file_name=f"{stem}-{copy:03d}{ending}", copy=copy, **made))
    return tuple(variants)


def file_stem(source_id: str) -> str:
    """A file name for a source's images on every system: its own name made plain, and 16 hex digits of its id's sha256."""
    words = slug(PurePosixPath(source_id).stem).rpartition("-")[0]
    return f"{words}-{hashlib.sha256(source_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def copies_of_each(photos: ImageSet, settings: Settings) -> list[int]:
    """How many images are made of each photo; with a target, the photos of a class share what it lacks evenly."""
    if settings.target_per_class is None:
        return [settings.copies] * len(photos)
    copies = [0] * len(photos)
    for label in range(len(photos.classes)):
        members = [row for row, found in enumerate(photos.labels) if found == label]
        members.sort(key=lambda row: derived(settings.seed, photos.ids[row], photos.digests[row], "extra"))
        missing = max(0, settings.target_per_class - (len(members) if settings.keep_real else 0))
        for place, row in enumerate(members):
            copies[row] = missing // len(members) + (place < missing % len(members))
    return copies


def cut(variants: Sequence[Variant], batch: int, steps: float) -> tuple[Variant, ...]:
    """Number the shards: at least 4 batches and about `steps` image steps each, at most 32 batches, a source never divided.

    What is left at the end and too small for a shard joins the last one.
    """
    least, most = (batches * batch for batches in SHARD_BATCHES)
    numbered: list[Variant] = []
    shard = images = work = 0
    for source in _by_source(variants):
        made = sum(variant.copy != REAL for variant in source)
        full = images >= least and (work >= steps or images + made > most)
        if full:
            shard, images, work = shard + 1, 0, 0
        images, work = images + made, work + sum(variant.calls for variant in source)
        numbered.extend(replace(variant, shard=shard) for variant in source)
    if shard and images < least:
        numbered = [replace(variant, shard=min(variant.shard, shard - 1)) for variant in numbered]
    return tuple(numbered)


def draw_of(variants: Iterable[Variant], method: EditingMethod) -> EditDraw:
    """The draw that made, or will make, these rows: what a replay applies."""
    from rediffuse.methods.editing import EditDraw

    places = {name: place for place, name in enumerate(method.classes)}
    return EditDraw.from_rows({"strength": v.strength, "seed": v.seed, "label": places.get(v.class_name, 0)} for v in variants)


def _draws(photos: ImageSet, method: EditingMethod, labels: Sequence[int], settings: Settings) -> EditDraw:
    """Of all copies of all photos, each photo's from a stream of its own, each copy's noise from a seed of its own."""
    import torch

    rows: list[dict[str, Any]] = []
    draws: EditDraw | None = None
    for source, count in enumerate(copies_of_each(photos, settings)):
        key = (settings.seed, photos.ids[source], photos.digests[source])
        generator = torch.Generator().manual_seed(derived(*key, "draw"))
        draws = method.draw(count, generator, labels=torch.full((count,), labels[source]))
        rows.extend({**row, "seed": derived(*key, copy)} for copy, row in enumerate(draws.to_rows()))
    if draws is None:
        raise DataError(f"{photos.name} holds no photos")
    return type(draws).from_rows(rows)


def _check_photos(photos: ImageSet, method: EditingMethod, settings: Settings) -> None:
    if not len(photos):
        raise DataError(f"{photos.name} holds no photos; give a folder with one folder of photos a class")
    if None in photos.labels:
        raise DataError(f"{photos.name} has photos without a label; sort them into one folder a class, or give a table of file and label")
    blank = "" in photos.digests
    if blank and method.takes_source:
        raise ConfigError(f"{method.name} changes photos, and {photos.name} holds blanks; use FromNoise")
    if not blank and not method.takes_source:
        raise ConfigError(f"{method.name} takes no photos; give it noise_sources(classes, count, side)")
    if blank and settings.keep_real:
        raise ConfigError("keep_real keeps the photos, and pictures from noise have none; leave it out")
    if settings.size == "source" and settings.fit != "crop" and (most := LARGEST.get(settings.format)):
        large = [(name, max(size)) for name, size in zip(photos.ids, photos.sizes, strict=True) if max(size) > most]
        if large:
            raise ConfigError(
                f"{settings.format} holds up to {most:,} pixels along a side and {large[0][0]} has {large[0][1]:,}; choose format png, or "
                "size model"
            )


def _method_labels(photos: ImageSet, method: EditingMethod) -> list[int]:
    places = {name: place for place, name in enumerate(method.classes)}
    used = {photos.classes[label] for label in photos.labels if label is not None}
    missing = sorted(used - places.keys())
    if missing and method.classes:
        raise ConfigError(
            f"{method.name} was made for {len(places)} classes, which do not include {', '.join(map(repr, missing[:5]))} of {photos.name}; "
            "make it for the classes of these photos"
        )
    return [places.get(photos.classes[label], 0) for label in photos.labels if label is not None]


def class_folders(classes: Sequence[str]) -> list[str]:
    """The folder of each class. Raises DataError where two would share one."""
    folders = [slug(name) for name in classes]
    twice = [name for name, found in zip(classes, folders, strict=True) if folders.count(found) > 1]
    if twice:
        raise DataError(f"classes {', '.join(map(repr, twice))} would share a folder; rename one")
    return folders


def _by_source(variants: Sequence[Variant]) -> list[list[Variant]]:
    groups: dict[str, list[Variant]] = {}
    for variant in variants:
        groups.setdefault(variant.source_id, []).append(variant)
    return list(groups.values())
