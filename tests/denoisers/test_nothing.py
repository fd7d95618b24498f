"""Noise-only views are x + sigma z, whatever the schedule calls it."""

from __future__ import annotations

import pytest
import torch

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.schedules import cosine_betas, linear_betas
from rediffuse.methods.diffaug import DiffAug, make_noise
from rediffuse.methods.noise_times import AdmUniform, Fixed

IMAGES = torch.rand((6, 3, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", [NoiseSchedule.from_betas(linear_betas()), NoiseSchedule.from_betas(cosine_betas(1000))])
def test_a_view_is_the_picture_plus_noise_clamped(schedule: NoiseSchedule) -> None:
    method = DiffAug(NoDenoiser(schedule), times=AdmUniform(high=600), reference_size=None)
    draw = method.draw(6, torch.Generator().manual_seed(1), size=8)
    noise = make_noise(draw, IMAGES.shape[1:], torch.device("cpu"))
    sigma = schedule.ratio[draw.t].view(-1, 1, 1, 1)
    by_hand = ((2 * IMAGES - 1 + sigma * noise + 1) / 2).clamp(0, 1)
    assert torch.allclose(method.apply(IMAGES, draw), by_hand, atol=1e-5)


def test_the_noise_is_that_of_the_denoised_views() -> None:
    """Two arms with the same seed differ in nothing but what the denoiser does."""
    schedule = NoiseSchedule.from_betas(linear_betas())
    one, other = (DiffAug(NoDenoiser(schedule), times=Fixed(t=t)) for t in (100, 200))
    first, second = (method.manual_seed(4).draw(6, size=8) for method in (one, other))
    assert torch.equal(first.seed, second.seed)
    assert torch.equal(make_noise(first, (3, 8, 8), torch.device("cpu")), make_noise(second, (3, 8, 8), torch.device("cpu")))


def test_it_follows_to_a_device_as_others_do() -> None:
    method = DiffAug(NoDenoiser(NoiseSchedule.from_betas(linear_betas()))).to("meta")
    assert method.denoiser.device.type == "meta"
    assert method.denoiser.state_dict() == {}


def test_its_loss_is_the_noise_level() -> None:
    schedule = NoiseSchedule.from_betas(linear_betas())
    t = torch.tensor([50, 300])
    noise = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    loss = NoDenoiser(schedule).loss(torch.zeros(2, 3, 32, 32), t, noise)
    assert torch.allclose(loss, schedule.ratio[t].square() * noise.square().mean((1, 2, 3)), rtol=1e-4)
