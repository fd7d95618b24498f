"""Files that are whole or not there, and what is said where the disk does not take them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rediffuse.errors import DataError

_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "your quota is used up", errno.EFBIG: "a file would grow over the size limit"}
_SYSTEM_CODE = re.compile(r"os error (\d+)|\bcode: (\d+)")  # in the errors of safetensors, which hold no OSError


@contextmanager
def whole(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """Gives a file to write beside `path`; it is synced and renamed at the end, so that a kill leaves the old file or the new one.

    Args:
        path: the file that shall be there; its folder is made.
        partial: what is written until then. Left out, a hidden name of this process.
    Raises:
        DataError: the disk is full or refuses; nothing half-written is left.
    """
    waiting = path.with_name(f".{path.name}.{os.getpid()}.partial") if partial is None else partial
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield waiting
            with waiting.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(waiting, path)
        finally:
            waiting.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk refuses, whichever library wrote, into a DataError that names `path`, the cause and the fix."""
    try:
        yield
    except Exception as error:
        cause = refusal(error)
        if cause is None:
            raise
        raise DataError(
            f"{path}: {cause}; nothing half-written counts. Make room or name another place, then run the same command again"
        ) from error


def refusal(error: BaseException) -> str | None:
    """Why the system refused to write, in words; None for an error of another kind."""
    number = _number(error)
    return None if number is None else _FULL.get(number, f"it cannot be written ({os.strerror(number)})")


def _number(error: BaseException) -> int | None:
    """The system's number of an error. torch raises RuntimeError on top of an OSError, safetensors an error of its own with it as text."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError):
        below = error.__cause__ or error.__context__
        return _number(below) if isinstance(below, OSError | RuntimeError) else None
    found = _SYSTEM_CODE.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return None if found is None else int(found[1] or found[2])
