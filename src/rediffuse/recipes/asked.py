"""What a recipe was asked for otherwise than it stands: such a result has a name of its own, so that no trial overwrites a quoted one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def departures(given: argparse.Namespace, parser: argparse.ArgumentParser, deciding: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """What was asked for otherwise, in words, of the options that decide the figures.

    Args:
        deciding: names of options that must be the recipe's own.
        more: names of options of which more than the recipe's is no departure: numbers such as seeds, and lists.
    """
    names = [name for name in deciding if getattr(given, name) != parser.get_default(name)]
    names += [name for name in more if _less(getattr(given, name), parser.get_default(name))]
    return [f"{name} {_text(getattr(given, name))} (the recipe's: {_text(parser.get_default(name))})" for name in names]


def named(name: str, departed: Sequence[str]) -> str:
    """The name of a result: `reduced_NAME` of one that departs from its recipe."""
    return f"reduced_{name}" if departed else name


def notes_of(departed: Sequence[str]) -> tuple[str, ...]:
    """What such a result says of itself."""
    return (f"Not the recipe's run: {'; '.join(departed)}.",) if departed else ()


def _less(value: Any, default: Any) -> bool:
    if isinstance(default, list):
        return not set(default) <= set(value)
    return value is not None and (default is None or bool(value < default))


def _text(value: object) -> str:
    """Of an option: lists as they are typed, and of a path only its last part."""
    if value is None:
        return "as set"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else Path(str(value)).name
