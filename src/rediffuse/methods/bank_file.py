"""Where a bank keeps its pictures: tensors in memory, or the same tensors over one file.

The file: 16 bytes that name the format, two counts (int64), a JSON header up to byte 4,096, the labels (int64), the pictures (uint8). All
little-endian.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

if sys.platform != "win32":
    import fcntl

MAGIC = b"rediffuse bank 1"
COUNTS_BYTES = 16
HEADER_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class BankShape:
    """capacity: pictures that may be read; slots: room for pictures, at least as many; height, width; made_by: what made the pictures."""

    capacity: int
    slots: int
    height: int
    width: int
    made_by: str

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return HEADER_BYTES + self.slots * (8 + 3 * self.height * self.width)


@dataclass(frozen=True, kw_only=True)
class BankStore:
    """images: (slots, 3, H, W) uint8; labels: (slots,) int64; counts: (2,) int64, pictures ever written and ever begun; files: what is
    behind them; hold: keeps other writers away as long as it lives.

    A kill may come between the two counts, never does a count hide that a slot was touched.
    """

    shape: BankShape
    images: Tensor
    labels: Tensor
    counts: Tensor
    files: tuple[Any, ...] = ()
    hold: Any = None

    def write(self, first: int, images: Tensor, labels: Tensor) -> None:
        """Put pictures (B, 3, H, W) uint8 into the slots of entries first, first + 1, ..."""
        last = first + len(images)
        slots = torch.arange(first, last) % self.shape.slots
        self.counts[1] = max(int(self.counts[1]), last)
        self.images[slots], self.labels[slots] = images, labels
        self.counts[0] = max(int(self.counts[0]), last)

    def flush(self) -> None:
        """Hand what was written to the disk."""
        for file in self.files:
            file.flush()


def in_memory(shape: BankShape) -> BankStore:
    """An empty store; memory is taken as it fills."""
    images = torch.from_numpy(np.zeros((shape.slots, 3, shape.height, shape.width), dtype=np.uint8))
    labels, counts = torch.zeros(shape.slots, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    return BankStore(shape=shape, images=images, labels=labels, counts=counts)


def create(path: Path, shape: BankShape) -> BankStore:
    """An empty store over a new file. Raises DataError if it cannot be made, also for want of room."""
    head = MAGIC + bytes(COUNTS_BYTES) + json.dumps(asdict(shape)).encode()
    if len(head) > HEADER_BYTES:
        raise DataError(f"what made the bank takes {len(head)} bytes to say, more than the header's {HEADER_BYTES}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            try:
                if hasattr(os, "posix_fallocate"):  # a mapped file that outgrows its disk would kill the process
                    os.posix_fallocate(file.fileno(), 0, shape.bytes)
                file.truncate(shape.bytes)
                file.write(head.ljust(HEADER_BYTES))
            except OSError:
                path.unlink()
                raise
    except OSError as error:
        raise DataError(f"the bank {path} ({shape.bytes / 2**30:.2f} GiB) cannot be made: {error.strerror}") from error
    return open_store(path)


def open_store(path: Path, writable: bool = True) -> BankStore:
    """The store over a file that `create` made.

    Raises:
        DataError: any other file.
        ConfigError: asked to write, while another does.
    """
    shape = read_shape(path)
    hold = Hold(path) if writable else None
    mode = "r+" if writable else "c"
    parts: list[Any] = []
    layout: list[tuple[str, int, tuple[int, ...]]] = [
        ("<i8", len(MAGIC), (2,)),
        ("<i8", HEADER_BYTES, (shape.slots,)),
        ("|u1", HEADER_BYTES + 8 * shape.slots, (shape.slots, 3, shape.height, shape.width)),
    ]
    for dtype, offset, size in layout:
        try:
            parts.append(np.memmap(path, dtype=dtype, mode=mode, offset=offset, shape=size))  # type: ignore[call-overload]
        except OSError as error:
            raise DataError(f"the bank {path} cannot be opened: {error.strerror}") from error
    counts, labels, images = (torch.from_numpy(part) for part in parts)
    if not 0 <= int(counts[0]) <= int(counts[1]):
        raise DataError(f"the bank {path} is damaged: it counts {counts.tolist()} pictures; remove it to begin again")
    return BankStore(shape=shape, images=images, labels=labels, counts=counts, files=tuple(parts) if writable else (), hold=hold)


class Hold:
    """The place of a file's only writer; it is free again when this object, or its process, is gone.

    Without flock (Windows, some network disks) nothing is held.

    Raises:
        ConfigError: another Hold has it, in this process or another.
        DataError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if sys.platform == "win32":
            return
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError as error:
            raise DataError(f"the bank {path} cannot be opened: {error.strerror}") from error
        weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"the bank {path} is open for writing already, here or in another process; wait until that one is gone, only read it "
                "with Bank(None, rate=0, path=...), or give another path"
            ) from error
        except OSError:
            return  # the disk knows no locks


def read_shape(path: Path) -> BankShape:
    """The header of a bank file, checked against its size. Raises DataError."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"the bank {path} cannot be read: {error.strerror}") from error
    if not head.startswith(MAGIC):
        raise DataError(f"{path} is no bank of this library (it begins with {head[:16]!r}); give another path, or remove it to begin again")
    try:
        values = json.loads(head[len(MAGIC) + COUNTS_BYTES :])
        shape = BankShape(**values)
        sides = [shape.capacity, shape.slots, shape.height, shape.width]
        sound = all(type(side) is int and side > 0 for side in sides) and shape.capacity <= shape.slots
    except (ValueError, TypeError) as error:
        raise DataError(f"the header of the bank {path} cannot be read; remove the file to begin again") from error
    if not sound or not isinstance(shape.made_by, str):
        raise DataError(f"the header of the bank {path} makes no sense ({values}); remove the file to begin again")
    if size != shape.bytes:
        raise DataError(f"the bank {path} has {size} bytes and should have {shape.bytes}; it was cut short: remove it to begin again")
    return shape
