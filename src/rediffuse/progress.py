"""How far work is: a bar on the standard error stream for what lasts over two seconds; off a terminal a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

AFTER = 2.0
"""Seconds of work before which nothing is shown."""
LINES_EVERY = 15.0
"""Seconds between two lines off a terminal."""


def duration(seconds: float) -> str:
    """Seconds in the units that people use: `8.0 s`, `1 min 40 s`, `2 h 5 min`, `3 days`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    for small, large, size in (("s", "min", 1), ("min", "h", 60)):
        whole, rest = divmod(round(seconds / size), 60)
        if whole < (60 if large == "min" else 48):
            return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
    days = seconds / 86400
    return f"{days:.0f} days" if days < 730 else f"{days / 365.25:.0f} years"


def roughly(seconds: float) -> str:
    """An estimate, no finer than it is known: `40 s`, `7 min`, `3.4 h`, `3 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else duration(seconds)


def counted(number: int, what: str, several: str | None = None) -> str:
    """A number and what it counts, which takes an s unless `several` is given: `1 file`, `2,000 files`, `2 copies`."""
    return f"{number:,} {what if number == 1 else several or what + 's'}"


def are(number: int) -> str:
    """`is` of one, `are` of any other number."""
    return "is" if number == 1 else "are"


def pace(rate: float) -> str:
    """A rate a second: `8.1/s`; where that is slow `14/min` or `9.0/h`."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            value = rate * seconds
            return f"{value:.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"
    return f"{rate * 3600:.1f}/h"


def notes(shown: bool) -> Callable[[str], None]:
    """Prints sentences for the user on the standard error stream, or keeps silent."""
    return (lambda text: print(text, file=sys.stderr, flush=True)) if shown else (lambda _: None)


class Meter:
    """How fast a piece of work goes, from counts and a clock; what an earlier life had done is no speed.

    Args:
        total: pieces in all; 0 where that is known with the first count only.
        done: pieces that lie behind already.
        clock: seconds.
    """

    def __init__(self, total: int = 0, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began, self._before = clock, clock(), done
        self._first: tuple[float, int] | None = None  # from when and from how many on the speed counts
        self.total, self.done = total, done

    def count(self, done: int, total: int) -> None:
        """Take a new count. A first one above 1, of work whose total was not known, is what an earlier life had done."""
        if not self.total and done > 1:
            self._began, self._before = self._clock(), done
        if self._first is None and done > self._before:  # a single first piece is a warm-up; of several it is a small part
            self._first = (self._clock(), done) if done == self._before + 1 else (self._began, self._before)
        self.done, self.total = done, total

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return self._clock() - self._began

    @property
    def rate(self) -> float | None:
        """Pieces a second, a slow first one left out until all are done; None before anything is known."""
        if self._first is None:
            return None
        (began, before), now = self._first, self._clock()
        if self.done == self.total:  # beside the time of all stands the rate of all
            began, before = self._began, self._before
        return (self.done - before) / (now - began) if now > began and self.done > before else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def tail(self) -> str:
        """`8.1/s, 62 s left`; at the end how long it took."""
        if self.rate is None or self.left is None:
            return ""
        return f"{pace(self.rate)}, " + (f"{roughly(self.left)} left" if self.done < self.total else duration(self.seconds))

    def line(self, title: str, unit: str) -> str:
        """`making images: 120 of 600 steps, 8.1/s, 59 s left`."""
        tail = self.tail()
        return f"{title}: {self.done:,} of {self.total:,} {unit}" + (f", {tail}" if tail else "")


class Bar:
    """Shows stages of work: `with Bar() as bar: bar.stage("reading", 10); bar.advance(1)`.

    Args:
        shown: False shows nothing.
        unit: what is counted, in the plural.
    """

    def __init__(self, shown: bool = True, unit: str = "samples") -> None:
        self._shown, self._unit = shown, unit
        self._title, self._meter = "", Meter()
        self._drawn: Any = None
        self._task: Any = None
        self._said = (0.0, -1)  # seconds and count of the last line

    def stage(self, title: str, total: int = 0, done: int = 0) -> None:
        """Begin a piece of work of `total` pieces, `done` of which lie behind; 0 where `report` will say how many there are."""
        self._end()
        self._title, self._meter, self._said = title, Meter(total, done), (0.0, -1)

    def advance(self, pieces: int) -> None:
        """Count pieces that are done."""
        self.report(self._meter.done + pieces, self._meter.total)

    def report(self, done: int, total: int) -> None:
        """Give the count itself, as a callback of (done, in all)."""
        meter = self._meter
        meter.count(done, total)
        if not self._shown or meter.seconds < AFTER:
            return
        if sys.stderr.isatty():
            self._draw()
        elif done < total and meter.seconds - self._said[0] >= (LINES_EVERY if self._said[1] >= 0 else 0.0):
            self._say()

    def _draw(self) -> None:
        if self._drawn is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            texts = (TextColumn("{task.fields[count]}", markup=False), TextColumn("{task.fields[tail]}", markup=False))
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=32), *texts)
            self._drawn = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
            self._drawn.start()
            self._task = self._drawn.add_task(self._title, count="", tail="")
        meter = self._meter
        count = f"{meter.done:,} of {meter.total:,} {self._unit}"
        self._drawn.update(self._task, completed=meter.done, total=meter.total, count=count, tail=meter.tail())

    def _say(self) -> None:
        self._said = (self._meter.seconds, self._meter.done)
        print(self._meter.line(self._title, self._unit), file=sys.stderr, flush=True)

    def _end(self) -> None:
        """Take the bar away and leave a line of work that lasted."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None
        meter = self._meter
        if self._shown and meter.total and meter.seconds >= AFTER and self._said[1] != meter.done:
            self._say()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._meter = Meter()
