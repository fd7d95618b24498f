"""One writer and one reader of `results/NAME.json`: every figure that is quoted anywhere has such a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.provenance import command_line, commit, hardware
from rediffuse.evaluation.statistics import Interval
from rediffuse.machine import now
from rediffuse.writing import write_json


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A quoted figure; the interval is None where there is none.

    basis: what the interval is over, as in `statistics.Interval`; "" where the file does not say.
    """

    value: float
    low: float | None = None
    high: float | None = None
    basis: str = ""

    @classmethod
    def of(cls, interval: Interval) -> Figure:
        return cls(value=interval.value, low=interval.low, high=interval.high, basis=interval.basis)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an experiment found, and all that it takes to find it again.

    Attributes:
        name: file name without ending.
        headline: the figures that are quoted.
        rows: the full table, one mapping a row.
        command: what was typed.
        commit: of the code; "+changes" behind it when the working tree differed, "" outside a checkout.
        date: UTC, ISO 8601.
        hardware: processor, cores, instruction_sets, device, torch.
        seconds: wall time.
    """

    name: str
    headline: Mapping[str, Figure]
    rows: Sequence[Mapping[str, Any]]
    command: str
    commit: str
    date: str
    hardware: Mapping[str, Any]
    seconds: float
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "command": self.command,
            "commit": self.commit,
            "date": self.date,
            "hardware": dict(self.hardware),
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
            "headline": {key: asdict(figure) for key, figure in self.headline.items()},
            "rows": [dict(row) for row in self.rows],
        }


def write_result(
    name: str,
    headline: Mapping[str, Figure | Interval | float],
    rows: Sequence[Mapping[str, Any]],
    seconds: float,
    *,
    command: str | None = None,
    folder: str | Path = "results",
    device: str = "cpu",
    notes: Sequence[str] = (),
) -> Path:
    """Write `folder/NAME.json`, whole or not at all.

    Args:
        name: as in the table of figures, such as `compare_eurosat`.
        headline: key to figure; an Interval gives its ends, a number none.
        rows: the full table.
        seconds: wall time of the experiment.
        command: what was typed; None takes it from this process.
        folder: where results lie.
        device: that did the work.
        notes: limits that belong to the figures.
    Returns:
        The file.
    """
    figures = {key: _figure(value) for key, value in headline.items()}
    result = Result(
        name=name,
        headline=figures,
        rows=rows,
        command=command_line() if command is None else command,
        commit=commit(),
        date=now(),
        hardware=hardware(device),
        seconds=seconds,
        notes=tuple(notes),
    )
    return save_result(result, folder)


def save_result(result: Result, folder: str | Path = "results") -> Path:
    """Write a result that is complete already, such as a comparison's; returns the file."""
    name = result.name
    if not name or any(letter in name for letter in "/\\\0") or name.startswith("."):
        raise ConfigError(f"a result is named like compare_eurosat, without slashes, got {name!r}")
    path = Path(folder) / f"{name}.json"
    write_json(path, result.to_json())
    return path


def read_result(path: str | Path) -> Result:
    """Read what `write_result` wrote. Raises DataError for a missing or foreign file, by name."""
    source = Path(path)
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
        return Result(
            name=values.get("name", source.stem),
            headline={key: Figure(**figure) for key, figure in values["headline"].items()},
            rows=values["rows"],
            command=values["command"],
            commit=values["commit"],
            date=values["date"],
            hardware=values["hardware"],
            seconds=values["seconds"],
            notes=tuple(values.get("notes", ())),
        )
    except FileNotFoundError as error:
        raise DataError(f"no result at {source}; run the experiment that writes it, or give another file") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{source} is not a result file: {type(error).__name__}: {error}") from error


def render_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | Mapping[str, str] | None = None) -> str:
    """Rows as a Markdown table. Numbers are right-aligned; a bar in a cell is escaped.

    Args:
        rows: one mapping a row; a missing cell is left empty.
        columns: keys in their order, or key to heading; None takes all keys, in the order in which they first come.
    """
    if columns is None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
    headings = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
    numeric = {key: all(isinstance(row.get(key), int | float | None) for row in rows) for key in headings}
    lines = [
        "| " + " | ".join(_cell(text) for text in headings.values()) + " |",
        "|" + "|".join("---:" if numeric[key] else "---" for key in headings) + "|",
    ]
    lines += ["| " + " | ".join(_cell(row.get(key)) for key in headings) + " |" for row in rows]
    return "\n".join(lines)


def render_headline(result: Result) -> str:
    """The quoted figures of a result as a Markdown table: key, value, 95 % interval."""
    rows = []
    for key, figure in result.headline.items():
        known = figure.low is not None and figure.high is not None
        rows.append({"figure": key, "value": figure.value, "95 % interval": f"{figure.low:.4g} to {figure.high:.4g}" if known else ""})
    return render_table(rows)


def _figure(value: Figure | Interval | float) -> Figure:
    if isinstance(value, Interval):
        return Figure.of(value)
    return value if isinstance(value, Figure) else Figure(value=float(value))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
        return ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
