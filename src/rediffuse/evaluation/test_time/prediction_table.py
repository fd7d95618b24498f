"""Predictions as a table that people open: one row a picture, names as data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError
from rediffuse.evaluation.matching import told_apart
from rediffuse.evaluation.test_time.predictions import Predictions
from rediffuse.writing import check_place, whole, write_rows

ENDINGS = (".csv", ".parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First letters by which a spreadsheet takes a cell for a formula."""


def check_table(path: Path) -> None:
    """Raise ConfigError where no table can be written, before the work."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"predictions are written as {' or '.join(ENDINGS)}, got {path.name!r}; give a name with such an ending")
    if path.exists():
        raise ConfigError(f"{path} exists already; give another name, or remove it")
    check_place(path.parent)


def write_table(path: Path, found: Predictions, images: ImageSet, classes: Sequence[str], *, per_class: bool = False) -> Path:
    """Write one row a picture: file, predicted class, its probability; what could not be read comes last, with the reason.

    Further columns: `label` where the set has labels, `asked` where the number of members differs, `p(NAME)` for each class if wanted
    (`p(NAME #3)` for class 3 where several bear one name). In csv a name that a spreadsheet would take for a formula gets a ' before it;
    parquet keeps names as they are.

    Args:
        path: .csv or .parquet; written whole or not at all.
        found: predictions of `images`, in their order.
        classes: of the classifier, in label order.
        per_class: whether to add a column for the probability of each class.
    Returns: the file.
    """
    columns = table_columns(found, images, classes, per_class)
    if path.suffix.lower() == ".parquet":
        write_rows(path, columns)
        return path
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow([plain_text(name) for name in columns])
        for row in zip(*columns.values(), strict=True):
            writer.writerow([plain_text(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in row])
    return path


def table_columns(found: Predictions, images: ImageSet, classes: Sequence[str], per_class: bool) -> dict[str, list[Any]]:
    """Column by name, with None where a picture could not be read."""
    lost = [None] * len(images.rejected)
    columns: dict[str, list[Any]] = {
        "file": [*images.ids, *(line.id for line in images.rejected)],
        "predicted": [*(classes[place] for place in found.predicted.tolist()), *lost],
        "probability": [*_rounded(found.confidence.tolist()), *lost],
    }
    if any(label is not None for label in images.labels):
        columns["label"] = [*(None if label is None else images.classes[label] for label in images.labels), *lost]
    if bool((found.asked != len(found.members)).any()):
        columns["asked"] = [*found.asked.tolist(), *lost]
    if per_class:
        for place, told in enumerate(told_apart(classes)):
            columns[f"p({told})"] = [*_rounded(found.probabilities[:, place].tolist()), *lost]
    if images.rejected:
        columns["problem"] = [*[None] * len(images), *(line.reason for line in images.rejected)]
    return columns


def plain_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula: a ' before the letters that begin one."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
