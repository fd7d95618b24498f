"""Ensembles on the yardsticks of networks: the same answers in any company, and told apart by what is kept."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.suite.toys import DENOISER, MODELS
from tests.evaluation.test_time.views import Function, mixture
from torch import nn

from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import Plain, image_seeds
from rediffuse.evaluation.test_time.judging import AskedSeveralTimes, judged_by, pixels_key
from rediffuse.evaluation.test_time.sharing import SharedViews
from rediffuse.training.preprocessing import Preprocessing

IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def diffaug(classifier: nn.Module, seed: int = 0, step: int = 150) -> DiffAugEnsemble:
    return DiffAugEnsemble(classifier, DENOISER, DiffAugSettings(step=step), seed=seed)


def test_softmax_gives_the_mean_probabilities_of_the_ensemble() -> None:
    judged = judged_by(MODELS[0], diffaug, "views")
    asked = diffaug(MODELS[0].as_module())
    seeds = image_seeds(0, [pixels_key(image) for image in IMAGES])
    assert torch.allclose(judged.logits(IMAGES).softmax(1), asked.predict(IMAGES, seeds).probabilities, atol=1e-6)
    assert judged.classes == MODELS[0].classes


def test_neither_order_nor_company_changes_an_answer() -> None:
    judged = judged_by(MODELS[0], diffaug, "views")
    together, order = judged.logits(IMAGES), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(judged.logits(IMAGES[order]), together[order], atol=1e-5)
    assert torch.allclose(torch.cat([judged.logits(image[None]) for image in IMAGES]), together, atol=1e-5)
    other = IMAGES.clone()
    other[0, 0, 0, 0] = 1 - other[0, 0, 0, 0]
    assert pixels_key(other[0]) != pixels_key(IMAGES[0])


def test_classifiers_of_other_input_sizes_share_their_views() -> None:
    denoiser, shared = Function(lambda x_t, t: x_t * 0.9), SharedViews()
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))

    def made(classifier: nn.Module) -> DiffAugEnsemble:
        ensemble = DiffAugEnsemble(classifier, denoiser, DiffAugSettings(step=300, reference_size=None))
        ensemble.shared = shared
        return ensemble

    calls = []
    for side in (8, 300):  # the larger one is asked in smaller parts elsewhere
        network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
        judged_by(Judged(network, "abc", preprocessing=Preprocessing(height=side, width=side)), made, f"{side}").logits(images)
        calls.append(sum(denoiser.rows))
    assert calls[0] == calls[1] > 0


def test_the_classifier_alone_is_itself() -> None:
    judged = judged_by(MODELS[0], Plain, "plain")
    assert torch.allclose(judged.logits(IMAGES), MODELS[0].logits(IMAGES).log_softmax(1).clamp(min=-87.3366), atol=1e-4)


def test_gradients_are_those_of_the_whole_ensemble() -> None:
    module = AskedSeveralTimes(diffaug(MODELS[0].as_module()))
    with torch.no_grad():
        plain = module(IMAGES)
    given = IMAGES.clone().requires_grad_()
    said = module(given)
    assert torch.allclose(said, plain, atol=1e-4)
    assert torch.autograd.grad(said[:, 0].sum(), given)[0].abs().sum() > 0


@pytest.mark.parametrize("changed", [{"seed": 1}, {"step": 200}])
def test_what_is_kept_tells_settings_apart(changed: dict[str, int]) -> None:
    first, same = (judged_by(MODELS[0], diffaug, "a").identity() for _ in range(2))
    assert first == same
    assert judged_by(MODELS[0], lambda net: diffaug(net, **changed), "a").identity() != first


def test_what_is_kept_tells_the_numbers_of_a_denoiser_apart() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        denoiser = mixture(size=32)
        denoiser.dtype = dtype
        found.append(judged_by(MODELS[0], lambda net, denoiser=denoiser: DiffAugEnsemble(net, denoiser), "a").identity())  # type: ignore[misc]
    assert [each.pop("denoiser_numbers") for each in found] == [["float32"], ["bfloat16"]]
    assert found[0] == found[1]
