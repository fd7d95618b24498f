"""Tables of pictures: csv or parquet that names files, and parquet with the pictures inside, as `datasets` writes it."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rediffuse.data.decoding import BytesPayload, Entry, FilePayload, decode, without_repeats
from rediffuse.data.folder import holds_pictures, leaves
from rediffuse.data.labels import LABEL_COLUMNS, Labels, read_labels
from rediffuse.data.outputs import enter
from rediffuse.data.parquet import embedded_column, read_embedded, read_plain
from rediffuse.data.runs import METADATA
from rediffuse.data.types import ImageSet, Payload, Progress, Rejected
from rediffuse.errors import DataError

FILE_COLUMNS = ("file", "file_name", "filename", "path", "image", "image_path")
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?\.parquet")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a table says, before any picture is opened. labels: as `read_labels` takes them.

    cells: a relative path, or the payload of an embedded picture; None where there is none.
    """

    ids: Sequence[str]
    cells: Sequence[str | Payload | None]
    labels: Sequence[Any] | None
    names: Sequence[str] | None = None


def table(
    path: str | Path,
    *,
    split: str | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    labelled: bool | None = True,
    allow_outside: bool = False,
    flips: bool = True,
    progress: Progress | None = None,
) -> ImageSet:
    """Read a csv or parquet of file and label, or parquet shards with the pictures inside.

    Choose it where labels lie in a table instead of in folder names. Columns are found by name (`file`, `file_name`, `filename`,
    `path`, `image`; `class`, `label`, ...) unless given. Label names come from the schema where `datasets` wrote them, else from the
    cells: numbers in their order, words sorted.

    Args:
        path: a .csv, .tsv or .parquet file, or a folder of shards: `SPLIT-00000-of-00001.parquet`, or `SPLIT/0000.parquet`.
        split: which shards of a folder; may be left out where there is one.
        file_column: the column of paths (relative to the table's folder) or of embedded pictures.
        label_column: the column of labels.
        labelled: False reads the pictures alone; None takes labels where there are any.
        allow_outside: also read files outside the table's folder; otherwise such rows are rejected.
        flips: whether a horizontal flip keeps the label.
        progress: called with (done, in all) while pictures are decoded.
    Raises:
        DataError: no such table, split or column, or no row that can be read.
    """
    place = Path(path).expanduser()
    files = _files(place, split)
    if files[0].suffix.lower() == ".parquet":
        columns = _parquet(files, file_column, label_column, labelled)
    else:
        columns = _csv(files[0], file_column, label_column, labelled)
    base = files[0].parent
    count = len(columns.ids)
    labels = Labels(indices=[None] * count) if columns.labels is None else read_labels(columns.labels, columns.names)
    entries, rejected = [], []
    for row, (name, cell) in enumerate(zip(columns.ids, columns.cells, strict=True)):
        reason = "no picture in this row" if cell is None else _refusal(cell, base, allow_outside)
        reason = labels.missing.get(row) if reason is None and labelled else reason
        if reason is None:
            payload = FilePayload(base / cell) if isinstance(cell, str) else cell
            entries.append(Entry(id=name, payload=payload, label=labels.indices[row]))  # type: ignore[arg-type]
        else:
            rejected.append(Rejected(id=name, reason=reason))
    entries, repeated = without_repeats(entries, str(path))
    title = str(path) if split is None else f"{path} ({split})"
    return decode(entries, classes=labels.classes, name=title, flips=flips, rejected=[*rejected, *repeated], progress=progress)


def shards(path: Path) -> dict[str, list[Path]]:
    """The parquet files of a folder (or of its `data` folder) by split name, in shard order; empty where there are none.

    Files that are only numbered, as the hub converts sets, are the shards of one split that is called like their folder; a folder of
    such folders holds several splits.
    """
    for base in (path, path / "data"):
        splits = _shards_in(base) or _numbered_below(base)
        if splits:
            return splits
    return {}


def _shards_in(base: Path) -> dict[str, list[Path]]:
    name = os.path.basename(os.path.abspath(base))  # of `.` too
    numbered = _numbered(base)
    splits = {name: numbered} if numbered else {}
    for file in sorted(base.glob("*.parquet")):
        if file.name != METADATA and file not in numbered:
            match = _SHARD.fullmatch(file.name)
            splits.setdefault(match["split"] if match else file.stem, []).append(file)
    return splits


def _numbered_below(base: Path) -> dict[str, list[Path]]:
    """Splits that are folders of numbered shards; hidden folders and our own outputs are none."""
    _, folders, _ = next(os.walk(base), (base, [], []))
    enter(base, folders)
    if any(holds_pictures(base / name) for name in folders):
        return {}  # tables in folders of photos are something else, such as features
    return {name: found for name in folders if (found := _numbered(base / name))}


def _numbered(base: Path) -> list[Path]:
    """Files that count from 0 without a gap, as the hub writes them; tables called by years, say, are none."""
    found = sorted((file for file in base.glob("*.parquet") if file.stem.isdecimal()), key=lambda file: (int(file.stem), file.name))
    return found if [int(file.stem) for file in found] == list(range(len(found))) else []


