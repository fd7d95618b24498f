"""How the command line speaks: results on standard output, everything else on standard error, names never read as markup."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
"""What follows the program's name in the command that runs now."""

KEPT: ContextVar[tuple[tuple[Path, str], ...]] = ContextVar("kept", default=())
"""Where the command that runs now keeps what it would go on from: folders, and the pattern of files in them."""

WIDTH = 100
"""Columns that prose is set in, on wider terminals too."""


def out() -> Console:
    """Standard output. Made on each use, so that whoever captures the stream gets it; off a terminal no line is ever folded or coloured."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error."""
    return _console(sys.stderr)


def help_out() -> Console:
    """Standard output for --help, no wider than is read with ease."""
    console = out()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def _console(stream: Any) -> Console:
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 160
    return console


def say(text: str = "", *, style: str | None = None) -> None:
    """A line or paragraph of the result."""
    _paragraph(out(), text, style)


def note(text: str, *, quiet: bool = False, style: str | None = None) -> None:
    """A remark beside the result; --quiet keeps it back."""
    if not quiet:
        _paragraph(err(), text, style)


def failed(message: str) -> None:
    """One paragraph for an error that the user can mend."""
    from rich.text import Text

    console = err()
    text = Text("rediffuse: ", style="bold red")
    text.append(message, style="not bold default")
    console.print(text, width=min(console.width, WIDTH) if console.is_terminal else None, soft_wrap=not console.is_terminal)


def stopped(message: str) -> None:
    """What is said after Ctrl-C."""
    console = err()
    console.print()
    console.print(message, style="yellow", soft_wrap=True)


def pairs(rows: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items() if isinstance(rows, Mapping) else rows:
        grid.add_row(Text(name), Text(value))
    out().print(grid)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", numbers_from: int = 1) -> None:
    """A table; columns from `numbers_from` on are set flush right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        drawn.add_column(Text(heading), justify="right" if place >= numbers_from else "left", no_wrap=place >= numbers_from)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    out().print(drawn)


def _paragraph(console: Console, text: str, style: str | None) -> None:
    if not console.is_terminal:
        console.print(text, soft_wrap=True)
        return
    console.print(text, style=style, width=min(console.width, WIDTH))


def goes_on_from(*places: tuple[Path, str]) -> None:
    """Note where a command keeps what the same command goes on from: (folder, pattern of files that hold finished work)."""
    KEPT.set(places)


def is_kept() -> bool:
    """Whether the command that runs now, or an earlier one like it, has left something to go on from."""
    return any(next(folder.glob(pattern), None) is not None for folder, pattern in KEPT.get())


def typed() -> str:
    """The command that runs now, as it could be typed again."""
    return shlex.join(["rediffuse", *TYPED.get()])


def command(verb: str, *places: object, **options: object) -> str:
    """What to type, quoted so that a shell takes it as it is; no name that begins with a dash can be taken for an option.

    Args:
        options: None, False and nothing at all are left out, True is the option alone, several values follow it.
    """
    words = [verb, *(f"./{place}" if str(place).startswith("-") else str(place) for place in places)]
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        words.append(f"--{name.replace('_', '-')}")
        for each in value if isinstance(value, list | tuple) else () if value is True else (value,):
            words.append(f"./{each}" if str(each).startswith("-") else str(each))
    return shlex.join(["rediffuse", *words])
