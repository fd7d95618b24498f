"""What is left out of an evaluation before it begins, and what breaks without breaking the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.evaluation.suite.toys import DATA, MODELS, SHORT, TRAIN, asked
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.suite.checks import without_training
from rediffuse.evaluation.suite.evaluate import evaluate


def test_test_photos_that_were_trained_on_judge_nothing() -> None:
    taught = replace(TRAIN[3], id="copy-of-training", label=DATA.labels[0])
    data = ImageSet.of([*DATA, taught], classes=DATA.classes, name="blocks")
    found = evaluate(MODELS[0], data, **asked("few-shot", near=(), far=(), denoiser=None))
    alone = evaluate(MODELS[0], DATA, **asked("few-shot", near=(), far=(), denoiser=None))
    assert found.images == 9
    assert found.accuracy == alone.accuracy
    assert "1 photo of blocks left out, because training photos have the same pixels: copy-of-training." in found.notes
    assert without_training(DATA, TRAIN) == (DATA, ())
    with pytest.raises(DataError, match=r"all 15 images of training blocks are also training images, such as training blocks-000"):
        evaluate(MODELS[0], TRAIN, **asked("few-shot", near=(), far=(), denoiser=None))


def test_a_part_without_memory_is_noted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(network: Any, images: Tensor) -> Tensor:
        if images.requires_grad:
            raise torch.OutOfMemoryError("tried to allocate 3 GiB")
        return plain(network, images)

    kind = type(MODELS[0].network)
    plain = kind.forward
    monkeypatch.setattr(kind, "forward", forward)
    found = evaluate(MODELS[0], DATA, **asked(settings=replace(SHORT)))
    assert [(part.part, part.failed, part.reason) for part in found.skipped] == [
        ("attack", True, "OutOfMemoryError: tried to allocate 3 GiB")
    ]
    assert found.attacked is None
    assert found.adapted is not None
