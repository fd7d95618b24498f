"""Any set as folders of picture files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from rediffuse.data.names import folder_names, is_safe_name, slug
from rediffuse.data.outputs import EXPORTED, UNFINISHED_EXPORT
from rediffuse.data.types import ImageSet, Progress
from rediffuse.errors import ConfigError, DataError
from rediffuse.writing import holds_nothing, write_json


def export_folders(
    images: ImageSet, out: str | Path, *, format: Literal["png", "jpeg"] = "png", progress: Progress | None = None
) -> Path:  # fmt: skip
    """Write a set as class folders (an unlabelled one as a plain folder) that any reader of folders takes.

    A hidden file marks a folder that holds generated images, so that nobody is judged by them unawares.

    Folders have the class's own name where every file system allows it, else its slug; files the name of the id's last part where
    that is unique.

    Args:
        images: what to write.
        out: a folder that does not exist yet or is empty, or in which the same call was interrupted: it starts again there.
        format: png keeps the pixels; jpeg (quality 95) is smaller.
        progress: called with (done, in all).
    Returns:
        The folder.
    Raises:
        DataError: the folder holds something, or cannot be written.
    """
    if format not in ("png", "jpeg"):
        raise ConfigError(f"format must be png or jpeg, got {format!r}")
    target, own = Path(out), {"exports": _identity(images, format)}
    begun = target / UNFINISHED_EXPORT
    _check_vacant(target, own)
    names = dict(enumerate(folder_names(images.classes)))
    places = [target if label is None else target / names[label] for label in images.labels]
    stems = [PurePosixPath(name).stem for name in images.ids]
    taken = Counter((place, stem.casefold()) for place, stem in zip(places, stems, strict=True))
    suffix = ".png" if format == "png" else ".jpg"
    try:
        target.mkdir(parents=True, exist_ok=True)
        write_json(begun, own)
        if any(copy >= 0 for copy in images.copies):
            write_json(target / EXPORTED, {"generated": True})
        for row, (place, stem) in enumerate(zip(places, stems, strict=True)):
            plain = is_safe_name(stem) and taken[place, stem.casefold()] == 1
            place.mkdir(exist_ok=True)
            # PNG takes no notice of the two settings.
            images[row].image.save(place / ((stem if plain else slug(images.ids[row])) + suffix), quality=95, subsampling=0)
            if progress is not None:
                progress(row + 1, len(images))
        begun.unlink()
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}; what lies there is not complete") from error
    return target


def _check_vacant(target: Path, own: Mapping[str, str]) -> None:
    """Refuse a folder that holds something else than what an interrupted export of the same pictures left. Raises DataError."""
    if not target.exists() or (target.is_dir() and holds_nothing(target)):
        return
    begun = target / UNFINISHED_EXPORT
    if not begun.is_file():
        raise DataError(f"{target} exists and is not an empty folder; give another folder, or empty it")
    try:
        same = json.loads(begun.read_text(encoding="utf-8")) == own
    except (ValueError, OSError):
        same = False
    if not same:
        raise DataError(f"{target} holds an interrupted export of other pictures, or in another format; give another folder, or empty it")


def _identity(images: ImageSet, format: str) -> str:
    """A hash of all that decides which files are written."""
    classes = [None if label is None else images.classes[label] for label in images.labels]
    rows = json.dumps([format, images.classes, list(zip(images.ids, images.digests, classes, strict=True))])
    return hashlib.sha256(rows.encode()).hexdigest()
