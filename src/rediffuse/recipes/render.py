"""The tables of README and docs, drawn from the files under results/.

    python -m rediffuse.recipes.render README.md docs/*.md
    python -m rediffuse.recipes.render --check README.md

A page holds pairs of markers; what stands between them is replaced, everything else is left alone:

    <!-- results:NAME VIEW OPTIONS --> ... <!-- /results -->

NAME is a file of the results folder without its ending, or a pattern such as compare_*. VIEW is one of
    headline   the quoted figures with their intervals (left out, this one is meant)
    rows       the full table; KEY=VALUE takes the rows that hold it, columns=a,b,c those columns in that order, of the rows that have an a
    grid       one figure of the table: down=KEY a line, across=KEY a column, value=KEY; other KEY=VALUE take rows, as above
    gains      of comparisons: one line a set and level, what the method gains over each baseline, and the verdict
A note that begins in bold stands above the table, the others below it.
With --check nothing is written and a page that is not up to date is an error. Seconds, on any machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rediffuse.errors import ConfigError, DataError, RediffuseError
from rediffuse.evaluation.results import Figure, Result, read_result, render_table
from rediffuse.evaluation.statistics import Interval, verdict
from rediffuse.progress import duration
from rediffuse.writing import write_text

BLOCK = re.compile(r"(?P<open><!--[ ]results:(?P<spec>[^\n]*?)[ ]-->)(?P<body>.*?)(?P<close><!--[ ]/results[ ]-->)", re.DOTALL)
MARK = re.compile(r"<!--\s*/?\s*results\b")
POINTS = re.compile(r"(?!(ece|adaptive_ece|brier|nll)_)(?!.*kept)(.*_)?(gain5?|change)(_.*)?")
"""Keys of differences of which more is better, as shares; what a cheaper way keeps is a part of another figure."""
SEEDS, UNKNOWN_BASIS = "seeds", ("", "none")
LEVELS = {"scratch": "scratch", "forty": "forty", "resnet64": "resnet-64"}  # end of a headline key -> as the level is called
BASELINES = {"gain_over_standard_": "over standard", "gain_over_real_guidance_": "over real guidance"}


def render_page(text: str, results: Sequence[Result]) -> str:
    """The page with every block drawn anew.

    Args:
        text: Markdown with markers.
        results: everything that markers may name.
    Raises:
        DataError: a marker names no result, or a marker without its other half.
        ConfigError: an unknown view or option.
    """
    blocks = list(BLOCK.finditer(text))
    if 2 * len(blocks) != len(MARK.findall(text)):
        raise DataError("a results marker lacks its other half; write <!-- results:NAME --> and <!-- /results -->, each on a line alone")
    return BLOCK.sub(lambda block: f"{block['open']}\n{_block(block['spec'], results)}\n{block['close']}", text)


def _block(spec: str, results: Sequence[Result]) -> str:
    name, *options = spec.split()
    view = options.pop(0) if options and "=" not in options[0] else "headline"
    if view not in VIEWS:
        raise ConfigError(f"unknown view {view!r} in the marker results:{spec}; choose one of {', '.join(VIEWS)}")
    found = sorted((result for result in results if fnmatchcase(result.name, name)), key=lambda result: result.name)
    if not found:
        known = ", ".join(sorted(result.name for result in results)) or "nothing"
        raise DataError(f"the marker results:{spec} names no result; there is {known}. Run the experiment, or take the marker out")
    pairs = dict(_pair(option, spec) for option in options)
    notes = dict.fromkeys(_told(note, found) for result in found for note in result.notes)
    above, below = ([note for note in notes if note.startswith("**") is heads] for heads in (True, False))
    lines = [*(f"{note}  " for note in below), *(_origin(result) for result in found)]  # two blanks: a line of its own
    return "".join(f"{note}\n\n" for note in above) + f"{VIEWS[view](found, pairs)}\n\n" + "\n".join(lines)


def _told(note: str, results: Sequence[Result]) -> str:
    """A note, with the names of those that it is about where it is not about all of them."""
    own = [result.name for result in results if note in result.notes]
    return note if len(own) == len(results) else f"{', '.join(own)}: {note}"


def _pair(option: str, spec: str) -> tuple[str, str]:
    key, sign, value = option.partition("=")
    if not (key and sign and value):
        raise ConfigError(f"options of a marker are KEY=VALUE, got {option!r} in results:{spec}")
    return key, value


def _headline(results: Sequence[Result], options: Mapping[str, str]) -> str:
    _no_options("headline", options)
    many = len(results) > 1
    rows = [
        {**({"result": result.name} if many else {}), "figure": key, **_said(key, figure)}
        for result in results
        for key, figure in result.headline.items()
    ]
    return render_table(rows)


def _said(key: str, figure: Figure) -> dict[str, str]:
    """A figure and its interval as people read them, where its name says what it is."""
    if key.endswith("_seconds"):
        ends = "" if figure.low is None or figure.high is None else f"{duration(figure.low)} to {duration(figure.high)}"
        return {"value": duration(figure.value), "interval": ends}
    if POINTS.fullmatch(key) and figure.low is not None:
        return {"value": f"{100 * figure.value:+.1f} points{_word(figure)}", "interval": _ends(figure, "{:+.1f}", 100)}
    return {"value": f"{figure.value:.4g}", "interval": _ends(figure, "{:.4g}")}


def _rows(results: Sequence[Result], options: Mapping[str, str]) -> str:
    wanted = {key: value for key, value in options.items() if key != "columns"}
    rows = _taken(results, wanted)
    every = list(dict.fromkeys(key for row in rows for key in row if key not in wanted))
    columns = options["columns"].split(",") if "columns" in options else every
    unknown = [column for column in columns if column not in every]
    if unknown:
        raise ConfigError(f"{results[0].name} has no column {unknown[0]!r}; its columns are {', '.join(every)}")
    if "columns" in options:
        rows = [row for row in rows if columns[0] in row]
    return render_table(rows, {column: column.replace("_", " ") for column in columns})


def _taken(results: Sequence[Result], wanted: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The rows that hold all of that. Raises DataError where none does."""
    rows = [row for result in results for row in result.rows if all(str(row.get(key)) == value for key, value in wanted.items())]
    if not rows:
        asked = " and ".join(f"{key}={value}" for key, value in wanted.items())
        raise DataError(f"no row of {results[0].name} has {asked or 'anything in it'}")
    return rows


