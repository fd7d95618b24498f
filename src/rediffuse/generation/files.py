"""Files of a run: where they wait until they are whole, pictures, and what is said where the disk takes no more."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.images import decode_image, pixels_sha256
from rediffuse.errors import DataError
from rediffuse.writing import RefusedError, refusal, whole

if TYPE_CHECKING:
    from PIL import Image

_SAVE: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 4},
    "webp": {"format": "WEBP", "lossless": True, "quality": 50},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


def scratch_file(path: Path, scratch: Path) -> Path:
    """Where a file of a run is written until it is renamed. scratch: a folder on the same disk."""
    name = hashlib.sha256(str(path).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return scratch / f"{name}.{os.getpid()}.tmp"


def write_image(render: Callable[[], Image.Image], path: Path, kind: str, scratch: Path) -> tuple[str, int, int]:
    """Encode and write one picture; returns the pixels_sha256 that a reader of the file will see, width and height."""
    image = render()
    buffer = io.BytesIO()
    image.save(buffer, **_SAVE[kind])
    data = buffer.getvalue()
    with whole(path, scratch_file(path, scratch), lasting=False) as file:  # the commit moves it on, and syncs
        file.write_bytes(data)
    return pixels_sha256(decode_image(data) if kind == "jpeg" else image), image.width, image.height


@contextmanager
def room_on_disk(out: Path, then: str) -> Iterator[None]:
    """Say in a sentence that the disk is full or cannot be written; `then` is what to do after mending it."""
    try:
        yield
    except (OSError, RefusedError) as error:
        reason = error.reason if isinstance(error, RefusedError) else refusal(error, out)
        if reason is None:
            raise
        raise DataError(f"{out}: {reason}; what is finished stays and counts, nothing half-written does. Make room, then {then}") from error
