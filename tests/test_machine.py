"""What is asked of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from rediffuse import machine


def test_threads_follow_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert (machine.usable_cores(), machine.coding_threads()) == (cores, threads)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (machine.usable_cores(), machine.coding_threads()) == (1, 1)


def test_a_library_of_another_name_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LIBRARIES", ("torch", "no-such-library"))
    found = machine.library_versions()
    assert found["torch"]
    assert found["no-such-library"] is None


def test_the_time_is_in_utc_to_the_second() -> None:
    found = datetime.fromisoformat(machine.now())
    assert found.utcoffset() == timedelta()
    assert abs(datetime.now(UTC) - found) < timedelta(seconds=5)


@pytest.mark.skipif(os.name == "nt", reason="no signal 0 there")
def test_the_living_and_the_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not machine.is_alive(process.pid)
    assert not machine.is_alive(10**30)
    assert all(map(machine.is_alive, (os.getpid(), str(os.getppid()), 0, "no number", None)))
