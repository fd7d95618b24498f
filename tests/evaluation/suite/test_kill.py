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


@pytest.fixture(scope="module", params=list(PARTS))
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
    chance, progress, out = random.Random(seed), [], tmp_path / undisturbed.name
    # Counted in finished work, not in seconds, so that a machine that is busy elsewhere is killed at the same places.
    for moment in sorted(chance.sample(range(1, kept(undisturbed)), min(kills, kept(undisturbed) - 1))):
        child = killable.begin(out)
        limit = time.monotonic() + 300
        while kept(out) < moment and not (out / "evaluation.json").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1.5 * pace))
        os.kill(child, signal.SIGKILL)
        status = killable.end()
        assert status in (0, -signal.SIGKILL)  # 0: the sleep outlasted the work
        if status:
            progress.append(kept(out))
    assert any(0 < done < kept(undisturbed) for done in progress), "no kill fell into the work: the test says nothing"
    killable.begin(out)
    assert killable.end() == 0
    assert figures(out) == figures(undisturbed)
    assert kept(out) == kept(undisturbed)
