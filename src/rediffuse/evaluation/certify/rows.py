"""A certificate is a line: the table of the published programs, read and written as they do, a line an image.

idx  label  predict  radius  correct  time      (tabs between)

Reference: the table that arXiv 1902.02918 and arXiv 2206.10550 publish their certificates in.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from rediffuse.errors import DataError
from rediffuse.evaluation.certify.bounds import ABSTAIN
from rediffuse.writing import write_text, writing

COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")
HEADER = "\t".join(COLUMNS) + "\n"
_TIME = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is certain of an image.

    index: place in its set; label: true class; predict: the smoothed classifier's, or ABSTAIN (-1); radius: L2 on [0, 1] images;
    seconds: that it took, all models together that were asked.
    """

    index: int
    label: int
    predict: int
    radius: float
    seconds: float = 0.0

    @property
    def correct(self) -> bool:
        return self.predict == self.label

    def line(self) -> str:
        """With all digits of the radius: three, as published, can round it up."""
        took = timedelta(seconds=self.seconds)
        return f"{self.index}\t{self.label}\t{self.predict}\t{self.radius!r}\t{int(self.correct)}\t{took}\n"


def read_rows(path: str | Path) -> tuple[Certificate, ...]:
    """The certificates of a table, ours or a published one. Raises DataError for a file that is none, with the line."""
    return tuple(parse(Path(path), _text(Path(path))))


def parse(path: Path, text: str) -> list[Certificate]:
    """The certificates of a table's text."""
    lines = text.splitlines()
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise DataError(f"{path} is no table of certificates: its first line must be {' '.join(COLUMNS)}, with tabs between")
    return [_parse(path, number, line) for number, line in enumerate(lines[1:], 2)]


def finished(path: Path, labels: Sequence[int]) -> list[Certificate]:
    """The certificates that a run which may have been killed left for the first images; none where there is no file.

    A line that was being written counts as not written.

    Raises:
        DataError: lines of other images than these, with the first difference.
    """
    if not path.exists():
        return []
    text = _text(path)
    whole = text[: text.rfind("\n") + 1]
    if not whole:
        return []
    rows = parse(path, whole)
    if len(rows) > len(labels):
        raise DataError(f"{path} is of another run: {len(rows)} certificates there, {len(labels)} images here; give another folder")
    for place, (row, label) in enumerate(zip(rows, labels, strict=False)):
        if (row.index, row.label) != (place, label):
            raise DataError(
                f"{path} line {place + 2} is of another run: image {row.index} with label {row.label} there, {place} with {label} here; "
                "remove it, or give another folder"
            )
    return rows


def rewrite(path: Path, rows: Sequence[Certificate]) -> None:
    """The whole table anew, or as it was."""
    write_text(path, HEADER + "".join(row.line() for row in rows))


def append(path: Path, rows: Sequence[Certificate]) -> None:
    """Further lines at the end, on the disk when this returns."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(row.line() for row in rows))
        file.flush()
        os.fsync(file.fileno())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _parse(path: Path, number: int, line: str) -> Certificate:
    cells = line.split("\t")
    try:
        index, label, predict = (int(cell) for cell in cells[:3])
        row = Certificate(index=index, label=label, predict=predict, radius=float(cells[3]), seconds=_seconds(cells[5]))
        right = int(cells[4])
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} line {number} is no certificate: {line[:60]!r}") from error
    if len(cells) != len(COLUMNS) or right != row.correct or predict < ABSTAIN or not (math.isfinite(row.radius) and row.radius >= 0):
        raise DataError(f"{path} line {number} contradicts itself: {line[:60]!r}")
    return row


def _seconds(text: str) -> float:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no time: {text!r}")
    days, hours, minutes, seconds = found.groups()
    return timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds)).total_seconds()
