"""What benchmarks share: fair turns, paired ratios, a result or an error that says why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks.common import Measured, headline, options, ratio, run, turns

from rediffuse.errors import DataError
from rediffuse.evaluation.results import Figure

BENCHMARKS = ("agreement", "certify", "corruptions", "diffaug", "evaluate", "generate", "inversion", "precision")


def test_each_repeat_begins_with_another_arm() -> None:
    now, called = [0.0], []

    def arm(name: str, seconds: float) -> Callable[[], str]:
        def call() -> str:
            called.append(name)
            now[0] += seconds * len(called)  # a machine that slows down
            return f"{name} {len(called)}"

        return call

    seconds, given = turns({"one": arm("one", 1), "two": arm("two", 2), "three": arm("three", 0)}, 2, clock=lambda: now[0])
    assert called == ["one", "two", "three", "two", "three", "one"]
    assert seconds == {"one": [1, 6], "two": [4, 8], "three": [0, 0]}
    assert given == {"one": "one 6", "two": "two 4", "three": "three 5"}


def test_a_ratio_pairs_the_repeats() -> None:
    figure = ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])
    assert (figure.value, figure.low, figure.high) == (3.0, 2.0, 4.0)


def test_a_line_of_the_headline_has_its_ends_where_they_are_known() -> None:
    assert headline("speed", Figure(value=2, low=1.5, high=3)) == "speed: 2 (1.5 to 3)"
    assert headline("speed", Figure(value=2)) == headline("speed", 2.0) == "speed: 2"


def test_a_run_ends_in_a_file_or_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def benchmark(given: argparse.Namespace) -> Measured:
        return Measured(name="bench_nothing", headline={"speed": 2.0}, rows=[{"repeats": given.repeats}], notes=["none"])

    def broken(given: argparse.Namespace) -> Measured:
        raise DataError("no pictures")

    assert run("nothing", benchmark, options("doc", repeats=3), ["--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench_nothing.json").read_text())
    assert (result["rows"], result["notes"]) == ([{"repeats": 3}], ["none"])
    assert result["command"] == f"python -m benchmarks.nothing --out {tmp_path.name}"
    assert "speed: 2\n" in capsys.readouterr().out
    assert run("nothing", broken, options("doc"), []) == 2
    assert capsys.readouterr().err == "no pictures\n"
    assert run("nothing", benchmark, options("doc", repeats=3), ["--repeats", "0"]) == 2
    assert "repeats must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_says_how_it_is_called(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        import_module(f"benchmarks.{name}").main(["--help"])
    told = capsys.readouterr().out
    assert left.value.code == 0
    assert f"python -m benchmarks.{name}" in told
    assert "--out" in told
