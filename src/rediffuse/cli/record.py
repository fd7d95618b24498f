"""How a classifier came to be, kept beside it: the same command again finds it done, another one is told what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.cli.common import Common
    from rediffuse.cli.robust import Budget, Views
    from rediffuse.data.mixing import Mixed
    from rediffuse.data.types import ImageSet
    from rediffuse.evaluation.accuracy import Accuracy

FILE_NAME = "training.json"
VERSION = 1
HASHED = {
    "photos": "the photos to learn from",
    "copies": "the generated images",
    "more_photos": "the photos of --second",
    "held_out": "the photos to be judged on",
    "start": "the weights of --classifier",
    "model": "the weights of --denoiser",
}
"""What is told of that whose name alone says too little, instead of an option's name."""


def asked(
    options: Mapping[str, Any],
    views: Views,
    budget: Budget,
    images: Mixed | ImageSet,
    second: ImageSet | None,
    held: ImageSet,
    common: Common,
) -> dict[str, Any]:
    """All that decides a training, as JSON: options by name, and hashes of photos and of weights that lie in folders."""
    from rediffuse.data.types import ImageSet
    from rediffuse.evaluation.kept import fingerprint

    real, made = (images, None) if isinstance(images, ImageSet) else (images.real, images.synthetic)
    found = {"photos": real, "copies": made, "more_photos": second, "held_out": held}
    sets = {name: None if images is None else fingerprint(images) for name, images in found.items()}
    sets |= {"start": folder_hash(options["classifier"]), "model": folder_hash(views.denoiser)}
    told = {**options, **asdict(views), **asdict(budget), "seed": common.seed, "dtype": common.dtype, **sets}
    told.pop("track")  # watches, and changes nothing
    values: dict[str, Any] = json.loads(json.dumps(told))
    return values


def folder_hash(spec: str | None) -> str | None:
    """Of the weights in a folder or file, which may be others under the same name; None for other names, which mean theirs."""
    from rediffuse.denoisers.load import weights_hash

    if spec is None or not (place := Path(spec)).exists():
        return None
    return weights_hash([place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file()))


def write_record(out: Path, told: Mapping[str, Any], accuracy: Accuracy) -> Path:
    """Keep it beside the classifier, with how often that is right; returns the file. transformers passes over it."""
    from rediffuse.writing import write_json

    path = out / FILE_NAME
    write_json(path, {"version": VERSION, "asked": dict(told), "accuracy": accuracy.to_json()})
    return path


def read_record(out: Path) -> dict[str, Any] | None:
    """What `write_record` kept; None of a folder without a finished training, or of a file that says something else."""
    if not (out / "config.json").is_file():
        return None
    try:
        found: Any = json.loads((out / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.get("version") == VERSION and isinstance(found.get("asked"), dict) and "accuracy" in found
    return found if whole else None


def check_same(found: Mapping[str, Any], told: Mapping[str, Any], out: Path) -> Accuracy:
    """How often the classifier that lies there is right, if this very training made it. Raises ConfigError with what differs."""
    from rediffuse.evaluation.accuracy import Accuracy

    for name in (*told, *sorted(set(found["asked"]) - set(told))):
        before, now = found["asked"].get(name), told.get(name)
        if before != now:
            what = f"{HASHED[name]} were others" if name in HASHED else f"--{name.replace('_', '-')} was {before!r}, now {now!r}"
            raise ConfigError(f"{out} holds a classifier of another training: {what}; give another folder, or empty this one")
    return Accuracy.from_json(found["accuracy"])
