"""One writer a folder. Of a run the lock saves work alone: two writers of a shard make the same bytes and names."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from rediffuse.errors import PlanError
from rediffuse.machine import is_alive, now

_HELD: set[Path] = set()  # by this process


class Lock:
    """Hold a folder's lock file while writing: `with Lock(path): ...`.

    The lock of a process that is dead on this machine is taken over with a note; any other one is refused. Of two that would take the same
    lock over at once, one does and the other is refused.

    Args:
        path: the lock file.
        take_over: take the lock from whoever holds it now.
        note: called with a sentence when a lock was taken over.
        fix: what to do where its process is gone for good and cannot be seen from here.
    Raises:
        PlanError: another process holds it.
    """

    def __init__(
        self,
        path: Path,
        *,
        take_over: bool = False,
        note: Callable[[str], None] = lambda _: None,
        fix: str = "add --take-over (in Python take_over=True)",
    ) -> None:
        self.path, self.take_over, self.note, self.fix = path.absolute(), take_over, note, fix
        self._mine = b""

    def __enter__(self) -> Self:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "time": now()}
        self._mine = (json.dumps(owner) + "\n").encode()
        first: dict[str, Any] | None = None  # whose lock it was when it was asked for
        while not self._create():
            found = _owner(self.path)
            if found is None:
                continue  # released between the two looks
            first = found if first is None else first
            dead = self.path not in _HELD and _is_dead(found)
            if not dead and not (self.take_over and found == first):
                raise PlanError(
                    f"{self.path.parent} is being written by {_words(found)}; wait for it, or if it is gone for good, {self.fix}"
                )
            if self._remove(found):
                self.note(f"taken over from {_words(found)}")
        _HELD.add(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        _HELD.discard(self.path)
        if self.path.is_file() and self.path.read_bytes() == self._mine:  # not where another has taken over
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(handle, self._mine)
        finally:
            os.close(handle)
        return True

    def _remove(self, owner: dict[str, Any]) -> bool:
        """Remove the lock of this owner; False, and it stays, where it has become another's since it was looked at."""
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            os.rename(self.path, aside)  # of two that try, one has the file in its hands
        except FileNotFoundError:
            return False
        if _owner(aside) == owner:
            aside.unlink()
            return True
        if not self.path.exists():
            os.rename(aside, self.path)
        return False


def _owner(path: Path) -> dict[str, Any] | None:
    """Who holds a lock, None for nobody; {} if its writer died before it could say so."""
    for _ in range(10):
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(0.1)  # between creating and writing it
        else:
            return found if isinstance(found, dict) else {}
    return {}


def _is_dead(owner: dict[str, Any]) -> bool:
    if not owner:
        return True
    if owner.get("host") != socket.gethostname():
        return False
    pid = owner.get("pid")
    return pid == os.getpid() or not is_alive(pid)  # its own number: of an earlier life, this one holds no such lock


def _words(owner: dict[str, Any]) -> str:
    if not owner:
        return "a process that left no name"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('time')}"
