"""A process that asks for a lock at the same moment as another one."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from rediffuse import lock
from rediffuse.errors import PlanError


def take(path: Path, take_over: bool, both: Barrier, answer: Connection) -> None:
    """Ask, after both processes have seen the former owner; answer with what became of it, and hold until both have answered."""
    look, seen = lock._owner, []

    def look_together(place: Path) -> dict[str, Any] | None:
        found = look(place)
        if not seen:
            seen.append(found)
            both.wait(60)
        return found

    lock._owner = look_together
    held = lock.Lock(path, take_over=take_over)
    try:
        held.__enter__()
    except PlanError as error:
        answer.send((os.getpid(), str(error)))
        both.wait(60)
    else:
        answer.send((os.getpid(), "held"))
        both.wait(60)
        held.__exit__()
