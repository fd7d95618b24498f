"""Ctrl-C and TERM between two pieces of work, not in the middle of one, and what is kept before they end it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self

KEEP_SECONDS = 60.0
"""After which the state of long work is kept, whatever the number of steps."""
_SHARE = 20
"""Keeping takes at most one part in so many of the time: states of large networks are written less often."""
_LATE, _STOP = 1, 2


class Interrupt:
    """While entered, the first Ctrl-C is remembered and raised by `check`; the second one interrupts at once.

    Outside of the main thread it does nothing, nor with a signal that is ignored, nor with a TERM that the program handles itself.

    Args:
        note: called with a sentence for the user.
        piece: what ends before the stop, for that sentence.
        signals: that are remembered.
    """

    def __init__(
        self, note: Callable[[str], None] = lambda _: None, piece: str = "model call", signals: Sequence[signal.Signals] = (signal.SIGINT,)
    ) -> None:
        self.note, self.piece, self.signals = note, piece, signals
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """Whether there was a signal."""
        return self._number is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                before = signal.getsignal(number)
                if before == signal.SIG_DFL or (number == signal.SIGINT and callable(before)):
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def check(self) -> None:
        """Let the signal that there was do what it would have done at once: raise KeyboardInterrupt, or end the process."""
        if self._number is not None:
            self._deliver(self._number)

    def _deliver(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, self._before[number])
        signal.raise_signal(number)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.asked:
            self._deliver(number)
        self._number = number
        again = "Ctrl-C again stops at once" if number == signal.SIGINT else "the same command continues from there"
        self.note(f"stopping after this {self.piece}; {again}")


class Keeping:
    """When long work keeps its state: every so many steps, after a minute, at the last step, and before a stop.

    While entered, Ctrl-C and TERM wait until the step under way has ended and is kept.

    Args:
        keep: called with the number of steps done; None where nothing is kept, so that a stop has nothing to wait for.
        every: steps from one keeping to the next.
        last: the number of all steps.
        note: called with a sentence for the user.
        agree: of several processes that work together, the largest number that one of them brings; each is asked after every step.
    """

    def __init__(
        self,
        keep: Callable[[int], None] | None,
        every: int,
        last: int,
        note: Callable[[str], None] = lambda _: None,
        agree: Callable[[int], int] = int,
    ) -> None:
        self.keep, self.every, self.last, self.agree = keep, every, last, agree
        self._interrupt = Interrupt(note, "step", () if keep is None else (signal.SIGINT, signal.SIGTERM))
        self._kept, self._took = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        self._interrupt.__enter__()
        self._kept = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self._interrupt.__exit__(*error)

    def after(self, step: int) -> None:
        """To be called after every step, with the number of steps done. Raises KeyboardInterrupt where a stop was asked for."""
        if self.keep is None:
            return
        late = time.monotonic() - self._kept >= max(KEEP_SECONDS, _SHARE * self._took)
        said = self.agree(_STOP if self._interrupt.asked else _LATE if late else 0)
        if said or step % self.every == 0 or step == self.last:
            began = time.monotonic()
            self.keep(step)
            self._kept = time.monotonic()
            self._took = self._kept - began
        if said == _STOP:
            self._interrupt.check()
            raise KeyboardInterrupt  # another process was stopped
