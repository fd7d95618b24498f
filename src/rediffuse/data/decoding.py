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
        return decode_image(os.path.join(self._folder, self._name))


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
            with _READING:
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
    source_digest: str | None = None


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
    room = _EVERYBODYS if budget is None else _Room(budget)
    records: list[Record] = []
    refused: list[Rejected] = list(rejected)
    pool = ThreadPoolExecutor(max_workers=coding_threads())
    try:
        for done, outcome in enumerate(_ordered(pool, entries, room), start=1):
            if isinstance(outcome, Record):
                records.append(outcome)
            else:
                refused.append(outcome)
            if progress is not None:
                progress(done, len(entries))
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, what is under way ends and nothing more begins
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


class _Turn:
    """One thread at a time, which may come in again: a picture may end, by garbage collection, where its room is being counted."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Free, whoever held it: in a forked process that thread does not exist."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Room:
    """A memory budget, and what is taken of it."""

    def __init__(self, budget: int | None) -> None:
        self.budget, self.taken, self.turn = budget, 0, _Turn()

    def take(self, size: int) -> bool:
        with self.turn:
            if self.taken + size > (MEMORY_BUDGET if self.budget is None else self.budget):
                return False
            self.taken += size
            return True

    def give(self, size: int) -> None:
        with self.turn:
            self.taken -= size


_EVERYBODYS = _Room(None)
"""Of sets that were given none of their own."""
_READING = _Turn()
"""Of a row group: else every thread would read the one that they all want next."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_EVERYBODYS.turn.renew)
    os.register_at_fork(after_in_child=_READING.renew)


class _Held(PixelPayload):
    """Decoded bytes that give their room back when the last set that shows them is gone."""

    __slots__ = ("_room",)
    _room: _Room

    @classmethod
    def of(cls, image: Image.Image, pixels: bytes, room: _Room) -> _Held:
        held = cls(image.width, image.height, pixels)
        object.__setattr__(held, "_room", room)
        return held

    def __del__(self) -> None:
        self._room.give(len(self.pixels))

    def __deepcopy__(self, _: object) -> _Held:
        return self  # it never changes

    def __reduce__(self) -> tuple[type[PixelPayload], tuple[int, int, bytes]]:
        return PixelPayload, (self.width, self.height, self.pixels)  # a copy in another process takes nothing of that one's room


def _ordered(pool: ThreadPoolExecutor, entries: Sequence[Entry], room: _Room) -> Iterator[Record | Rejected]:
    # A window instead of pool.map over everything: progress is told in order, and no more than it waits to be looked at.
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
        payload = _Held.of(image, pixels, room)
    digest = hash_pixels(image.width, image.height, pixels)
    return Record(
        id=entry.id, payload=payload, label=entry.label, digest=digest, size=_shared(image.size), source=entry.source, copy=entry.copy,
        source_digest=entry.source_digest,
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
