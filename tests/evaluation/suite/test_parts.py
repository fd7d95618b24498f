"""What parts hold while they run."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.suite import growing
from tests.evaluation.suite.toys import DATA, MODELS, SHORT

from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking
from rediffuse.evaluation.suite.parts import build
from rediffuse.evaluation.test_time import predicting
from rediffuse.evaluation.test_time.predictions import Predictions


def test_accuracy_holds_the_probabilities_of_a_few_blocks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "BLOCK", 1)
    made: list[weakref.ref[torch.Tensor]] = []
    held = [0]
    check = Predictions.__post_init__

    def counting(self: Predictions) -> None:
        check(self)
        made.append(weakref.ref(self.probabilities))
        held[0] = max(held[0], len({id(each): 0 for ref in made if (each := ref()) is not None}))

    monkeypatch.setattr(Predictions, "__post_init__", counting)
    part = build(Asking(models=MODELS, data=DATA, settings=SHORT), names.ACCURACY)
    fresh, kept = (part.run(tmp_path / "accuracy", None) for _ in range(2))
    assert len(made) > 2 * len(MODELS) * len(DATA)
    assert held[0] < len(DATA) / 2  # an ensemble joins its own chunks, and a block is held while the next one is made
    assert fresh == kept
    pictures = torch.stack(list(DATA.fitted(SHORT.size)))
    for model in MODELS:
        confusion = torch.zeros(3, 3, dtype=torch.int64)
        for true, said in zip(model.truth(DATA), model.logits(pictures).argmax(1), strict=True):
            confusion[true, said] += 1
        found: Any = fresh[model.name]
        assert found.counts.tolist() == confusion.tolist()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures in the units of Linux")
@pytest.mark.parametrize("part", [names.ACCURACY, names.CALIBRATION])
def test_memory_does_not_grow_with_images_by_classes(part: str, root: Path) -> None:
    line = [sys.executable, "-m", growing.__name__, part]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # each thread has room of its own
    told = subprocess.run(line, cwd=root, env=alone, capture_output=True, text=True, check=True).stdout
    numbers = (growing.MANY - growing.FEW) * len(growing.CLASSES)
    assert float(told) < numbers * 4 / 2 / 1e6  # half of what their float32 would take
