"""Stops that wait: what is kept before Ctrl-C or TERM end long work, and when it is kept without one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rediffuse import interrupt
from rediffuse.interrupt import Interrupt, Keeping

pytestmark = pytest.mark.usefixtures("ctrl_c")


def work(keeping: Keeping, steps: int, at: Callable[[int], object] = lambda _: None) -> None:
    with keeping:
        for step in range(1, steps + 1):
            at(step)
            keeping.after(step)


def test_steps_and_the_last_one_are_kept() -> None:
    kept: list[int] = []
    work(Keeping(kept.append, 3, 8), 8)
    assert kept == [3, 6, 8]


def test_ctrl_c_waits_for_the_step_and_is_kept() -> None:
    kept: list[int] = []
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work(Keeping(kept.append, 100, 9, said.append), 9, lambda step: step == 5 and signal.raise_signal(signal.SIGINT))
    assert kept == [5]
    assert said == ["stopping after this step; Ctrl-C again stops at once"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_term_says_how_it_goes_on_before_it_ends_the_process() -> None:
    """In a process of its own, which the signal ends as it would have at once."""
    lines = (
        "import signal",
        "from rediffuse.interrupt import Keeping",
        "with Keeping(lambda step: print('kept', step, flush=True), 100, 9, lambda text: print(text, flush=True)) as keeping:",
        "    for step in range(1, 10):",
        "        signal.raise_signal(signal.SIGTERM) if step == 4 else None",
        "        keeping.after(step)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.splitlines() == ["stopping after this step; the same command continues from there", "kept 4"]


def test_a_second_ctrl_c_stops_at_once() -> None:
    kept: list[int] = []

    def twice(step: int) -> None:
        for _ in range(2 * (step == 2)):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work(Keeping(kept.append, 100, 9), 9, twice)
    assert kept == []


def test_nothing_waits_where_nothing_is_kept() -> None:
    done: list[int] = []

    def press(step: int) -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(step)

    with pytest.raises(KeyboardInterrupt):
        work(Keeping(None, 1, 9), 9, press)
    assert done == []


def test_a_minute_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept = [0.0], []
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])

    def keep(step: int) -> None:
        kept.append(step)
        now[0] += 10.0 * (step == 3)  # which takes long once, and is done less often then

    def pass_time(_: int) -> None:
        now[0] += 25.0

    work(Keeping(keep, 1000, 20), 20, pass_time)
    assert kept == [3, 11, 14, 17, 20]


def test_all_processes_stop_where_one_was_told() -> None:
    kept: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        work(Keeping(kept.append, 100, 9, agree=lambda _: interrupt._STOP if len(kept) == 0 else 0), 9)
    assert kept == [1]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_term_that_ends_nothing_is_left_alone(handler: object) -> None:
    before = signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    try:
        with Interrupt(signals=(signal.SIGTERM,)) as stop:
            assert signal.getsignal(signal.SIGTERM) is handler
            signal.raise_signal(signal.SIGTERM)
            stop.check()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_term_ends_the_process_after_the_step(tmp_path: Path) -> None:
    program = f"""
import signal
from pathlib import Path
from rediffuse.interrupt import Keeping
with Keeping(lambda step: Path({str(tmp_path / "state")!r}).write_text(str(step)), 100, 9) as keeping:
    for step in range(1, 10):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        keeping.after(step)
"""
    source = str(Path(interrupt.__file__).parents[1])
    ended = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"}, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert (tmp_path / "state").read_text() == "4"