def _files(path: Path, split: str | None) -> list[Path]:
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
            raise DataError(f"{path} is no table that is read; give a .csv, .tsv or .parquet file, or a folder of parquet shards")
        if split is not None:
            raise DataError(f"split={split!r} chooses among the shards of a folder, but {path} is one file; leave split out (--split)")
        return [path]
    if not path.is_dir():
        raise DataError(f"table {str(path)!r} does not exist (looked in {path.absolute().parent})")
    found = shards(path)
    if not found:
        raise DataError(f"no .parquet file in folder {str(path)!r}; give the csv file itself, or the folder that holds the shards")
    if split is None and len(found) > 1:
        raise DataError(f"{path} holds the splits {', '.join(found)}; choose one with split=NAME (--split NAME)")
    split = next(iter(found)) if split is None else split
    if split not in found:
        raise DataError(f"no split {split!r} in {path}; it holds {', '.join(found)}")
    totals = {int(match["total"]) for file in found[split] if (match := _SHARD.fullmatch(file.name))}
    if totals and totals != {len(found[split])}:
        raise DataError(f"{path} holds {len(found[split])} of {max(totals)} shards of {split!r}; fetch the others")
    return found[split]


def _csv(path: Path, file_column: str | None, label_column: str | None, labelled: bool | None) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            first = handle.readline()
            handle.seek(0)
            delimiter = max("\t" if path.suffix.lower() == ".tsv" else ",", ";", "\t", key=first.count)
            rows = [row for row in csv.reader(handle, delimiter=delimiter, skipinitialspace=True, strict=True) if row]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8 csv") from error
    except (csv.Error, OSError) as error:
        raise DataError(f"{path} cannot be read as csv: {error}") from error
    if len(rows) < 2:
        raise DataError(f"{path} has no rows; its first line names the columns, such as file,label")
    header = rows[0]
    ragged = next((number for number, row in enumerate(rows, start=1) if len(row) != len(header)), None)
    if ragged is not None:
        raise DataError(
            f"row {ragged} of {path} has {len(rows[ragged - 1])} cells, the header {len(header)}; quote cells that hold a {delimiter!r}"
        )
    file_at = header.index(_choose(header, file_column, FILE_COLUMNS, path, "file_column"))
    label_name = _label_column(header, label_column, labelled, path)
    paths = [row[file_at] for row in rows[1:]]
    labels = None if label_name is None else [row[header.index(label_name)] or None for row in rows[1:]]
    return Columns(ids=_path_ids(paths, path.parent), cells=[cell or None for cell in paths], labels=labels)


def _parquet(files: Sequence[Path], file_column: str | None, label_column: str | None, labelled: bool | None) -> Columns:
    header, embedded = embedded_column(files[0], file_column)
    label_name = _label_column([name for name in header if name != embedded], label_column, labelled, files[0])
    wanted = [name for name in (label_name, "id") if name is not None and name in header]
    if embedded is None:
        file_name = _choose(header, file_column, FILE_COLUMNS, files[0], "file_column")
        plain, names = read_plain(files, [file_name, *wanted], label_name)
        paths = ["" if cell is None else str(cell) for cell in plain[file_name]]
        cells: list[str | Payload | None] = [cell or None for cell in paths]
        return Columns(
            ids=_path_ids(paths, files[0].parent), cells=cells, labels=None if label_name is None else plain[label_name], names=names
        )
    plain, names = read_plain(files, wanted, label_name)
    pictures = read_embedded(files, embedded)
    ids = ["" if cell is None else str(cell) for cell in plain.get("id", ())]
    if not ids or "" in ids or len(set(ids)) < len(ids):  # the number of a patient, say, names no picture
        ids = [picture.place for picture in pictures]
    cells = [picture.payload or picture.path or None for picture in pictures]
    return Columns(ids=ids, cells=cells, labels=None if label_name is None else plain[label_name], names=names)


def _path_ids(paths: Sequence[str], base: Path) -> list[str]:
    ids = []
    for row, cell in enumerate(paths, start=1):
        path = Path(cell)
        inside = path.is_absolute() and path.is_relative_to(base.absolute())
        ids.append((path.relative_to(base.absolute()) if inside else path).as_posix() if cell else f"row {row}")
    return ids


def _refusal(cell: str | Payload, base: Path, allow_outside: bool) -> str | None:
    if not isinstance(cell, str):
        return "empty file (0 bytes)" if isinstance(cell, BytesPayload) and not cell.data else None
    try:
        if not allow_outside and leaves(base / cell, base):
            return "leaves the folder of the table; move the file there and name it anew"
        return None if (base / cell).is_file() else "no such file beside the table"
    except (OSError, ValueError) as error:
        return f"not a path: {error}"


def _label_column(header: Sequence[str], given: str | None, labelled: bool | None, path: Path) -> str | None:
    if labelled is False or (labelled is None and given is None and not set(header) & set(LABEL_COLUMNS)):
        return None
    if given is None and len(header) > 0 and not set(header) & set(LABEL_COLUMNS):
        fix = "call it label, or name one in Python: label_column=NAME; labelled=False reads the pictures alone"
        raise DataError(f"no label column in {path}; it has {', '.join(header)}; {fix}")
    return _choose(header, given, LABEL_COLUMNS, path, "label_column")


def _choose(header: Sequence[str], given: str | None, usual: Sequence[str], path: Path, option: str) -> str:
    if given is not None:
        if given not in header:
            raise DataError(f"no column {given!r} in {path}; it has {', '.join(header)}")
        return given
    for name in usual:
        if name in header:
            return name
    raise DataError(f"none of the columns {', '.join(header)} of {path} is called {', '.join(usual)}; name it with {option}=NAME")
