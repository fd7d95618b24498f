"""What is asked of the machine: cores, versions, the time, living processes."""

from __future__ import annotations

import hashlib
import os
import socket
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""By which figures and pixels may differ."""


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine's under a job scheduler."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def coding_threads() -> int:
    """Threads that read or write picture files side by side: one a core, at most eight."""
    return min(8, usable_cores())


def library_versions() -> dict[str, str | None]:
    """Of `LIBRARIES`; None for one that is not installed under its usual name."""
    return {name: _version(name) for name in LIBRARIES}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def machine_mark() -> str:
    """Six digits that tell this machine from others on a shared disk."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def is_alive(pid: Any) -> bool:
    """Whether a process of this number runs on this machine; where the system does not say, it does."""
    try:
        number = int(pid)
        if number <= 0 or os.name == "nt":  # on Windows signal 0 is Ctrl-C
            return True
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (ValueError, TypeError, PermissionError):
        return True
    return True


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
