"""Sets of the `datasets` library: objects in memory and names on the hub. Needs the extra `rediffuse[data]`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.decoding import Entry, decode
from rediffuse.data.folder import leaves
from rediffuse.data.images import decode_image
from rediffuse.data.labels import LABEL_COLUMNS, Labels, read_labels
from rediffuse.data.types import ImageSet, Progress, Rejected
from rediffuse.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class CellPayload:
    """An encoded picture in a row of a `datasets.Dataset`, which maps its files into memory.

    roots: folders that a file named in place of a picture must lie in; None allows any.
    """

    rows: Any
    row: int
    column: str
    roots: tuple[Path, ...] | None

    def read(self) -> Image.Image:
        cell = self.rows[self.row][self.column]
        if cell is None or (cell.get("bytes") is None and not cell.get("path")):
            raise DataError("no picture in this row")
        if cell.get("bytes") is not None:
            return decode_image(cell["bytes"])
        if self.roots is not None and not _within(cell["path"], self.roots):
            raise DataError("names a file outside of the set's folder; move it there, or give a folder or a table of the files")
        return decode_image(cell["path"])


def hub(
    source: Any,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labelled: bool | None = True,
    root: str | Path | None = None,
    allow_outside: bool = False,
    flips: bool = True,
    progress: Progress | None = None,
) -> ImageSet:
    """Read a `datasets.Dataset`, or a set by its name on the hub.

    Choose it for what `datasets.load_dataset` opens. Ids are the pictures' file names where all differ, else row numbers.

    A row may name a file in place of a picture, and any file of this machine. Such rows are read where `datasets` itself has listed a
    folder of pictures (into its usual cache), and where the file lies in `root` or beside the set's own files; others are rejected.

    Args:
        source: a Dataset, a DatasetDict, or `NAME` or `NAME@REVISION` on the hub.
        split: which split of a DatasetDict or name.
        image_column: the column of pictures; found by its type unless given.
        label_column: the column of labels (class indices with names, or words).
        labelled: False reads the pictures alone; None takes labels where there are any.
        root: folder of the files that rows name.
        allow_outside: read such files wherever they lie.
        flips: whether a horizontal flip keeps the label.
        progress: called with (done, in all) while pictures are decoded.
    Raises:
        DataError: `datasets` is not installed, no such name, split or column.
    """
    library = _library()
    title = source if isinstance(source, str) else f"{type(source).__name__} of {split or getattr(source, 'split', None) or 'datasets'}"
    loaded = _load(library, source) if isinstance(source, str) else source
    rows = _split(library, loaded, split, title)
    column = _image_column(library, rows, image_column)
    encoded = rows.cast_column(column, library.Image(decode=False)).with_format(None)
    wanted = any(name in rows.features for name in (label_column, *LABEL_COLUMNS)) if labelled is None else labelled
    labels = _labels(library, rows, label_column, column) if wanted else Labels(indices=[None] * len(rows))
    plain = encoded.select_columns([column])
    roots = None if allow_outside else _roots(library, rows, root)
    entries, rejected = [], []
    for row, (name, label) in enumerate(zip(_ids(plain, column), labels.indices, strict=True)):
        if labelled and row in labels.missing:
            rejected.append(Rejected(id=name, reason=labels.missing[row]))
        else:
            entries.append(Entry(id=name, payload=CellPayload(plain, row, column, roots), label=label))
    return decode(entries, classes=labels.classes, name=title, flips=flips, rejected=rejected, progress=progress)


def _roots(library: Any, rows: Any, root: str | Path | None) -> tuple[Path, ...] | None:
    """Folders that files named in rows may lie in; None for a folder of pictures, whose files the library has listed by itself."""
    files = [Path(file["filename"]) for file in rows.cache_files]
    if root is None and rows.info.builder_name == "imagefolder" and files:
        # Anyone can write that name into a set saved elsewhere; only the library writes into its cache.
        cache = Path(library.config.HF_DATASETS_CACHE)
        if not any(leaves(file, cache) for file in files):
            return None
    return (*(file.parent for file in files), *([] if root is None else [Path(root).expanduser()]))


def _within(path: str, roots: Sequence[Path]) -> bool:
    try:
        return any(not leaves(Path(path), root) for root in roots)
    except (OSError, ValueError) as error:
        raise DataError(f"not a path: {error}") from error


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            "sets of the hub need the library `datasets`; install it with: pip install '.[data]' (or pip install datasets)"
        ) from error


def _load(library: Any, source: str) -> Any:
    name, _, revision = source.partition("@")
    try:
        return library.load_dataset(name, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:  # not found, gated, no network, or a repository that needs code to run
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"the set {source!r} cannot be loaded from the hub: {reason}; check the name and the network, or give a folder"
        ) from error


def _split(library: Any, loaded: Any, split: str | None, title: str) -> Any:
    if isinstance(loaded, library.DatasetDict):
        if split is None and len(loaded) > 1:
            raise DataError(f"{title} holds the splits {', '.join(loaded)}; choose one with split=NAME (--split NAME)")
        split = next(iter(loaded)) if split is None else split
        if split not in loaded:
            raise DataError(f"no split {split!r} in {title}; it holds {', '.join(loaded)}")
        loaded = loaded[split]
    if not isinstance(loaded, library.Dataset):
        raise DataError(f"{title} is a {type(loaded).__name__}, which has no fixed rows; give a datasets.Dataset (without streaming=True)")
    if len(loaded) == 0:
        raise DataError(f"{title} has no rows")
    return loaded


def _image_column(library: Any, rows: Any, given: str | None) -> str:
    fit = [name for name, feature in rows.features.items() if isinstance(feature, library.Image)]
    if given is not None and given in fit:
        return given
    if given is not None or not fit:
        fix = "cast one with cast_column(NAME, datasets.Image())"
        raise DataError(f"no column {given or ''!r} of pictures; columns are {', '.join(rows.features)}; {fix}")
    if len(fit) > 1 and "image" not in fit:
        raise DataError(f"several columns of pictures ({', '.join(fit)}); keep one, or name it in Python: image_column=NAME")
    return "image" if "image" in fit else fit[0]


def _labels(library: Any, rows: Any, given: str | None, image: str) -> Labels:
    column = given if given is not None else next((name for name in LABEL_COLUMNS if name in rows.features), None)
    if column is None or column not in rows.features:
        others = ", ".join(name for name in rows.features if name != image)
        fix = "call it label, or name one in Python: label_column=NAME; labelled=False reads the pictures alone"
        raise DataError(f"no label column {given or ''!r}; columns are {others}; {fix}")
    feature = rows.features[column]
    names = feature.names if isinstance(feature, library.ClassLabel) else None
    return read_labels(rows.with_format(None)[column][:], names)


def _ids(plain: Any, column: str) -> list[str]:
    paths = [(cell or {}).get("path") for cell in plain[column]]
    names = [None if not path else str(path).replace("\\", "/").rsplit("/", 1)[-1] for path in paths]
    if None in names or len(set(names)) < len(names):
        return [f"row/{row:06d}" for row in range(len(names))]
    return [str(name) for name in names]
