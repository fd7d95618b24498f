"""The linear denoiser against dense linear algebra, against the mixture of one, and against other filters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.errors import ConfigError, DataError

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
T = torch.tensor([0, 20, 150, 450, 999])
SIDE, COLOURS = 6, 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stationary_covariance(seed: int = 0) -> Tensor:
    """Of (C, S, S) images whose colours and places are mixed by the same random kernel everywhere, wrapping around. (D, D) float64."""
    kernel = torch.randn(COLOURS, COLOURS, SIDE, SIDE, generator=generator(seed), dtype=torch.float64) / 4
    rows = [torch.roll(kernel[colour], (y, x), (1, 2)).flatten() for colour in range(COLOURS) for y in range(SIDE) for x in range(SIDE)]
    mixing = torch.stack(rows)  # image = mixing @ white noise
    return mixing @ mixing.T


def spectrum_of(covariance: Tensor) -> Tensor:
    """The same in the basis of the transform, (S, S // 2 + 1, C, C): the diagonal blocks of F covariance F^H."""
    images = torch.eye(COLOURS * SIDE**2, dtype=torch.float64).view(-1, COLOURS, SIDE, SIDE)
    transform = torch.fft.rfft2(images, norm="ortho").permute(1, 2, 3, 0)  # (C, S, S // 2 + 1, D)
    return torch.einsum("akld,de,bkle->klab", transform, covariance.to(transform.dtype), transform.conj())


def test_it_is_the_posterior_mean_of_a_stationary_gaussian() -> None:
    covariance, mean = stationary_covariance(), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    denoiser = WienerDenoiser(mean, spectrum_of(covariance), SIDE, SCHEDULE)
    x_t = torch.randn(len(T), COLOURS, SIDE, SIDE, generator=generator(1), dtype=torch.float64)
    centre = mean.repeat_interleave(SIDE**2)
    x0_hat = denoiser(x_t, T)
    assert x0_hat.dtype == torch.float32
    for index, t in enumerate(T.tolist()):
        alpha, sigma = SCHEDULE.alpha[t].double(), SCHEDULE.sigma[t].double()
        observed = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance), dtype=torch.float64)
        wanted = centre + alpha * covariance @ torch.linalg.solve(observed, x_t[index].flatten() - alpha * centre)
        torch.testing.assert_close(x0_hat[index].flatten().double(), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [5, 6])
def test_white_images_are_a_mixture_of_one(side: int) -> None:
    mean = torch.tensor([0.3, -0.2, 0.1])
    spectrum = 0.4 * torch.eye(3).expand(side, side // 2 + 1, 3, 3)
    oracle = GaussianMixtureDenoiser(mean.view(1, 3, 1, 1).expand(1, 3, side, side), torch.tensor([0.4]), torch.ones(1), SCHEDULE)
    x_t = torch.randn(len(T), 3, side, side, generator=generator())
    torch.testing.assert_close(WienerDenoiser(mean, spectrum, side, SCHEDULE)(x_t, T), oracle(x_t, T), atol=1e-5, rtol=1e-5)


def test_fit_finds_the_model_that_made_the_images() -> None:
    covariance = stationary_covariance()
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(len(covariance), dtype=torch.float64))
    images = (torch.randn(40_000, len(covariance), generator=generator(2), dtype=torch.float64) @ root.T).view(
        -1, COLOURS, SIDE, SIDE
    ) + 0.5
    true = WienerDenoiser(torch.full((3,), 0.5), spectrum_of(covariance), SIDE, SCHEDULE)
    fitted = WienerDenoiser.fit(images.float(), SCHEDULE)
    x_t = SCHEDULE.add_noise(images[: len(T)].float(), torch.randn(len(T), 3, SIDE, SIDE, generator=generator(3)), T)
    torch.testing.assert_close(fitted(x_t, T), true(x_t, T), atol=0.03, rtol=0)


