"""One writer: who holds the lock, whose death frees it, who may take it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.generation.conftest import CLASSES, Make, Varied, mixture, pixels
from tests.generation.takers import take

from rediffuse.errors import PlanError
from rediffuse.lock import Lock


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def held(path: Path, **owner: object) -> Path:
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid(), "time": "2026-01-01T00:00:00+00:00"} | owner))
    return path


def test_a_lock_is_held_and_released(tmp_path: Path):
    path = tmp_path / "run.lock"
    with Lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(PlanError, match=rf"being written by process {os.getpid()} on {socket.gethostname()} since 20.*add --take-over"):
            Lock(path).__enter__()
    assert not path.exists()


def test_a_living_process_and_another_machine_keep_theirs(tmp_path: Path):
    for owner in ({}, {"host": "elsewhere", "pid": dead_process()}):
        path = held(tmp_path / "run.lock", **owner)
        before = path.read_text()
        with pytest.raises(PlanError, match="wait for it"):
            Lock(path).__enter__()
        assert path.read_text() == before


@pytest.mark.parametrize("content", ["dead", "half"])
def test_a_dead_process_is_followed_with_a_note(tmp_path: Path, content):
    path, notes = tmp_path / "run.lock", []
    if content == "dead":
        held(path, pid=dead_process())
    else:
        path.write_text('{"ho')
    with Lock(path, note=notes.append):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert len(notes) == 1
    assert notes[0].startswith("taken over from")
    assert not path.exists()


def test_a_lock_can_be_taken_and_its_former_owner_leaves_it_alone(tmp_path: Path):
    path = tmp_path / "run.lock"
    with Lock(path):
        with Lock(path, take_over=True):
            mine = path.read_text()
            path.write_text(mine + " ")  # as if a third had taken over
        assert path.exists()
    assert path.exists()


@pytest.mark.parametrize("dead", [False, True])
def test_of_two_that_take_over_at_once_one_has_it(tmp_path: Path, dead):
    spawn = multiprocessing.get_context("spawn")
    both = spawn.Barrier(2)
    path = held(tmp_path / "run.lock", pid=dead_process() if dead else os.getppid())
    answers, processes = [], []
    for _ in range(2):
        ours, theirs = spawn.Pipe(duplex=False)
        processes.append(spawn.Process(target=take, args=(path, not dead, both, theirs)))
        processes[-1].start()
        answers.append(ours)
    said = dict(answer.recv() for answer in answers)
    for process in processes:
        process.join(60)
    (winner,) = (pid for pid, words in said.items() if words == "held")
    (refusal,) = (words for words in said.values() if words != "held")
    assert f"is being written by process {winner} on" in refusal
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_refused_to_a_second_writer(make: Make, tmp_path: Path):
    (tmp_path / "out").mkdir()
    held(tmp_path / "out" / "run.lock")
    with pytest.raises(PlanError, match=rf"process {os.getppid()} on {socket.gethostname()} since 2026-01-01"):
        make()
    assert len(make(take_over=True)) == 24


def test_two_writers_make_the_same(make: Make, tmp_path: Path):
    """Correctness does not rest on the lock: a second writer in the middle of a first one's run changes nothing."""

    class Nested(type(mixture())):
        depth = 0
        __qualname__ = type(mixture()).__qualname__  # to a fingerprint it is the same model

        def decode(self, x):
            if Nested.depth == 0:
                Nested.depth = 1
                make(take_over=True)
            return super().decode(x)

    model = mixture()
    model.__class__ = Nested
    whole, nested = make(name="whole"), make(method=Varied(model, CLASSES))
    assert Nested.depth == 1
    assert pixels(nested) == pixels(whole)
    assert {child.name for child in nested.folder.iterdir()} == {child.name for child in whole.folder.iterdir()}
