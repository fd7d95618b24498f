"""The sampler against the Gaussian oracle, whose exact path is known: error falls with the order that each solver promises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import divide_noise, scaled_linear_betas, zero_terminal_snr
from rediffuse.sampling.sampler import noise_generator, run_jobs
from rediffuse.sampling.solvers import trajectory
from rediffuse.sampling.table import SamplingJob, StepTable

SHAPE = (1, 2, 2)
COUNT = 48
LEVELS = 16_000  # so many that rounding a level to the table does not blur the order


def long_schedule() -> NoiseSchedule:
    """Stable Diffusion's curve, sixteen times finer."""
    return NoiseSchedule.from_betas(scaled_linear_betas(LEVELS, 0.00085 * 1000 / LEVELS, 0.012 * 1000 / LEVELS))


def mixture(schedule: NoiseSchedule) -> GaussianMixtureDenoiser:
    means = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(3))
    return GaussianMixtureDenoiser(means, torch.tensor([0.1, 0.3, 0.2]), torch.tensor([1.0, 2.0, 3.0]), schedule)


def start(denoiser: GaussianMixtureDenoiser, sources: Tensor, table: StepTable) -> Tensor:
    """The x that the sampler starts from, by the definition of the noise of a job."""
    assert table.start is not None
    noise = torch.stack([torch.randn(*SHAPE, generator=noise_generator(seed)) for seed in range(COUNT)])
    return denoiser.schedule.add_noise(sources, noise, torch.full((COUNT,), table.start))


def sampled(denoiser: GaussianMixtureDenoiser, sources: Tensor, table: StepTable) -> Tensor:
    jobs = [SamplingJob(source=source, table=table, condition=None, seed=seed) for seed, source in enumerate(sources)]
    return run_jobs(denoiser, jobs, batch=COUNT)


def orders(errors: list[float]) -> list[float]:
    return [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]


@pytest.mark.parametrize("strength", [1.0, 0.75, 0.5, 0.25])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_order_of_convergence_from_any_start(solver: Any, order: int, strength: float) -> None:
    """Sources drawn from the mixture, noised to the start, carried to level 0: against a Runge-Kutta solution of the flow."""
    denoiser = mixture(long_schedule())
    sources = denoiser.sample(COUNT, torch.Generator().manual_seed(1))
    errors, truth = [], None
    for steps in (40, 80, 160):
        table = trajectory(denoiser.schedule, solver, steps, strength, spacing="karras", end="first")
        assert table.start == LEVELS * strength - 1
        if truth is None:
            truth = denoiser.probability_flow(start(denoiser, sources, table), table.start, 0)
        errors.append(float((sampled(denoiser, sources, table) - truth).square().mean().sqrt()))
    assert all(abs(seen - order) < 0.3 for seen in orders(errors)), (orders(errors), errors)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_one_gaussian_in_closed_form(solver: Any, order: int, strength: float) -> None:
    """From x to the clean image the flow of N(m, v) is m + (x - alpha m) sqrt(v / (alpha² v + sigma²)): no solver in the truth at all."""
    schedule, mean, variance = long_schedule(), torch.full((1, *SHAPE), 0.7), 0.5
    denoiser = GaussianMixtureDenoiser(mean, torch.tensor([variance]), torch.ones(1), schedule)
    sources = denoiser.sample(COUNT, torch.Generator().manual_seed(1))
    errors = []
    for steps in (20, 40, 80):
        table = trajectory(schedule, solver, steps, strength, spacing="karras")
        alpha, sigma = schedule.alpha[table.start].double(), schedule.sigma[table.start].double()
        truth = mean + (start(denoiser, sources, table) - alpha * mean) * (variance / (alpha**2 * variance + sigma**2)).sqrt()
        errors.append(float((sampled(denoiser, sources, table) - truth).square().mean().sqrt()))
    assert all(abs(seen - order) < 0.3 for seen in orders(errors)), (orders(errors), errors)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "pndm"])
def test_the_default_tables_end_near_the_truth(solver: Any) -> None:
    """The last jump from trailing's last level to the clean image is first order; it shrinks with the steps too."""
    schedule, mean, variance = long_schedule(), torch.full((1, *SHAPE), 0.7), 0.5
    denoiser = GaussianMixtureDenoiser(mean, torch.tensor([variance]), torch.ones(1), schedule)
    sources = denoiser.sample(COUNT, torch.Generator().manual_seed(1))
    errors = []
    for steps in (50, 400):
        table = trajectory(schedule, solver, steps, 0.5)
        alpha, sigma = schedule.alpha[table.start].double(), schedule.sigma[table.start].double()
        truth = mean + (start(denoiser, sources, table) - alpha * mean) * (variance / (alpha**2 * variance + sigma**2)).sqrt()
        errors.append(float((sampled(denoiser, sources, table) - truth).square().mean().sqrt()))
    assert errors[1] < errors[0] / 4, errors


def test_ancestral_draws_from_the_data() -> None:
    """From pure noise, many steps: the samples have the mean and the variance of the only component."""
    schedule = NoiseSchedule.from_betas(scaled_linear_betas())
    denoiser = GaussianMixtureDenoiser(torch.full((1, 4, 8, 8), 0.7), torch.tensor([0.25]), torch.ones(1), schedule)
    table = trajectory(schedule, "ancestral", 200, 1.0)
    jobs = [SamplingJob(source=torch.zeros(4, 8, 8), table=table, condition=None, seed=seed) for seed in range(64)]
    values = run_jobs(denoiser, jobs, batch=64).flatten()  # 16,384 numbers
    assert abs(float(values.mean()) - 0.7) < 4 * 0.5 / len(values) ** 0.5 + 0.02
    assert abs(float(values.std()) - 0.5) < 0.02


@pytest.mark.parametrize(("strength", "steps", "ratio"), [(0.5, 48, 1 / 3), (0.25, 48, 1 / 3), (0.5, 4, None), (0.75, 3, None)])
def test_karras_spacing_is_closer_with_enough_calls_and_farther_with_few(strength: float, steps: int, ratio: float | None) -> None:
    """What its documentation says, on the schedule of the bundled model: 24 and 12 calls, and 2."""
    schedule = NoiseSchedule.from_betas(zero_terminal_snr(divide_noise(scaled_linear_betas(), 2)))
    means = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(3))
    denoiser = GaussianMixtureDenoiser(means, torch.full((20,), 0.01), torch.ones(20), schedule)  # narrow, as data are
    sources = denoiser.sample(COUNT, torch.Generator().manual_seed(1))
    errors = {}
    for spacing in ("trailing", "karras"):
        table = trajectory(schedule, "dpm++2m", steps, strength, spacing=spacing)  # type: ignore[arg-type]
        truth = denoiser.probability_flow(start(denoiser, sources, table), int(table.t[0]), None)
        errors[spacing] = float((sampled(denoiser, sources, table) - truth).square().mean().sqrt())
    assert errors["karras"] < errors["trailing"] * ratio if ratio else errors["karras"] > errors["trailing"], errors
