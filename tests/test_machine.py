"""What is asked of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rediffuse import machine


def test_threads_follow_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert (machine.usable_cores(), machine.coding_threads()) == (cores, threads)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert (machine.usable_cores(), machine.coding_threads()) == (1, 1)


X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 avx2_like

processor\t: 1
model\t\t: 99
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("listing", "name", "numbers", "sets"),
    [
        (X86, "AMD EPYC", ["AuthenticAMD", "25", "17"], ["avx2", "avx512f", "avx512_bf16"]),
        (ARM, "aarch64", ["0x41", "0xd40"], ["asimd", "bf16"]),
        (None, "aarch64", [], []),
    ],
)
def test_the_processor_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listing: str | None, name: str, numbers: list[str], sets: list[str]
) -> None:
    """As Linux lists the first of its cores; where it has no list, as Python does."""
    if listing is not None:
        (tmp_path / "cpuinfo").write_text(listing)
    monkeypatch.setattr(machine, "_LISTING", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert (machine.processor(), machine.processor_numbers(), machine.instruction_sets()) == (name, numbers, sets)


@pytest.mark.parametrize(
    ("listing", "told", "amd"),
    [
        (X86, "", True),
        (X86.replace("AuthenticAMD", "GenuineIntel"), "", False),
        (ARM, "", False),
        (None, "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", True),
        (None, "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", False),
    ],
)
def test_the_maker_of_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listing: str | None, told: str, amd: bool) -> None:
    if listing is not None:
        (tmp_path / "cpuinfo").write_text(listing)
    monkeypatch.setattr(machine, "_LISTING", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine.platform, "processor", lambda: told)
    assert machine.is_amd() is amd


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
