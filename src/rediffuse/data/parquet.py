"""Parquet files of pictures: which column holds them, what `datasets` noted in the schema, and the cells themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rediffuse.data.decoding import BytesPayload, ParquetPayload
from rediffuse.data.types import Payload
from rediffuse.errors import DataError

ENCODED_BUDGET = 512 * 2**20
"""Shards of up to this many bytes are held encoded in memory; pictures of larger ones are read again from disk."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An embedded cell: its bytes as a payload, or the path that it holds instead. place: a stable name made from file and row."""

    place: str
    payload: Payload | None
    path: str | None


def embedded_column(file: Path, given: str | None) -> tuple[list[str], str | None]:
    """Column names, and the one that holds encoded pictures: struct(bytes, path) or plain binary; None where there is none."""
    import pyarrow as pa

    schema = _schema(file)
    fit = [field.name for field in schema if _is_embedded(field.type, pa)]
    if given is not None:
        return schema.names, given if given in fit else None
    if len(fit) > 1 and "image" not in fit:
        raise DataError(f"{file} has several columns of pictures ({', '.join(fit)}); keep one, or name it in Python: file_column=NAME")
    return schema.names, ("image" if "image" in fit else fit[0]) if fit else None


def read_plain(files: Sequence[Path], columns: Sequence[str], label: str | None) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Columns of all shards one after the other, and the class names of the label column where the schema has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells: dict[str, list[Any]] = {name: [] for name in columns}
    names = [class_names(_schema(file), label) for file in files]
    if any(other != names[0] for other in names):
        raise DataError(f"the shards beside {files[0]} have different class names; write them again from one set")
    for file in files:
        try:
            part = pq.read_table(file, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read as parquet: {error}") from error
        for name in columns:
            cells[name].extend(part.column(name).to_pylist())
    return cells, names[0]


def read_embedded(files: Sequence[Path], column: str) -> list[Picture]:
    """The pictures of all shards, encoded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keep = sum(file.stat().st_size for file in files) <= ENCODED_BUDGET
    pictures: list[Picture] = []
    for file in files:
        try:
            reader = pq.ParquetFile(file)
            row = 0
            for group in range(reader.num_row_groups):
                cells = reader.read_row_group(group, columns=[column]).column(0).to_pylist()
                for offset, cell in enumerate(cells):
                    pictures.append(_picture(cell, f"{file.stem}/{row:06d}", None if keep else (file, group, offset, column)))
                    row += 1
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read as parquet: {error}") from error
    return _named_by_path(pictures)


def class_names(schema: Any, label: str | None) -> list[str] | None:
    """Class names that `datasets` wrote into the schema for a column of class indices."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if noted is None or label is None:
        return None
    try:
        feature = json.loads(noted)["info"]["features"][label]
    except (ValueError, LookupError, TypeError):
        return None  # another tool's note; the cells then say what the classes are
    names = feature.get("names") if isinstance(feature, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _picture(cell: Any, place: str, where: tuple[Path, int, int, str] | None) -> Picture:
    data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    field = "bytes" if isinstance(cell, dict) else None
    payload: Payload | None = None
    if data is not None:
        payload = BytesPayload(data) if where is None else ParquetPayload(where[0], where[1], where[2], where[3], field)
    return Picture(place=place, payload=payload, path=path)


def _named_by_path(pictures: list[Picture]) -> list[Picture]:
    """Name pictures by the path beside their bytes where all have one and all differ: it survives a reshuffle, a row number does not."""
    paths = {picture.path for picture in pictures}
    if None in paths or "" in paths or len(paths) < len(pictures):
        return pictures
    return [Picture(place=str(picture.path), payload=picture.payload, path=picture.path) for picture in pictures]


def _is_embedded(kind: Any, pa: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: {error}") from error