def test_no_other_filter_does_better_on_the_images_it_was_fitted_to() -> None:
    """At every frequency, of images that are neither Gaussian nor stationary; the expectation over the noise is taken in closed form."""
    images = torch.rand(50, 3, 8, 8, generator=generator()).cumsum(3) / 4 - 1
    denoiser = WienerDenoiser.fit(images, SCHEDULE)
    t = torch.full((50,), 150)
    alpha, sigma = float(SCHEDULE.alpha[150]), float(SCHEDULE.sigma[150])
    zero = torch.zeros(1, 3, 8, 8)
    offset = denoiser(zero, t[:1])
    basis = torch.eye(192).view(-1, 3, 8, 8)
    matrix = (denoiser(basis, torch.full((192,), 150)) - offset).flatten(1).T  # x0_hat = matrix x_t + offset

    def error(change: float, direction: Tensor) -> float:
        """E ||x0_hat - x0||² with the filter moved along `direction`, about its own offset."""
        moved = matrix + change * direction
        shift = offset.flatten() + change * (direction @ (-alpha * denoiser.mean.expand(3, 8, 8).flatten()))
        bias = (alpha * images.flatten(1)) @ moved.T + shift - images.flatten(1)
        return float(bias.square().sum(1).mean() + sigma**2 * moved.square().sum())

    kernel = torch.randn(3, 3, 8, 8, generator=generator(1))
    rows = [torch.roll(kernel[colour], (y, x), (1, 2)).flatten() for colour in range(3) for y in range(8) for x in range(8)]
    other = torch.stack(rows) / math.sqrt(192)
    best = error(0.0, other)
    assert all(error(change, other) > best for change in (-0.1, -0.01, 0.01, 0.1))
    assert error(0.01, other) - best == pytest.approx(error(-0.01, other) - best, rel=1e-2)  # the slope there is none


def test_bytes_are_read_as_pixels_and_gradients_flow() -> None:
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator(), dtype=torch.uint8)
    first, second = WienerDenoiser.fit(images, SCHEDULE), WienerDenoiser.fit(images.float() / 127.5 - 1, SCHEDULE)
    x = torch.randn(len(T), 3, 8, 8, generator=generator(1)).requires_grad_()
    torch.testing.assert_close(first(x, T), second(x, T))
    (gradient,) = torch.autograd.grad(first(x, T).sum(), x)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())
    noise = torch.randn(len(T), 3, 8, 8, generator=generator(2))
    x0 = first.encode(torch.rand(len(T), 3, 8, 8, generator=generator(3)))
    wanted = (first(SCHEDULE.add_noise(x0, noise, T), T) - x0).square().mean((1, 2, 3))
    torch.testing.assert_close(first.loss(x0, T, noise), wanted)


def test_without_noise_and_variance_it_believes_the_mean() -> None:
    """0 / 0: a picture of one colour, and a schedule that begins without noise."""
    schedule = NoiseSchedule.from_tables(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5]))
    denoiser = WienerDenoiser(torch.tensor([0.1, 0.2, 0.3]), torch.zeros(8, 5, 3, 3), 8, schedule)
    x = torch.randn(2, 3, 8, 8, generator=generator())
    torch.testing.assert_close(denoiser(x, torch.tensor([0, 1])), denoiser.mean.expand(2, 3, 8, 8))


def test_bad_input() -> None:
    spectrum = torch.eye(3).expand(8, 5, 3, 3)
    denoiser = WienerDenoiser(torch.zeros(3), spectrum, 8, SCHEDULE)
    with pytest.raises(DataError, match=r"\(B, 3, 8, 8\), got \(1, 3, 16, 16\)"):
        denoiser(torch.zeros(1, 3, 16, 16), torch.tensor([0]))
    with pytest.raises(ConfigError, match="for size 9"):
        WienerDenoiser(torch.zeros(3), spectrum, 9, SCHEDULE)
    with pytest.raises(ConfigError, match="negative"):
        WienerDenoiser(torch.zeros(3), -spectrum, 8, SCHEDULE)
    with pytest.raises(DataError, match="square"):
        WienerDenoiser.fit(torch.zeros(4, 3, 8, 6), SCHEDULE)
