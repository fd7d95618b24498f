"""`rediffuse run ...`: what a run's folder says of itself."""

from __future__ import annotations

from pathlib import Path

from rediffuse.cli import terminal
from rediffuse.cli.common import bar


def report(folder: Path, /) -> int:
    """Say what a run holds and how it was made.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import report as lines

    terminal.say(lines(folder))
    return 0


def verify(folder: Path, /) -> int:
    """Decode and hash every image again, and name what is missing or changed. The exit status is 1 if something is.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import verify as problems
    from rediffuse.generation.store import read_manifest

    with bar(f"reading {folder}") as tick:
        found = problems(folder, tick)
    for problem in found:
        terminal.say(problem, style="red")
    terminal.say(f"{len(found)} problems" if found else f"All {read_manifest(folder).num_rows:,} images are as they were written.")
    return int(bool(found))


def cite(folder: Path, /) -> int:
    """Print BibTeX for a run's method and this library.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import cite as entries

    terminal.say(entries(folder).rstrip())
    return 0
