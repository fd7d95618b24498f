"""Any set as folders of picture files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from rediffuse.data.names import folder_names, is_safe_name, slug
from rediffuse.data.outputs import EXPORTED
from rediffuse.data.types import ImageSet, Progress
from rediffuse.errors import ConfigError, DataError
from rediffuse.writing import write_json


def export_folders(
    images: ImageSet, out: str | Path, *, format: Literal["png", "jpeg"] = "png", progress: Progress | None = None
) -> Path:  # fmt: skip
    """Write a set as class folders (an unlabelled one as a plain folder) that any reader of folders takes.

    A hidden file marks a folder that holds generated images, so that nobody is judged by them unawares.

    Folders have the class's own name where every file system allows it, else its slug; files the name of the id's last part where
    that is unique.

    Args:
        images: what to write.
        out: a folder that does not exist yet or is empty.
        format: png keeps the pixels; jpeg (quality 95) is smaller.
        progress: called with (done, in all).
    Returns:
        The folder.
    Raises:
        DataError: the folder holds something, or cannot be written.
    """
    if format not in ("png", "jpeg"):
        raise ConfigError(f"format must be png or jpeg, got {format!r}")
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists and is not an empty folder; give another folder, or empty it")
    names = dict(enumerate(folder_names(images.classes)))
    places = [target if label is None else target / names[label] for label in images.labels]
    stems = [PurePosixPath(name).stem for name in images.ids]
    taken = Counter((place, stem.casefold()) for place, stem in zip(places, stems, strict=True))
    suffix = ".png" if format == "png" else ".jpg"
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(copy >= 0 for copy in images.copies):
            write_json(target / EXPORTED, {"generated": True})
        for row, (place, stem) in enumerate(zip(places, stems, strict=True)):
            plain = is_safe_name(stem) and taken[place, stem.casefold()] == 1
            place.mkdir(exist_ok=True)
            # PNG takes no notice of the two settings.
            images[row].image.save(place / ((stem if plain else slug(images.ids[row])) + suffix), quality=95, subsampling=0)
            if progress is not None:
                progress(row + 1, len(images))
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}; what lies there is not complete") from error
    return target
