"""Rates and times left from counts and a clock that the test turns; what is written off a terminal."""

from __future__ import annotations

import pytest

from rediffuse.cli import progress
from rediffuse.cli.progress import Meter, bar, pace
from rediffuse.cli.terminal import duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert (meter.rate, meter.left) == (None, None)
    clock.now += 4
    meter.count(20, 100)
    meter.count(20, 100)
    assert meter.line("x", "images") == "x: 20 of 100 images"  # a first report of 20 may be work of an earlier life
    clock.now += 4
    meter.count(60, 100)
    assert meter.rate == pytest.approx(40 / 4)
    assert meter.left == pytest.approx(4)
    assert meter.line("x", "images") == "x: 60 of 100 images, 10/s, 4.0 s left"
    clock.now += 4
    meter.count(100, 100)
    assert meter.line("x", "images") == "x: 100 of 100 images, 10/s, 12 s"


def test_a_resumed_count_is_no_speed() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.count(900, 1000)
    clock.now += 10
    meter.count(910, 1000)
    assert meter.rate == pytest.approx(1)
    assert meter.left == pytest.approx(90)


def test_a_new_stage_starts_afresh() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.count(1, 10)
    clock.now += 5
    meter.count(10, 10)
    meter.count(1, 4)
    clock.now += 1
    meter.count(2, 4)
    assert meter.total == 4
    assert meter.rate == pytest.approx(2)


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


def test_nothing_is_said_of_short_work(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("reading", "photos") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")


def test_long_work_leaves_plain_lines_on_standard_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", -1.0)
    monkeypatch.setattr(progress, "LINES_EVERY", 0.0)
    with bar("reading [bold]a[/]", "photos") as report:
        report(1, 3)
        report(3, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("reading [bold]a[/]: 1 of 3 photos")
    assert err.splitlines()[-1].startswith("reading [bold]a[/]: 3 of 3 photos")


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "AFTER", -1.0)
    with bar("reading", quiet=True) as report:
        report(3, 3)
    assert capsys.readouterr() == ("", "")
