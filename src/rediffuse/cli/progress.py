"""Bars for work over two seconds: what, how far, how fast, how long still. Off a terminal: a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rediffuse.cli.terminal import duration, err

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[int, int], None]
"""Called with (done, in all), as every room of the library does."""

AFTER = 2.0
"""Seconds before which nothing is shown."""
LINES_EVERY = 10.0
"""Seconds between two lines off a terminal."""


class Meter:
    """How fast work goes, from counts and a clock. What an earlier life had done already does not count as speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self._first: tuple[float, int] | None = None
        self.done, self.total = 0, 0

    def count(self, done: int, total: int) -> None:
        """Take a new count; one that falls, or another total, is a new piece of work."""
        if self._first is None or done < self.done or total != self.total:
            # The first piece may be reported after it is done; a larger count is where an interrupted run stood.
            now = self._clock()
            self._first = (self.began if self._first is None else now, 0) if done <= 1 else (now, done)
        self.done, self.total = done, total

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return self._clock() - self.began

    @property
    def rate(self) -> float | None:
        """Pieces a second; None before anything is known."""
        if self._first is None:
            return None
        since, before = self._first
        seconds, gained = self._clock() - since, self.done - before
        return gained / seconds if gained > 0 and seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at this rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self, what: str, unit: str) -> str:
        """`generating: 120 of 600 images, 8.1/s, 1 min left`."""
        words = f"{what}: {self.done:,} of {self.total:,} {unit}"
        if self.rate is not None and self.left is not None:
            words += f", {pace(self.rate)}"
            words += f", {duration(self.left)} left" if self.done < self.total else f", {duration(self.seconds)}"
        return words


def pace(rate: float) -> str:
    """`8.1/s`, or where that is slow `14/min` and `9.0/h`."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            value = rate * seconds
            return f"{value:.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"
    return f"{rate * 3600:.1f}/h"


@contextmanager
def bar(what: str, unit: str = "images", *, quiet: bool = False) -> Iterator[Report]:
    """Show how a piece of work goes while the context lasts.

    Args:
        what: the work, such as `generating`.
        unit: what is counted, in the plural.
        quiet: show nothing.
    Yields:
        a function to be called with (done, in all); it may be called as often as one likes.
    """
    if quiet:
        yield lambda done, total: None
        return
    console = err()
    shown: _Bar | _Lines = _Bar(console, what, unit) if console.is_terminal else _Lines(console, what, unit)
    try:
        yield shown.report
    finally:
        shown.close()


class _Bar:
    def __init__(self, console: Console, what: str, unit: str) -> None:
        self._console, self._what, self._unit = console, what, unit
        self._meter = Meter()
        self._drawn: Any = None
        self._task: Any = None

    def report(self, done: int, total: int) -> None:
        self._meter.count(done, total)
        if self._drawn is None and self._meter.seconds > AFTER and done < total:
            self._open()
        if self._drawn is not None:
            self._drawn.update(self._task, completed=done, total=total, tail=self._tail())

    def _tail(self) -> str:
        meter = self._meter
        if meter.rate is None or meter.left is None:
            return ""
        return f"{pace(meter.rate)}  {duration(meter.left)} left" if meter.done < meter.total else pace(meter.rate)

    def _open(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        count = TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + self._unit, markup=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=32),
            count,
            TextColumn("{task.fields[tail]}", markup=False),
        )
        self._drawn = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
        self._drawn.start()
        self._task = self._drawn.add_task(self._what, total=self._meter.total, tail="")

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.stop()
            self._console.print(self._meter.line(self._what, self._unit), style="dim")


class _Lines:
    def __init__(self, console: Console, what: str, unit: str) -> None:
        self._console, self._what, self._unit = console, what, unit
        self._meter = Meter()
        self._last = 0.0
        self._said = -1

    def report(self, done: int, total: int) -> None:
        self._meter.count(done, total)
        seconds = self._meter.seconds
        if seconds > AFTER and seconds - self._last > LINES_EVERY and done < total:
            self._last = seconds
            self._say()

    def _say(self) -> None:
        self._said = self._meter.done
        self._console.print(self._meter.line(self._what, self._unit), soft_wrap=True)

    def close(self) -> None:
        if self._meter.seconds > AFTER and self._meter.total and self._said != self._meter.done:
            self._say()
