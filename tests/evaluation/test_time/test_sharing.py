"""Views made once for several classifiers: the same answers, a denoiser that is asked once, and memory that stays in its room."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.test_time.views import Function, Projection, pictures
from torch import nn

from rediffuse.denoisers.load import load
from rediffuse.evaluation.test_time.dda import DDA, DDASettings
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble, DiffAugSettings
from rediffuse.evaluation.test_time.ensembles import Ensemble
from rediffuse.evaluation.test_time.sharing import SharedViews

IMAGES = pictures(6)


def shrinking() -> Function:
    return Function(lambda x_t, t: x_t * 0.9)


def asked(classifier: nn.Module, denoiser: Function, shared: SharedViews | None, *, step: int = 150, seed: int = 0) -> Ensemble:
    ensemble = DiffAugEnsemble(classifier, denoiser, DiffAugSettings(step=step, reference_size=None), seed=seed, chunk=4)
    ensemble.shared = shared
    return ensemble


def test_two_classifiers_pay_for_one_denoiser_and_hear_the_same() -> None:
    denoiser, shared = shrinking(), SharedViews()
    first = asked(Projection(seed=0), denoiser, shared).predict(IMAGES)
    calls = len(denoiser.rows)
    second = asked(Projection(seed=1), denoiser, shared).predict(IMAGES)
    assert len(denoiser.rows) == calls > 0
    for seed, found in ((0, first), (1, second)):
        assert torch.equal(found.probabilities, asked(Projection(seed=seed), shrinking(), None).predict(IMAGES).probabilities)


def test_other_images_seeds_settings_and_ensembles_have_views_of_their_own() -> None:
    denoiser, shared, network = shrinking(), SharedViews(), Projection()
    asked(network, denoiser, shared).predict(IMAGES)
    others = [
        (asked(network, denoiser, shared, seed=1), IMAGES, None),
        (asked(network, denoiser, shared, step=100), IMAGES, None),
        (asked(network, denoiser, shared), IMAGES.flip(0), None),
        (asked(network, denoiser, shared), IMAGES, torch.arange(6) + 100),
    ]
    dda = DDA(network, denoiser, DDASettings(steps=2, reference_size=None), chunk=4)
    dda.shared = shared
    for ensemble, images, seeds in [*others, (dda, IMAGES, None)]:
        found = ensemble.predict(images, seeds).probabilities
        ensemble.shared = None
        assert torch.equal(found, ensemble.predict(images, seeds).probabilities)


@pytest.mark.parametrize("kind", ["diffaug", "dda"])
def test_a_model_in_other_numbers_has_views_of_its_own(kind: str) -> None:
    shared, classifier, images = SharedViews(), Projection(size=32), pictures(1, size=32)
    for dtype in ("bfloat16", "float32"):
        denoiser = load("cifar10-32", device="cpu", dtype=dtype)
        views = DiffAugEnsemble(classifier, denoiser, DiffAugSettings(step=400))
        ensemble = views if kind == "diffaug" else DDA(classifier, denoiser, DDASettings(steps=2))
        ensemble.shared = shared
        found = ensemble.predict(images).probabilities
        ensemble.shared = None
        assert torch.equal(found, ensemble.predict(images).probabilities)


def test_an_adapted_view_is_made_once_with_and_without_the_raw_one() -> None:
    denoiser, shared = shrinking(), SharedViews()
    for self_ensemble in (False, True):
        ensemble = DDA(Projection(), denoiser, DDASettings(steps=2, reference_size=None, self_ensemble=self_ensemble), chunk=4)
        ensemble.shared = shared
        found = ensemble.predict(IMAGES).probabilities
        calls = len(denoiser.rows)
        ensemble.shared = None
        torch.testing.assert_close(found, ensemble.predict(IMAGES).probabilities)
        del denoiser.rows[calls:]
    assert sum(denoiser.rows) == 2 * len(IMAGES)


def test_what_is_there_of_a_batch_is_not_made_again() -> None:
    denoiser, shared = shrinking(), SharedViews()
    ensemble = asked(Projection(), denoiser, shared)
    seeds = torch.arange(6)
    ensemble.predict(IMAGES[:3], seeds[:3])
    half = sum(denoiser.rows)
    found = ensemble.predict(IMAGES, seeds).probabilities
    assert sum(denoiser.rows) == 2 * half
    assert torch.equal(found, asked(Projection(), shrinking(), None).predict(IMAGES, seeds).probabilities)


def test_no_more_is_held_than_there_is_room_for() -> None:
    size = 3 * 8 * 8 * 4  # bytes of a view
    shared = SharedViews(room=3 * size)
    ensemble = asked(Projection(), shrinking(), shared)
    ensemble.predict(IMAGES)
    assert 0 < shared.held <= 3 * size
    nothing = SharedViews(room=size - 1)
    ensemble.shared = nothing
    ensemble.predict(IMAGES)
    assert nothing.held == 0
