"""The command line: one thin file per verb, callers of the public names."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the program `rediffuse` and the tests call this.

    Args:
        argv: what follows the program's name; None takes it from the process.
    Returns:
        The exit status: 0 done, 1 `doctor` found a problem, 2 something that the user can mend, 130 interrupted.
    """
    from rediffuse.cli.app import run

    return run(argv)
