"""Rates and times left from counts and a clock that the test turns; what is written where."""

from __future__ import annotations

import pytest

from rediffuse import progress
from rediffuse.progress import Bar, Meter, are, counted, duration, pace, roughly


def test_one_of_a_thing_is_no_plural() -> None:
    assert [counted(number, "file") for number in (0, 1, 2, 2000)] == ["0 files", "1 file", "2 files", "2,000 files"]
    assert [f"{counted(number, 'copy', 'copies')} {are(number)}" for number in (0, 1, 2)] == ["0 copies are", "1 copy is", "2 copies are"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left() -> None:
    clock = Clock()
    meter = Meter(100, clock=clock)
    assert (meter.rate, meter.left) == (None, None)
    assert meter.line("x", "images") == "x: 0 of 100 images"
    clock.now += 4
    meter.count(40, 100)
    assert meter.rate == pytest.approx(10)
    assert meter.left == pytest.approx(6)
    assert meter.line("x", "images") == "x: 40 of 100 images, 10/s, 6 s left"
    clock.now += 8
    meter.count(100, 100)
    assert meter.line("x", "images") == "x: 100 of 100 images, 8.3/s, 12 s"


def test_a_first_step_that_warms_up_is_no_speed() -> None:
    """The first step of a training takes seconds, and the four hundred after it a tenth each."""
    clock = Clock()
    meter = Meter(401, clock=clock)
    clock.now += 6
    meter.count(1, 401)
    assert meter.line("x", "steps") == "x: 1 of 401 steps"
    clock.now += 10
    meter.count(101, 401)
    assert meter.line("x", "steps") == "x: 101 of 401 steps, 10/s, 30 s left"
    only = Meter(1, clock=clock)
    clock.now += 2
    only.count(1, 1)
    assert only.line("x", "steps") == "x: 1 of 1 steps, 30/min, 2.0 s"


def test_at_the_end_the_rate_is_of_the_same_time_that_stands_beside_it() -> None:
    """A slow first piece is in both, then."""
    clock = Clock()
    meter = Meter(37, clock=clock)
    clock.now += 6
    meter.count(1, 37)
    clock.now += 1
    meter.count(36, 37)
    assert meter.tail() == "35/s, 1 s left"
    clock.now += 0.4
    meter.count(37, 37)
    assert meter.line("reading", "images") == "reading: 37 of 37 images, 5.0/s, 7.4 s"


@pytest.mark.parametrize("known", [True, False])
def test_what_an_earlier_life_had_done_is_no_speed(known: bool) -> None:
    clock = Clock()
    meter = Meter(1000, 900, clock) if known else Meter(clock=clock)
    if not known:
        clock.now += 5  # before the total is known
        meter.count(900, 1000)
    clock.now += 10
    meter.count(910, 1000)
    assert meter.rate == pytest.approx(1)
    assert meter.left == pytest.approx(90)


@pytest.mark.parametrize(("rate", "words"), [(120.4, "120/s"), (8.123, "8.1/s"), (0.5, "30/min"), (1 / 40, "1.5/min"), (1 / 400, "9.0/h")])
def test_pace_in_the_unit_that_fits(rate: float, words: str) -> None:
    assert pace(rate) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1.25, "1.2 s"),
        (9.97, "10 s"),
        (42.4, "42 s"),
        (59.7, "1 min"),
        (100, "1 min 40 s"),
        (3599.8, "1 h"),
        (7500, "2 h 5 min"),
        (4e5, "5 days"),
        (2e9, "63 years"),
    ],
)
def test_duration_in_the_units_that_people_use(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (2880, "48 min"), (5400, "1.5 h"), (100000, "27.8 h"), (4e5, "5 days")],
)
def test_estimates_are_no_finer_than_they_are_known(seconds: float, words: str) -> None:
    assert roughly(seconds) == words


def work(bar: Bar) -> None:
    bar.stage("reading [bold]a[/]", 3)
    for _ in range(3):
        bar.advance(1)


def test_nothing_is_said_of_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        work(bar)
    assert capsys.readouterr() == ("", "")


def test_long_work_leaves_plain_lines_on_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.0)
    with Bar(unit="photos") as bar:
        work(bar)
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first.startswith("reading [bold]a[/]: 1 of 3 photos")
    assert last.startswith("reading [bold]a[/]: 3 of 3 photos, ")


def test_each_stage_has_its_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr(progress, "LINES_EVERY", 1e9)
    with Bar() as bar:
        bar.stage("first")
        bar.report(2, 2)
        bar.stage("second")
        bar.report(5, 5)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["first", "second"]


def test_hidden_is_hidden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.0)
    with Bar(False) as bar:
        work(bar)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_that_goes_away(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Bar(unit="photos") as bar:
        work(bar)
        assert bar._drawn is not None
    err = capsys.readouterr().err
    assert "━" in err
    assert err.splitlines()[-1].endswith("reading [bold]a[/]: 3 of 3 photos, " + err.splitlines()[-1].rpartition("photos, ")[2])
