"""What is asked of the machine: processor, cores, versions, the time, living processes."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""By which figures and pixels may differ."""
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""That decide how fast networks run, and by which kernels."""
_LISTING = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine's under a job scheduler."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def coding_threads() -> int:
    """Threads that read or write picture files side by side: one a core, at most eight."""
    return min(8, usable_cores())


def processor() -> str:
    """The processor's name; `platform.processor` is empty on most Linux systems."""
    return _listed().get("model name") or platform.processor() or platform.machine()


def processor_numbers() -> list[str]:
    """Maker, family and part as Linux lists them: ARM processors have no other name, and virtual machines hide the name of theirs."""
    found = _listed()
    return [found[name] for name in ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part") if name in found]


def is_amd() -> bool:
    """Whether the processor is AMD's, as the system tells: Linux in its listing, Windows behind the family."""
    return "AuthenticAMD" in (_listed().get("vendor_id") or platform.processor())


def instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that the processor has; none where the system has no list of them."""
    found = _listed()
    flags = (found.get("flags") or found.get("Features") or "").split()
    return [name for name in INSTRUCTION_SETS if name in flags]


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


def _listed() -> dict[str, str]:
    """What Linux lists of the first core, by name; empty on other systems."""
    if not _LISTING.exists():
        return {}
    found: dict[str, str] = {}
    for line in _LISTING.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found
