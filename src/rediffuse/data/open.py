"""One door to every reader: a folder, a table, shards, a name."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import Any

from rediffuse.data.digits import digits
from rediffuse.data.folder import folder, holds_pictures, is_picture, photo_folders
from rediffuse.data.outputs import RUN
from rediffuse.data.table import shards, table
from rediffuse.data.types import ImageSet, Progress
from rediffuse.errors import DataError

_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})


def open_images(
    spec: Any, *, split: str | None = None, flips: bool = True, labelled: bool | None = True, progress: Progress | None = None
) -> ImageSet:
    """Open images from whatever names them.

    Args:
        spec: a folder of class folders or pictures, a .csv, .tsv or .parquet table, a folder of parquet shards, `digits`
            (scikit-learn's scans; a folder of that name is `./digits`), `hub:NAME` or `hub:NAME@REVISION`, an object of the `datasets`
            library, or an ImageSet, which comes back as it is.
        split: of shards, a hub name or the digits; or the subfolder of that name.
        flips: whether a horizontal flip keeps the label; digits never do.
        labelled: False reads the pictures alone (a run keeps its labels); None takes labels where there are any, but of folders only where
            no pictures lie beside them.
        progress: called with (done, in all) while pictures are decoded.
    Raises:
        DataError: nothing fits, with all that was tried; a folder holds splits with classes and none is chosen; or parquet tables too.
    """
    if isinstance(spec, ImageSet):
        return spec
    if not isinstance(spec, str | Path):
        return _object(spec, split, flips, labelled, progress)
    if spec == "digits":
        return digits(split=split or "train")
    if isinstance(spec, str) and spec.startswith("hub:"):
        from rediffuse.data.hub import hub

        return hub(spec.removeprefix("hub:"), split=split, flips=flips, labelled=labelled, progress=progress)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _directory(path, split, flips, labelled, progress)
    if path.is_file():
        if is_picture(path.name):
            raise DataError(f"{spec} is one picture; give the folder that it lies in")
        return table(path, split=split, flips=flips, labelled=labelled, progress=progress)
    raise DataError(_nothing_fits(str(spec), path))


def labelled_splits(path: Path) -> list[str]:
    """Names of the folders in a folder that are called like splits and hold class folders, sorted.

    A single one beside two classes or more that are none of its own is a class itself, such as trains: steam and diesel.
    """
    folders = photo_folders(path)
    found = [name for name in folders if name.lower() in _SPLIT_NAMES and photo_folders(path / name)]
    beside = {name for name in folders if name.lower() not in _SPLIT_NAMES and any(map(_is_photo, (path / name).iterdir()))}
    alone = len(found) == 1 and len(beside) > 1 and beside.isdisjoint(photo_folders(path / found[0]))
    return [] if alone else found


def _object(spec: Any, split: str | None, flips: bool, labelled: bool | None, progress: Progress | None) -> ImageSet:
    if type(spec).__module__.partition(".")[0] == "datasets":
        from rediffuse.data.hub import hub

        return hub(spec, split=split, flips=flips, labelled=labelled, progress=progress)
    raise DataError(f"images are opened from a path, a name, an ImageSet or a datasets.Dataset, got {type(spec).__name__}")


def _directory(path: Path, split: str | None, flips: bool, labelled: bool | None, progress: Progress | None) -> ImageSet:
    if _is_shards(path, split):
        return table(path, split=split, flips=flips, labelled=labelled, progress=progress)
    if split is not None:
        folders = sorted(child.name for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
        if split not in folders:
            raise DataError(
                f"no split {split!r} in {path}; its folders are {', '.join(folders[:10]) or '(none)'}; leave split out to read it whole"
            )
        return folder(path / split, flips=flips, labelled=labelled, progress=progress)
    splits = labelled_splits(path)
    if splits:
        raise DataError(
            f"{path} looks like splits ({', '.join(splits)}) with class folders in them; choose one with split={splits[0]!r} "
            f"(--split {shlex.quote(splits[0])}), and the one to be judged on with --test where a command has it; if these are classes, "
            "read it with rediffuse.data.folder"
        )
    return folder(path, flips=flips, labelled=labelled, progress=progress)


def _is_shards(path: Path, split: str | None) -> bool:
    """Whether a folder is one of parquet shards. Where photos lie beside them, a split decides that one of the two alone has."""
    found = {} if (path / RUN).exists() else shards(path)
    if not found:
        return False
    photos = [*photo_folders(path), *sorted(child.name for child in path.iterdir() if _is_photo(child))]
    in_tables, in_folders = split in found, split is not None and holds_pictures(path / split)
    if not photos or in_tables != in_folders:
        return in_tables or not photos
    files = [file.relative_to(path).as_posix() for part in found.values() for file in part]
    raise DataError(
        f"{path} holds parquet tables ({_few(files)}) and photos ({_few(photos)}), and either could be meant; "
        "move the tables to a folder of their own, or give the one that is meant itself"
    )


def _is_photo(path: Path) -> bool:
    return is_picture(path.name) and path.is_file() and not path.name.startswith(".")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _nothing_fits(spec: str, path: Path) -> str:
    parent = path.absolute().parent
    near = difflib.get_close_matches(path.name, [child.name for child in parent.iterdir()], n=1) if parent.is_dir() else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"no images at {spec!r}: no such folder or table in {parent}{hint}; give a folder of class folders, a .csv or .parquet table, "
        "a folder of parquet shards, digits, or hub:NAME"
    )
