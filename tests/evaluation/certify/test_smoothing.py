"""Noise comes once, on the tensor that is certified, at exactly sigma, and is a function of seed, image and number."""

from __future__ import annotations

import pytest
import torch
from tests.evaluation.test_time.views import LINEAR, Function, mixture, pictures
from torch import Tensor

from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.errors import ConfigError
from rediffuse.evaluation.certify.bounds import noise_time
from rediffuse.evaluation.certify.smoothing import Draws, Smoother, Smoothing
from rediffuse.methods.diffaug import believe

SHAPE = (3, 8, 8)


def test_a_draw_is_a_function_of_seed_image_and_number() -> None:
    whole = Draws(1, "a", SHAPE).take(200)
    pieces = Draws(1, "a", SHAPE)
    assert torch.equal(torch.cat([pieces.take(count) for count in (1, 0, 70, 64, 65)]), whole)
    for other in (Draws(2, "a", SHAPE), Draws(1, "b", SHAPE)):
        assert not torch.isclose(other.take(64), whole[:64]).all((1, 2, 3)).any()
    assert len(whole.flatten(1).unique(dim=0)) == 200
    assert abs(float(whole.mean())) < 4 / whole.numel() ** 0.5
    assert float(whole.std()) == pytest.approx(1, abs=0.02)


def test_nothing_is_clipped_before_the_denoiser_and_the_noise_is_sigmas() -> None:
    told: list[tuple[Tensor, Tensor]] = []

    def remember(x_t: Tensor, t: Tensor) -> Tensor:
        told.append((x_t, t))
        return 3 * x_t

    images, noise = pictures(2000), torch.randn(2000, *SHAPE, generator=torch.Generator().manual_seed(0))
    views = Smoother(Function(remember), 0.5)(images, noise)
    (x_t, t), alpha = told[0], LINEAR.alpha[259]
    assert t.unique().tolist() == [259]
    added = x_t / alpha - (2 * images - 1)  # on [-1, 1]
    assert torch.allclose(added, noise, atol=1e-5)  # 2 sigma = 1, and not the schedule's slightly larger level
    assert float((x_t / alpha).abs().max()) > 2
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    plain = Smoother(None, 0.5)(images, noise)
    assert torch.equal(plain, images + 0.5 * noise)
    assert float(plain.min()) < 0
    assert float(plain.max()) > 1
    control = Smoother(NoDenoiser(LINEAR), 0.5)(images, noise)
    assert torch.allclose(control, plain.clamp(0, 1), atol=1e-5)


def test_at_a_level_of_the_table_it_is_the_view_of_diffaug() -> None:
    denoiser, images = mixture(), pictures(5)
    noise = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(3))
    t = 200
    sigma = float(denoiser.schedule.ratio[t]) / 2
    view = denoiser.decode(believe(denoiser, images, torch.full((5,), t), noise))
    smoother = Smoother(denoiser, sigma)
    assert smoother.time == noise_time(denoiser.schedule, sigma) == t
    assert torch.allclose(smoother(images, noise), view, atol=1e-5)


def test_what_is_wrong_is_said() -> None:
    latent = Function(lambda x, t: x, channels=4)
    with pytest.raises(ConfigError, match="certified smoothing needs an unconditional RGB model in pixel space, got a latent"):
        Smoother(latent, 0.5)
    conditional = Function(lambda x, t: x)
    conditional.conditional = True
    with pytest.raises(ConfigError, match="got a conditional Function"):
        Smoother(conditional, 0.5)
    with pytest.raises(ConfigError, match="at most"):
        Smoother(mixture(), 100)
    for wrong in (
        {"sigmas": ()},
        {"sigmas": (0.5, 0.5)},
        {"sigmas": (0.0,)},
        {"alpha": 1.0},
        {"alpha": 0.0},
        {"draws": 0},
        {"selection": 0},
    ):
        with pytest.raises(ConfigError, match="must be"):
            Smoothing(**wrong)  # type: ignore[arg-type]
