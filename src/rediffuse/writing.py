"""Files that are whole or not there, and what is said where the disk does not take them."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.errors import ConfigError, DataError
from rediffuse.machine import is_alive, machine_mark

if TYPE_CHECKING:
    import pyarrow as pa

_FULL = {errno.ENOSPC: "no space is left", errno.EDQUOT: "your quota is used up", errno.EFBIG: "a file would grow over the size limit"}
_SYSTEM_CODE = re.compile(r"os error (\d+)|\bcode: (\d+)")  # in the errors of safetensors, which hold no OSError
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # of folders on some network disks, and of those that one may write to alone
_PRIVATE = 0o600


class RefusedError(DataError):
    """The disk did not take a file. reason: the system's, in words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def whole(path: Path, partial: Path | None = None, *, lasting: bool = True) -> Iterator[Path]:
    """Gives a file to write beside `path`; it is synced and renamed at the end, so that a kill leaves the old file or the new one.

    What a process of this machine that is dead left of the same file under such a hidden name is removed.

    Args:
        path: the file that shall be there; its folder is made.
        partial: what is written until then, on the same disk. Left out, a hidden name of this process.
        lasting: sync the folder too, so that the rename outlives a loss of power; False where it is synced once for many files.
    Raises:
        DataError: the disk is full or refuses; nothing half-written is left.
    """
    waiting = path.with_name(f".{path.name}.{machine_mark()}-{os.getpid()}.partial") if partial is None else partial
    with writing(path, waiting):
        path.parent.mkdir(parents=True, exist_ok=True)
        if partial is None:
            _sweep(path)
        try:
            yield waiting
            with waiting.open("rb+") as file:
                os.fsync(file.fileno())
            usual_mode(waiting)
            os.replace(waiting, path)
            if lasting:
                sync_folder(path.parent)
        finally:
            waiting.unlink(missing_ok=True)


def usual_mode(file: Path) -> None:
    """Let others read what the system lets them by its umask, where a library wrote for its owner alone, as safetensors does."""
    if os.name == "nt" or stat.S_IMODE(file.stat().st_mode) != _PRIVATE:
        return
    mask = os.umask(0o077)
    os.umask(mask)
    with suppress(OSError):  # some network disks let nobody change a mode
        os.chmod(file, 0o666 & ~mask)


def write_text(path: Path, text: str, partial: Path | None = None) -> None:
    """Text in UTF-8, whole or not at all. What is no text, in the names of some files, is escaped as JSON does it."""
    with whole(path, partial) as file:
        file.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any, partial: Path | None = None) -> None:
    """Write JSON, whole or not at all. NaN and infinity are refused, because it has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    # Lists of whole numbers on one line: a string cannot hold a bare line break, so none is touched.
    text = re.sub(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    write_text(path, text + "\n", partial)


def write_rows(
    path: Path, rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]], schema: pa.Schema = None, partial: Path | None = None
) -> None:
    """Write parquet, whole or not at all. rows: one mapping a row, or columns by name; schema: of the columns, else as the values say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    of = pa.Table.from_pydict if isinstance(rows, Mapping) else pa.Table.from_pylist
    with whole(path, partial) as file:
        pq.write_table(of(rows, schema=schema), file)


def check_place(folder: Path) -> None:
    """Refuse a folder, there or not, in which nothing can be written, before the work. Raises ConfigError."""
    check_path(folder)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing can be written in {folder}, because {there} is no folder that you may write to; give another place")


def check_path(folder: Path) -> None:
    """Refuse a path that is no text, under which libraries write what they cannot read back. Raises ConfigError."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"the path {str(folder.absolute())!r} holds bytes that are no text; give another place") from error


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is empty but for what a kill may leave there of a first file."""
    return all(each.suffix == ".partial" for each in folder.iterdir())


def sync_folder(folder: Path) -> None:
    """Make renames into a folder outlive a loss of power, where the system can (Windows cannot)."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise


@contextmanager
def writing(path: Path, *beside: Path) -> Iterator[None]:
    """Turn what a disk refuses, whichever library wrote, into a DataError that names `path`, the cause and the fix.

    What is said of another file than `path`, those beside it, and what lies in or above them, passes: it was to be read.
    """
    try:
        yield
    except Exception as error:
        cause = refusal(error, path, *beside)
        if cause is None:
            raise
        raise RefusedError(
            f"{path}: {cause}; nothing half-written counts. Make room or name another place, then run the same command again", cause
        ) from error


def refusal(error: BaseException, *places: Path) -> str | None:
    """Why the system refused to write, in words; None for an error of another kind or, with places, of a file elsewhere."""
    number = _number(error)
    if number is None or number in _FULL:
        return None if number is None else _FULL[number]
    return None if places and _elsewhere(error, places) else f"it cannot be written ({os.strerror(number)})"


def _elsewhere(error: BaseException, places: Sequence[Path]) -> bool:
    """Whether an error names a file that is none of these places, nor in or above one."""
    name = error.filename if isinstance(error, OSError) else None
    if not isinstance(name, str | bytes):
        return False
    file, ours = Path(os.path.abspath(os.fsdecode(name))), [place.absolute() for place in places]
    return not any(file.is_relative_to(place) or place.is_relative_to(file) for place in ours)


def _sweep(path: Path) -> None:
    """Remove what the dead of this machine left of a file; on a shared disk others may be writing."""
    for left in path.parent.glob(f".{escape(path.name)}.{machine_mark()}-*.partial"):
        process = left.suffixes[-2].partition("-")[2]
        if process.isdecimal() and not is_alive(process):
            left.unlink(missing_ok=True)


def _number(error: BaseException) -> int | None:
    """The system's number of an error. torch raises RuntimeError on top of an OSError, safetensors an error of its own with it as text."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError):
        below = error.__cause__ or error.__context__
        return _number(below) if isinstance(below, OSError | RuntimeError) else None
    found = _SYSTEM_CODE.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return None if found is None else int(found[1] or found[2])


def _plain(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a results file")
