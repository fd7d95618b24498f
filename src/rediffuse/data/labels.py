"""Cells of a label column to indices and class names, the same for tables and for sets of the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rediffuse.errors import DataError

LABEL_COLUMNS = ("class", "label", "labels", "class_name", "fine_label", "category")
"""Names by which a label column is found, the first that is there; of our own tables `class` holds names and `label` their numbers."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a label column says. indices: one a row, into `classes`; missing: reasons by row, where other rows have a label."""

    indices: Sequence[int | None]
    classes: tuple[str, ...] = ()
    missing: dict[int, str] = field(default_factory=dict)


def read_labels(cells: Sequence[Any], names: Sequence[str] | None = None) -> Labels:
    """Take labels for what they are: indices into `names`, or one of these; without names, numbers in their order or sorted words.

    None, empty text, NaN and, of names, -1 (how test splits without labels are published) are no label. Where all are whole numbers,
    3.0 is 3.

    Raises:
        DataError: a cell that holds several values.
    """
    strange = next((cell for cell in cells if isinstance(cell, list | tuple | dict)), None)
    if strange is not None:
        raise DataError(f"a label is one value a row, got {strange!r}; choose another column, or read the pictures alone")
    known = [None if cell is None or cell == "" or cell != cell else cell for cell in cells]
    if names is not None:
        return _of_names(known, names)
    words = _words(known)
    seen = {word for word in words if word is not None}
    numeric = all(re.fullmatch(r"[+-]?\d+", word) for word in seen)
    classes = tuple(sorted(seen, key=lambda word: (int(word) if numeric else 0, word)))
    places = {word: place for place, word in enumerate(classes)}
    missing = {row: "no label in this row" for row, word in enumerate(words) if word is None} if seen else {}
    return Labels(indices=[None if word is None else places[word] for word in words], classes=classes, missing=missing)


def _words(cells: Sequence[Any]) -> list[str | None]:
    """Cells as text. Whole numbers that became floats, as pandas makes them where a cell is empty, are whole numbers again."""
    known = [cell for cell in cells if cell is not None]
    if all(_is_whole(cell) and not isinstance(cell, bool) for cell in known):
        return [None if cell is None else str(int(cell)) for cell in cells]
    if all(isinstance(cell, str) and re.fullmatch(r"[+-]?\d+\.0", cell) for cell in known):
        return [None if cell is None else cell.removesuffix(".0") for cell in cells]
    return [None if cell is None else str(cell) for cell in cells]


def _of_names(cells: Sequence[Any], names: Sequence[str]) -> Labels:
    places = {name: place for place, name in enumerate(names)}
    given = [None if cell == -1 else cell for cell in cells]
    indices = [places.get(cell) if isinstance(cell, str) else _index(cell, len(names)) for cell in given]
    missing = {}
    if any(cell is not None for cell in given):
        for row, (cell, index) in enumerate(zip(given, indices, strict=True)):
            if index is None:
                missing[row] = "no label in this row" if cell is None else f"label {cell!r} is outside the {len(names)} class names"
    return Labels(indices=indices, classes=tuple(names), missing=missing)


def _index(cell: Any, count: int) -> int | None:
    return int(cell) if _is_whole(cell) and 0 <= cell < count else None


def _is_whole(cell: Any) -> bool:
    return isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer())
