"""From files, bytes and table cells to an ImageSet: every picture is decoded once, in a pool; bad ones become reasons."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.images import decode_image, hash_pixels
from rediffuse.data.types import ImageSet, Payload, PixelPayload, Progress, Record, Rejected
from rediffuse.errors import DataError
from rediffuse.machine import coding_threads

if TYPE_CHECKING:
    from PIL import Image

MEMORY_BUDGET = 512 * 2**20
"""Bytes of decoded pixels that a set keeps; what is beyond is decoded again on each access."""


@dataclass(frozen=True)
class FilePayload:
    """A picture file."""

    path: Path

    def read(self) -> Image.Image:
        return decode_image(self.path)


@dataclass(frozen=True)
class BytesPayload:
    """An encoded picture held in memory."""

    data: bytes

    def read(self) -> Image.Image:
        return decode_image(self.data)


@dataclass(frozen=True)
class ParquetPayload:
    """An encoded picture in a parquet file too large to hold; neighbours share one read of their row group."""

    path: Path
    group: int
    row: int
    column: str
    field: str | None

    def read(self) -> Image.Image:
        import pyarrow as pa

        try:
            data = _cells(self.path, self.group, self.column, self.field)[self.row]
        except (pa.ArrowException, OSError, LookupError, TypeError) as error:
            raise DataError(f"{self.path} cannot be read as parquet: {error}; it was moved or changed") from error
        return decode_image(data)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture that a reader has found but not opened yet."""

    id: str
    payload: Payload
    label: int | None
    source: str | None = None
    copy: int = -1


def decode(
    entries: Sequence[Entry],
    *,
    classes: Sequence[str],
    name: str,
    flips: bool = True,
    rejected: Sequence[Rejected] = (),
    progress: Progress | None = None,
    budget: int = MEMORY_BUDGET,
) -> ImageSet:
    """Decode every entry once; the readable ones, in their order, are the set.

    Raises:
        DataError: not one could be read.
    """
    room = _Room(budget)
    records: list[Record] = []
    refused: list[Rejected] = list(rejected)
    with ThreadPoolExecutor(max_workers=coding_threads()) as pool:
        for done, outcome in enumerate(_ordered(pool, entries, room), start=1):
            if isinstance(outcome, Record):
                records.append(outcome)
            else:
                refused.append(outcome)
            if progress is not None:
                progress(done, len(entries))
    if not records:
        reasons = "; ".join(f"{line.id!r}: {line.reason}" for line in refused[:3])
        raise DataError(f"none of the {len(refused)} files and rows of {name} could be used ({reasons})")
    return ImageSet(records, classes=classes, name=name, flips=flips, rejected=refused)


def without_repeats(entries: Sequence[Entry], where: str) -> tuple[list[Entry], list[Rejected]]:
    """Keep the first of entries that share an id; those whose labels contradict each other all go."""
    labels: dict[str, set[int | None]] = {}
    for entry in entries:
        labels.setdefault(entry.id, set()).add(entry.label)
    kept: dict[str, Entry] = {}
    refused = []
    for entry in entries:
        if len(labels[entry.id]) > 1:
            refused.append(Rejected(id=entry.id, reason=f"listed under {len(labels[entry.id])} different labels in {where}"))
        elif entry.id in kept:
            refused.append(Rejected(id=entry.id, reason=f"listed more than once in {where}; the first is used"))
        else:
            kept[entry.id] = entry
    return list(kept.values()), refused


class _Room:
    """What is left of the memory budget, shared by the decoding threads."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


def _ordered(pool: ThreadPoolExecutor, entries: Sequence[Entry], room: _Room) -> Iterator[Record | Rejected]:
    # A window instead of pool.map over everything: an interrupt then ends the work at once.
    rest = iter(entries)
    window = [pool.submit(_open, entry, room) for entry in islice(rest, 256)]
    while window:
        batch, window = window, []
        for future in batch:
            yield future.result()
            window.extend(pool.submit(_open, entry, room) for entry in islice(rest, 1))


def _open(entry: Entry, room: _Room) -> Record | Rejected:
    try:
        image = entry.payload.read()
    except DataError as error:
        return Rejected(id=entry.id, reason=str(error))
    pixels = image.tobytes()
    payload: Payload = entry.payload
    if room.take(len(pixels)):
        payload = PixelPayload(image.width, image.height, pixels)
    digest = hash_pixels(image.width, image.height, pixels)
    return Record(
        id=entry.id, payload=payload, label=entry.label, digest=digest, size=image.size, source=entry.source, copy=entry.copy
    )  # fmt: skip


@lru_cache(maxsize=2)
def _cells(path: Path, group: int, column: str, field: str | None) -> list[bytes]:
    import pyarrow.parquet as pq

    cells: list[Any] = pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0).to_pylist()
    return [cell if field is None else cell[field] for cell in cells]
