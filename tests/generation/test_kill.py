"""SIGKILL at random moments, each followed by the same command: nothing lost, nothing doubled, pixels as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.generation.conftest import pixels
from tests.tiny import tiny_stable

from rediffuse.generation.provenance import verify
from rediffuse.generation.store import Run, finished_shards

KILLS = 10
IMAGES = 5 * 2 * (6 + 1)  # photos, copies and the photos themselves


class Killable:
    """The helper process, one generation at a time."""

    def __init__(self, model: Path, root: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
        command = [sys.executable, "-m", "tests.generation.killable", str(model)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)

    def begin(self, out: Path) -> int:
        self._write(f"{out}\n")
        child = int(self._line())
        assert child > 1  # a signal to 0 would go to this whole group
        return child

    def end(self) -> int:
        self._write("\n")
        return int(self._line())

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Killable]:
    helper = Killable(tiny_stable(tmp_path_factory.mktemp("killable") / "model"), root)
    yield helper
    assert helper.process.stdin is not None
    helper.process.stdin.close()
    helper.process.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_ten_kills_leave_no_trace(killable: Killable, tmp_path: Path):
    chance = random.Random(0)
    killable.begin(tmp_path / "whole")
    began = time.monotonic()
    assert killable.end() == 0
    lasts = time.monotonic() - began
    whole = Run(tmp_path / "whole")
    assert len(whole) == IMAGES

    kills, runs, progress = 0, [], []
    while kills < KILLS:  # a run that gets to its end makes room for another one
        out = tmp_path / f"killed{len(runs)}"
        runs.append(out)
        while kills < KILLS:
            child = killable.begin(out)
            time.sleep(chance.uniform(0, 0.6 * lasts))
            os.kill(child, signal.SIGKILL)
            status = killable.end()
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
            progress.append(len(finished_shards(out)))

    for out in runs:
        killable.begin(out)
        assert killable.end() == 0
        run = Run(out)
        assert run.complete
        assert pixels(run) == pixels(whole)
        assert run.manifest.num_rows == len(set(run.manifest.column("file_name").to_pylist())) == len(whole)
        files = [path for path in (out / "images").rglob("*") if path.is_file()]
        assert len(files) == len(whole) + 1
        assert {child.name for child in out.iterdir()} == {"README.md", "images", "manifest", "plan.parquet", "rejected.jsonl", "run.json"}
        assert run.manifest.drop_columns(["environment"]).equals(whole.manifest.drop_columns(["environment"]))
        assert verify(out) == []
    assert max(progress) > 0, "every kill came before the first commit: the test says nothing"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
def test_ctrl_c_leaves_a_folder_in_order(killable: Killable, tmp_path: Path):
    out = tmp_path / "out"
    child = killable.begin(out)
    while not finished_shards(out):
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert killable.end() == 1
    stopped = Run(out)
    assert not stopped.complete
    assert 0 < len(stopped) < IMAGES
    assert {child.name for child in out.iterdir()} == {"README.md", "images", "manifest", "plan.parquet", "rejected.jsonl", "run.json"}
    files = {path.relative_to(out / "images").as_posix() for path in (out / "images").rglob("*.png")}
    assert files == set(stopped.ids)
    assert (out / "images" / "metadata.parquet").exists()
    assert "the run is not finished" in (out / "README.md").read_text()
    killable.begin(out)
    assert killable.end() == 0
    assert len(Run(out)) == IMAGES
