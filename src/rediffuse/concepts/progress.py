"""A bar on the standard error stream for work over two seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

DELAY = 2.0


class Bar:
    """Counts samples; shows the rate and the time left once the work has lasted two seconds.

    Use it as a context; `stage` names what is done now and how many samples that is.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._began = time.monotonic()
        self._progress: Any = None
        self._task: Any = None
        self._title, self._total, self._done = "", 0, 0

    def stage(self, title: str, total: int, done: int = 0) -> None:
        """Begin a piece of work of `total` samples, `done` of which lie behind."""
        self._title, self._total, self._done = title, total, done
        if self._progress is not None:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(title, total=total, completed=done)

    def advance(self, samples: int) -> None:
        """Count samples that are done."""
        self._done += samples
        if self._progress is not None:
            self._progress.advance(self._task, samples)
        elif self._shown and time.monotonic() - self._began > DELAY:
            self._open()

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text("" if task.speed is None else f"{task.speed:.1f} samples/s")

        title, left = TextColumn("{task.description}", markup=False), TextColumn("left")
        columns = (title, BarColumn(), MofNCompleteColumn(), Rate(), left, TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task(self._title, total=self._total, completed=self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()
