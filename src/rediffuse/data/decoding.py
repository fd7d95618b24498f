"""From files, bytes and table cells to an ImageSet: every picture is decoded once, in a pool; bad ones become reasons."""

from __future__ import annotations

import os
import sys
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
"""Bytes of decoded pixels that all sets of a process keep together; what is beyond is decoded again on each access."""


class FilePayload:
    """A picture file, held as its name and the text of its folder, which neighbours share: a Path takes six times the room."""

    __slots__ = ("_folder", "_name")

    def __init__(self, path: str | Path) -> None:
        base, self._name = os.path.split(os.fspath(path))
        self._folder = sys.intern(base)

    @property
    def path(self) -> Path:
        return Path(self._folder, self._name)

    def read(self) -> Image.Image:
        return decode_image(self.path)


@dataclass(frozen=True, slots=True)
class BytesPayload:
    """An encoded picture held in memory."""

    data: bytes

    def read(self) -> Image.Image:
        return decode_image(self.data)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, kw_only=True, slots=True)
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
    budget: int | None = None,
) -> ImageSet:
    """Decode every entry once; the readable ones, in their order, are the set.

    Args:
        budget: bytes of decoded pixels that this set may keep; None takes what other sets have left of `MEMORY_BUDGET`.
    Raises:
        DataError: not one could be read.
    """
    lease = _Lease(_EVERYBODYS if budget is None else _Room(budget))
    records: list[Record] = []
    refused: list[Rejected] = list(rejected)
    with ThreadPoolExecutor(max_workers=coding_threads()) as pool:
        for done, outcome in enumerate(_ordered(pool, entries, lease), start=1):
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
    """A memory budget, and what is taken of it."""

    def __init__(self, budget: int | None) -> None:
        self.budget, self.taken = budget, 0
        self.lock = threading.RLock()  # a lease may end, by garbage collection, in a thread that holds it


_EVERYBODYS = _Room(None)
"""Of sets that were given none of their own."""


class _Lease:
    """What one set holds of a room, shared by its decoding threads; it ends with the last payload that has it."""

    def __init__(self, room: _Room | None = None) -> None:
        self._room, self._held = room or _Room(0), 0

    def take(self, size: int) -> bool:
        with self._room.lock:
            if self._room.taken + size > (MEMORY_BUDGET if self._room.budget is None else self._room.budget):
                return False
            self._room.taken += size
            self._held += size
            return True

    def __del__(self) -> None:
        with self._room.lock:
            self._room.taken -= self._held

    def __reduce__(self) -> tuple[type[_Lease], tuple[()]]:
        return _Lease, ()  # a copy in another process takes nothing of that one's room


def _ordered(pool: ThreadPoolExecutor, entries: Sequence[Entry], lease: _Lease) -> Iterator[Record | Rejected]:
    # A window instead of pool.map over everything: an interrupt then ends the work at once.
    rest = iter(entries)
    window = [pool.submit(_open, entry, lease) for entry in islice(rest, 256)]
    while window:
        batch, window = window, []
        for future in batch:
            yield future.result()
            window.extend(pool.submit(_open, entry, lease) for entry in islice(rest, 1))


def _open(entry: Entry, lease: _Lease) -> Record | Rejected:
    try:
        image = entry.payload.read()
    except DataError as error:
        return Rejected(id=entry.id, reason=str(error))
    pixels = image.tobytes()
    payload: Payload = entry.payload
    if lease.take(len(pixels)):
        payload = PixelPayload(image.width, image.height, pixels, lease)
    digest = hash_pixels(image.width, image.height, pixels)
    return Record(
        id=entry.id, payload=payload, label=entry.label, digest=digest, size=_shared(image.size), source=entry.source, copy=entry.copy
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _shared(size: tuple[int, int]) -> tuple[int, int]:
    """One object for equal sizes: thousands of pictures have a few."""
    return size


@lru_cache(maxsize=2)
def _cells(path: Path, group: int, column: str, field: str | None) -> list[bytes]:
    import pyarrow.parquet as pq

    cells: list[Any] = pq.ParquetFile(path).read_row_group(group, columns=[column]).column(0).to_pylist()
    return [cell if field is None else cell[field] for cell in cells]
