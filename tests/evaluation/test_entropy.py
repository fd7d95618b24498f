"""Entropy against closed forms, and where a view holds almost nothing any more."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.evaluation.test_time.views import Bayes, Function, Projection, mixture
from tests.training.toys import striped
from torch import Tensor

from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation import entropy as entropies
from rediffuse.evaluation.entropy import entropy, entropy_curve
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import image_seeds

SIZE = 8
IMAGES = striped(3, size=SIZE)
FEW = DiffAugSettings(step=333, t_max=999, reference_size=SIZE)


def models() -> list[Judged]:
    return [Judged(Projection(seed=seed), IMAGES.classes, name=f"net {seed}") for seed in (0, 1)]


def test_entropy_of_what_is_known() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [1000, 0, 0, 0], [math.log(3), 0, -1e4, -1e4]])
    assert entropy(logits).tolist() == pytest.approx([math.log(4), 0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))])


def test_the_views_are_those_of_the_ensemble_and_every_model_sees_them() -> None:
    found = entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE, chunk=5)
    assert (found.times, found.images) == ((0, 333, 666, 999), 12)
    maker = DiffAugEnsemble(models()[0].as_module(), mixture(classes=4), FEW)
    pictures, seeds = torch.stack(list(IMAGES.fitted(SIZE))), image_seeds(0, IMAGES.digests)
    for at in range(4):
        views = maker.views(pictures, torch.full((12,), at), seeds)
        for place, model in enumerate(models()):
            said = model.logits(views)
            assert torch.allclose(torch.from_numpy(found.entropies[place, :, at]).double(), entropy(said), atol=1e-4)
            assert found.right is not None
            assert np.array_equal(found.right[place, :, at], (said.argmax(1) == model.truth(IMAGES)).numpy())
    raw = entropy(models()[0].logits(pictures))
    assert found.mean("net 0")[0].value == pytest.approx(float(raw.mean()), abs=1e-4)


def test_the_best_classifier_of_views_is_unsure_where_nothing_is_left() -> None:
    """Views at t = 999 are the mean of the mixture, and that of two components alike says nothing of either."""
    oracle = mixture(classes=2, variance=0.1)
    images = striped(2, classes=2, size=SIZE)
    judged = Judged(Bayes(oracle), images.classes)
    settings = DiffAugSettings(step=999, t_max=999, reference_size=None)
    found = entropy_curve(judged, images, oracle, settings, size=SIZE)
    middle = oracle.decode(oracle.means.mean(0, keepdim=True)).expand(4, -1, -1, -1)
    assert found.mean("Bayes")[1].value == pytest.approx(float(entropy(judged.logits(middle)).mean()), abs=0.05)
    assert found.share_of_maximum("Bayes") > 0.9


def test_the_default_runs_from_the_raw_image_to_the_end() -> None:
    assert entropies.WHOLE.times[0] == 0
    assert entropies.WHOLE.times[-1] == 999
    assert len(entropies.WHOLE.times) == 28


def test_kill_and_resume_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropies, "BLOCK", 5)
    whole = entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE)

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE, keep=tmp_path / "kept", progress=stop)
    again, asked = models(), []
    again[0].network.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0])))
    found = entropy_curve(again, IMAGES, mixture(classes=4), FEW, size=SIZE, keep=tmp_path / "kept")
    assert sum(asked) == 2 * 4
    assert np.array_equal(found.entropies, whole.entropies)
    assert found.table() == whole.table()
    turned = entropy_curve(models()[::-1], IMAGES, mixture(classes=4), FEW, size=SIZE, keep=tmp_path / "kept")
    assert np.array_equal(turned.entropies, whole.entropies[::-1])  # kept by name, not by place
    with pytest.raises(ConfigError, match=r"another call \(.*seed 0 there, 1 here"):
        entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE, seed=1, keep=tmp_path / "kept")


def test_few_images_have_no_interval() -> None:
    found = entropy_curve(models(), IMAGES.subset(range(9)), mixture(classes=4), FEW, size=SIZE)
    assert (found.mean("net 0")[0].low, found.mean("net 0")[0].basis) == (None, "too few test images")
    assert found.difference("net 1", "net 0")[0].high is None
    whole = entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE)
    assert whole.mean("net 0")[0].low is not None


def test_pairs_and_files(tmp_path: Path) -> None:
    found = entropy_curve(models(), IMAGES, mixture(classes=4), FEW, size=SIZE)
    ours, theirs = found.mean("net 1")[2].value, found.mean("net 0")[2].value
    assert found.difference("net 1", "net 0")[2].value == pytest.approx(ours - theirs, abs=1e-5)
    saved = json.loads(found.save("entropy_toy", tmp_path, command="made up").read_text())
    assert len(saved["rows"]) == 8
    assert saved["rows"][0]["maximum"] == pytest.approx(math.log(4))
    assert set(saved["headline"]) == {"net 0_share_of_maximum", "net 1_share_of_maximum"}
    assert json.dumps(found.to_json(), allow_nan=False)


def test_what_is_wrong_is_said() -> None:
    one = models()[0]
    with pytest.raises(ConfigError, match="got a latent"):
        entropy_curve(one, IMAGES, Function(lambda x, t: x, channels=4), FEW, size=SIZE)
    with pytest.raises(ConfigError, match="multiple of 16"):
        entropy_curve(one, IMAGES, Function(lambda x, t: x, multiple_of=16), FEW, size=SIZE)
    with pytest.raises(ConfigError, match="different names"):
        entropy_curve([one, one], IMAGES, mixture(classes=4), FEW, size=SIZE)
    with pytest.raises(DataError, match="no images"):
        entropy_curve(one, IMAGES.subset([]), mixture(classes=4), FEW, size=SIZE)

    def broken(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t * torch.nan

    with pytest.raises(ModelError, match="NaN"):
        entropy_curve(one, IMAGES, Function(broken), FEW, size=SIZE)
    with pytest.raises(ConfigError, match="no entropies of 'x'"):
        entropy_curve(one, IMAGES, mixture(classes=4), FEW, size=SIZE).mean("x")
