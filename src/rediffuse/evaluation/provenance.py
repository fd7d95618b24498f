"""What made a figure: the machine, the code, the libraries and the command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rediffuse.machine import instruction_sets, library_versions, now, processor, usable_cores


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made it: see `results.Result`. versions: of the libraries."""

    command: str
    commit: str
    date: str
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]


def provenance(command: str | None = None, device: str = "cpu") -> Provenance:
    """Of this process. command: what was typed; None takes it from the process."""
    from rediffuse import __version__

    return Provenance(
        command=command_line() if command is None else command,
        commit=commit(),
        date=now(),
        hardware=hardware(device),
        versions={"rediffuse": __version__, **{name: found for name, found in library_versions().items() if found}},
    )


def hardware(device: str = "cpu") -> dict[str, Any]:
    """The machine in words: processor, usable cores, instruction sets that decide the speed, device, torch."""
    import torch

    described = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "instruction_sets": instruction_sets(),
        "device": described,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@cache
def commit() -> str:
    """The commit of the code that runs, "+changes" behind it when its files differ; "" outside a checkout.

    Asked once in a process, when work begins: what is committed during hours of work did not make its figures.
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    # An installed copy inside somebody else's repository has no commit of its own.
    if not head or not git("ls-files", "--error-unmatch", str(Path(__file__).resolve())):
        return ""
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no", "--", str(here.parent)) else "")


def command_line() -> str:
    """What was typed, with the program by name alone: paths of one machine mean nothing on another."""
    return shlex.join([Path(sys.argv[0]).name or "python", *sys.argv[1:]])


def module_command(module: str, arguments: Sequence[str]) -> str:
    """`python -m MODULE ARGUMENTS`, with the last part alone of every absolute path; as work begins, so `commit` is asked too."""
    commit()
    return shlex.join(["python", "-m", module, *(Path(word).name if Path(word).is_absolute() else word for word in arguments)])