def _grid(results: Sequence[Result], options: Mapping[str, str]) -> str:
    try:
        down, across, value = (options[key] for key in ("down", "across", "value"))
    except KeyError as error:
        raise ConfigError(f"the view grid takes down=, across= and value=, and lacks {error}") from error
    lines: dict[str, dict[str, Any]] = {}
    for row in _taken(results, {key: wanted for key, wanted in options.items() if key not in ("down", "across", "value")}):
        unknown = [key for key in (down, across, value) if key not in row]
        if unknown:
            raise ConfigError(f"{results[0].name} has a row without {unknown[0]!r}; its columns are {', '.join(row)}")
        line = lines.setdefault(str(row[down]), {down: row[down]})
        if str(row[across]) in line:
            raise ConfigError(
                f"{results[0].name} has several rows of {down} {row[down]} and {across} {row[across]}; take some by KEY=VALUE"
            )
        line[str(row[across])] = row[value]
    return render_table(list(lines.values()))


def _gains(results: Sequence[Result], options: Mapping[str, str]) -> str:
    _no_options("gains", options)
    rows: list[dict[str, Any]] = []
    for result in results:
        for end, level in LEVELS.items():
            figures = {heading: result.headline.get(start + end) for start, heading in BASELINES.items()}
            if any(figures.values()):
                texts = {heading: "" if figure is None else _gain(figure) for heading, figure in figures.items()}
                rows.append({"set": result.name.removeprefix("compare_"), "level": level, **texts})
    if not rows:
        raise DataError(f"{results[0].name} holds no gains (gain_over_standard_LEVEL); the view gains is for comparisons")
    return render_table(rows)


def _gain(figure: Figure) -> str:
    """In points of accuracy, with the verdict in words."""
    ends = _ends(figure, "{:+.1f}", 100)
    return f"{100 * figure.value:+.1f} points{f' ({ends})' if ends else ''}{_word(figure)}"


def _word(figure: Figure) -> str:
    """A verdict on the method, behind a colon; how many trainings there were, where test images alone were drawn again."""
    if figure.basis not in UNKNOWN_BASIS and figure.basis != SEEDS:
        return f", {figure.basis}"
    return f": {verdict(Interval(value=figure.value, low=figure.low, high=figure.high))}"


def _ends(figure: Figure, form: str, scale: float = 1) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{form.format(scale * figure.low)} to {form.format(scale * figure.high)}"


def _no_options(view: str, options: Mapping[str, str]) -> None:
    if options:
        raise ConfigError(f"the view {view} takes no options, got {', '.join(options)}; rows does")


def _origin(result: Result) -> str:
    """Where the figures come from, in one line."""
    cores = result.hardware.get("cores", "?")
    machine = f"{result.hardware.get('processor', '?')}, {cores} core{'' if cores == 1 else 's'}"
    device = str(result.hardware.get("device", "cpu"))
    parts = [
        result.date[:10],
        machine if device == "cpu" else f"{machine}, {device}",
        f"torch {result.hardware.get('torch', '?')}",
        duration(result.seconds),
        f"`{result.command}`",
    ]
    return f"`results/{result.name}.json`: {'; '.join(parts)}.  "


VIEWS: Mapping[str, Callable[[Sequence[Result], Mapping[str, str]], str]] = {
    "headline": _headline,
    "rows": _rows,
    "grid": _grid,
    "gains": _gains,
}


def render_files(pages: Iterable[Path], folder: Path, *, check: bool = False) -> list[Path]:
    """Draw the blocks of these pages anew from `folder`; the pages that changed, or with `check` would change."""
    results = [read_result(file) for file in sorted(folder.glob("*.json"))]
    stale = []
    for page in pages:
        try:
            before = page.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise DataError(f"no page at {page}") from error
        try:
            after = render_page(before, results)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{page}: {error}") from error
        if after != before:
            stale.append(page)
            if not check:
                write_text(page, after)
    return stale


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE.md")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not up to date")
    given = parser.parse_args(arguments)
    try:
        stale = render_files(given.pages, given.results, check=given.check)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    for page in stale:
        print(f"{page} is not up to date: python -m rediffuse.recipes.render {page}" if given.check else f"{page} written")
    return 1 if stale and given.check else 0


if __name__ == "__main__":
    sys.exit(main())
