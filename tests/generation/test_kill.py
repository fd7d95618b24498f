"""SIGKILL at random moments, each followed by the same command: nothing lost, nothing doubled, pixels as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.generation.conftest import pixels
from tests.killable import Killable
from tests.tiny import tiny_stable

from rediffuse.generation.provenance import verify
from rediffuse.generation.store import Run, finished_shards

IMAGES = 5 * 2 * (6 + 1)  # photos, copies and the photos themselves


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Killable]:
    helper = Killable("tests.generation.killable", root, str(tiny_stable(tmp_path_factory.mktemp("killable") / "model")))
    yield helper
    helper.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kills_leave_no_trace(killable: Killable, tmp_path: Path, request: pytest.FixtureRequest):
    chance, asked = random.Random(0), 10 if request.config.getoption("--slow") else 4
    killable.begin(tmp_path / "whole")
    began = time.monotonic()
    assert killable.end() == 0
    lasts = time.monotonic() - began
    whole = Run(tmp_path / "whole")
    assert len(whole) == IMAGES

    kills, runs, progress = 0, [], []
    while kills < asked:  # a run that gets to its end makes room for another one
        out = tmp_path / f"killed{len(runs)}"
        runs.append(out)
        while kills < asked:
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
