"""Ctrl-C between two writes, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class Interrupt:
    """While entered, the first Ctrl-C is remembered and raised by `check`; the second one interrupts at once.

    Outside of the main thread it does nothing.

    Args:
        note: called with a sentence for the user.
    """

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        self.asked, self.note = False, note
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt if Ctrl-C was pressed."""
        if self.asked:
            raise KeyboardInterrupt

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.note("stopping after this model call; Ctrl-C again stops at once")
