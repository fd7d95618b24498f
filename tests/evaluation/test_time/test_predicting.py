"""A whole set: predictions of an image are its own, and kept ones are used again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.evaluation.test_time.views import SIZE, Projection, mixture
from tests.training.toys import striped
from torch.utils.flop_counter import FlopCounterMode

from rediffuse import load
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.kept import forget
from rediffuse.evaluation.test_time import predicting
from rediffuse.evaluation.test_time.dda import DDA
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import Plain
from rediffuse.evaluation.test_time.predicting import predict_images
from rediffuse.training.backbones import open_backbone
from rediffuse.training.cost import denoiser_operations

IMAGES = striped(3, size=SIZE)


def ensemble(seed: int = 0, chunk: int = 64, variance: float = 0.05) -> DiffAugEnsemble:
    settings = DiffAugSettings(step=150, reference_size=SIZE)
    return DiffAugEnsemble(Projection(), mixture(variance=variance), settings, seed=seed, chunk=chunk)


def test_neither_order_nor_company_changes_a_prediction() -> None:
    whole = predict_images(ensemble(), IMAGES, size=SIZE)
    order = [7, 2, 11, 4]
    some = predict_images(ensemble(chunk=3), IMAGES.subset(order), size=SIZE)
    assert torch.allclose(some.probabilities, whole.probabilities[order], atol=1e-5)
    assert not torch.allclose(predict_images(ensemble(1), IMAGES, size=SIZE).probabilities, whole.probabilities, atol=1e-5)


def test_kept_blocks_are_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "BLOCK", 5)
    keep, done = tmp_path / "keep", []
    whole = predict_images(ensemble(), IMAGES, size=SIZE, keep=keep)
    (keep / "000000005.kept").unlink()
    again = ensemble()
    asked: list[int] = []
    again.classifier.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    found = predict_images(again, IMAGES, size=SIZE, keep=keep, progress=lambda *counts: done.append(counts))
    assert sum(asked) == 5 * 4  # one block of five images, four members
    assert torch.equal(found.probabilities, whole.probabilities)
    assert torch.equal(found.decisions, whole.decisions)
    assert found.members == whole.members
    assert done[0] == (5, 12)
    assert done[-1] == (12, 12)
    for changed in ({"size": SIZE * 2}, {"size": SIZE, "fit": "crop"}, {"size": SIZE, "identity": {"classifier": "other"}}):
        with pytest.raises(ConfigError, match="belongs to another call"):
            predict_images(ensemble(), IMAGES, keep=keep, **changed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belongs to another call"):
        predict_images(ensemble(variance=0.06), IMAGES, size=SIZE, keep=keep)
    lower = ensemble()
    lower.method.denoiser.dtype = torch.bfloat16  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="denoiser_numbers"):
        predict_images(lower, IMAGES, size=SIZE, keep=keep)
    forget(keep)
    assert not keep.exists()


def test_a_block_takes_a_minute_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dearer an image, the fewer are kept together, so that little is lost; blocks of another length are taken as they are."""
    each = ensemble().operations(SIZE)
    assert each == 3 * denoiser_operations(mixture(), (SIZE, SIZE)) > 0  # the fourth member is the image itself
    monkeypatch.setitem(predicting.MINUTE, "cpu", 3.5 * each)
    assert predicting.block_of(ensemble(), SIZE) == 3
    keep = tmp_path / "keep"
    whole = predict_images(ensemble(), IMAGES, size=SIZE, keep=keep)
    assert sorted(file.name for file in keep.glob("*.kept")) == [f"{start:09d}.kept" for start in (0, 3, 6, 9)]
    for name in ("000000006.kept", "000000009.kept"):
        (keep / name).unlink()
    monkeypatch.setitem(predicting.MINUTE, "cpu", 5 * each)
    assert torch.allclose(predict_images(ensemble(), IMAGES, size=SIZE, keep=keep).probabilities, whole.probabilities, atol=1e-6)
    assert (keep / "000000011.kept").exists()
    monkeypatch.setitem(predicting.MINUTE, "cpu", 1.0)
    assert predicting.block_of(ensemble(), SIZE) == 1


def test_many_guided_steps_make_small_blocks() -> None:
    """On a processor DDA costs too much for 256 photos between two savings; the photo alone does not."""
    network, denoiser = open_backbone("scratch", ("a", "b"), size=32), load("cifar10-32", dtype="float32")
    plain, views, brought_back = Plain(network), DiffAugEnsemble(network, denoiser), DDA(network, denoiser)
    with FlopCounterMode(display=False) as counted:  # this counter takes no autograd.grad; nothing but the image wants a gradient
        denoiser(torch.zeros(2, 3, 32, 32, requires_grad=True), torch.full((2,), 300)).sum().backward()
    assert brought_back.operations(32) == pytest.approx(50 * counted.get_total_flops() / 2, rel=0.01)
    assert predicting.block_of(plain, 32) == predicting.BLOCK
    assert predicting.block_of(brought_back, 32) < 20 < predicting.block_of(views, 32) < predicting.BLOCK


def test_a_small_set_leaves_nothing(tmp_path: Path) -> None:
    predict_images(ensemble(), IMAGES, size=SIZE, keep=tmp_path / "keep")
    assert not (tmp_path / "keep").exists()
    forget(tmp_path / "keep")


def test_an_empty_set() -> None:
    with pytest.raises(DataError, match="no images"):
        predict_images(ensemble(), IMAGES.subset([]), size=SIZE)
