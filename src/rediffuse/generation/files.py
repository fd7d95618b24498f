"""Files that are whole or not there: written beside, synced, renamed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.images import decode_image, pixels_sha256
from rediffuse.errors import DataError
from rediffuse.writing import refusal

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

_SAVE: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 4},
    "webp": {"format": "WEBP", "lossless": True, "quality": 50},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def write_whole(path: Path, data: bytes, scratch: Path) -> None:
    """Write, sync, then rename to `path`: a kill leaves the old file or the new one. scratch: a folder on the same disk."""
    name = hashlib.sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    waiting = scratch / f"{name}.{os.getpid()}.tmp"
    try:
        with waiting.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames into a folder outlive a loss of power, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_image(render: Callable[[], Image.Image], path: Path, kind: str, scratch: Path) -> tuple[str, int, int]:
    """Encode and write one picture; returns the pixels_sha256 that a reader of the file will see, width and height."""
    image = render()
    buffer = io.BytesIO()
    image.save(buffer, **_SAVE[kind])
    data = buffer.getvalue()
    write_whole(path, data, scratch)
    return pixels_sha256(decode_image(data) if kind == "jpeg" else image), image.width, image.height


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, scratch: Path) -> None:
    """Rows as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    write_whole(path, sink.getvalue().to_pybytes(), scratch)


def write_json(path: Path, content: Mapping[str, Any], scratch: Path) -> None:
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"), scratch)


@contextmanager
def room_on_disk(out: Path, then: str) -> Iterator[None]:
    """Say in a sentence that the disk is full or cannot be written; `then` is what to do after mending it."""
    try:
        yield
    except OSError as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise DataError(f"{out}: {reason}; what is finished stays and counts, nothing half-written does. Make room, then {then}") from error
