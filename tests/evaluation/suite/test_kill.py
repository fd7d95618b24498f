"""SIGKILL at random moments of an evaluation, each followed by the same call: the figures are those of a call that nothing disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.suite.toys import timeless
from tests.killable import Killable

from rediffuse.evaluation.suite.settings import PARTS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def killable(root: Path) -> Iterator[Killable]:
    helper = Killable("tests.evaluation.suite.killable", root)
    yield helper
    helper.close()


# Every part of robust is in full too.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "robust")) for name in PARTS])
def whole(request: pytest.FixtureRequest, killable: Killable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An undisturbed evaluation, and the seconds that a kept file takes."""
    out = tmp_path_factory.mktemp("whole") / request.param
    killable.begin(out)
    began = time.monotonic()
    assert killable.end() == 0
    return out, (time.monotonic() - began) / kept(out)


def kept(out: Path) -> int:
    """How many files of finished work there are."""
    return sum(file.suffix in (".kept", ".tsv") for file in (out / "work").glob("*/*"))


def figures(out: Path) -> Any:
    return timeless(json.loads((out / "evaluation.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(("seed", "kills"), [(0, 2), *(pytest.param(seed, 12, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_kills_change_no_figure(killable: Killable, whole: tuple[Path, float], tmp_path: Path, seed: int, kills: int) -> None:
    undisturbed, pace = whole
    chance, total, killed, outs = random.Random(seed), kept(undisturbed), 0, list[Path]()
    while killed < kills:  # an evaluation that gets to its end makes room for another one
        assert len(outs) < 5 * kills + 10, "evaluations end before they can be killed: the test says nothing"
        outs.append(tmp_path / str(len(outs)) / undisturbed.name)
        # Counted in finished work, not in seconds, so that a machine that is busy elsewhere is killed at the same places.
        for moment in sorted(chance.sample(range(1, total), min(kills, total - 1))):
            child = killable.begin(outs[-1])
            limit = time.monotonic() + 300
            while kept(outs[-1]) < moment and not (outs[-1] / "evaluation.json").exists() and time.monotonic() < limit:
                time.sleep(min(0.02, pace / 4))
            time.sleep(chance.uniform(0, pace / 2))
            os.kill(child, signal.SIGKILL)
            status = killable.end()
            if status == 0:
                break
            assert status == -signal.SIGKILL
            killed += kept(outs[-1]) < total
            if killed == kills:
                break
    for out in outs:
        killable.begin(out)
        assert killable.end() == 0
        assert figures(out) == figures(undisturbed)
        assert kept(out) == total
