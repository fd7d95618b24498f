"""`rediffuse run ...`: what a run's folder says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rediffuse.cli import terminal
from rediffuse.cli.common import bar
from rediffuse.progress import are, counted


def report(folder: Path, /) -> int:
    """Say what a run holds and how it was made.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import report as lines

    terminal.say(lines(folder))
    return 0


def verify(folder: Path, /) -> int:
    """Decode and hash every image again, and name what is missing or changed and how to mend it. The exit status is 1 if something is.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import inspect
    from rediffuse.generation.store import read_manifest

    with bar(f"reading {folder}") as tick:
        found = inspect(folder, tick)
    for problem in found.problems:
        terminal.say(problem, style="red")
    for fix in found.fixes:
        terminal.say(fix)
    count = len(found.problems)
    terminal.say(counted(count, "problem") if count else f"All {read_manifest(folder).num_rows:,} images are as they were written.")
    return int(bool(count))


def export(folder: Path, out: Path, /, *, format: Literal["png", "jpeg"] = "png") -> int:
    """Write the pictures once more, in folders that bear the classes' own names, for readers that know nothing of runs.

    Args:
        folder: that `augment` or `generate` wrote.
        out: a new or empty folder; the same command starts an interrupted one again.
        format: png keeps every pixel; jpeg is smaller.
    """
    from rediffuse.data.export import export_folders
    from rediffuse.data.names import folder_names
    from rediffuse.generation.store import Run

    with bar(f"reading {folder}") as tick:
        run = Run(folder, progress=tick)
    with bar(f"writing {out}") as tick:
        export_folders(run, out, format=format, progress=tick)
    for line in run.rejected:
        terminal.say(f"left out: {line.id} ({line.reason})", style="red")
    for name, place in zip(run.classes, folder_names(run.classes), strict=True):
        if place != name:
            terminal.say(f"{name!r} is {place} there: not every file system takes the name", style="yellow")
    terminal.say(f"{counted(len(run), 'picture')} in class folders {are(len(run))} in {out}")
    return int(bool(run.rejected))


def cite(folder: Path, /) -> int:
    """Print BibTeX for a run's method and this library.

    Args:
        folder: that `augment` or `generate` wrote.
    """
    from rediffuse.generation.provenance import cite as entries

    terminal.say(entries(folder).rstrip())
    return 0
