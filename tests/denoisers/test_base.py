"""The one abstraction: tables, conditions, and the three parameterisations of one belief."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from rediffuse.denoisers.base import (
    Condition,
    DenoiserSpec,
    NoiseSchedule,
    Prediction,
    clean_from_output,
    noise_from_clean,
    training_target,
)
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas, zero_terminal_snr
from rediffuse.errors import ConfigError


def pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 2, 2, generator=generator), torch.randn(4, 3, 2, 2, generator=generator)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_a_perfect_output_gives_the_clean_image_back(prediction: Prediction) -> None:
    schedule = NoiseSchedule.from_betas(linear_betas())
    x0, noise = pair()
    t = torch.tensor([0, 100, 500, 800])
    alpha, sigma = schedule.at(t, x0)
    x_t = schedule.add_noise(x0, noise, t)
    output = training_target(x0, noise, alpha, sigma, prediction)
    belief = clean_from_output(output, x_t, alpha, sigma, prediction)
    torch.testing.assert_close(belief, x0, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(noise_from_clean(x_t, x0, alpha, sigma), noise, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_a_step_without_signal_has_a_belief(prediction: Prediction) -> None:
    schedule = NoiseSchedule.from_betas(zero_terminal_snr(linear_betas()))
    x0, noise = pair()
    alpha, sigma = schedule.at(torch.full((4,), 999), x0)
    assert torch.equal(schedule.add_noise(x0, noise, torch.full((4,), 999)), noise)
    output = training_target(x0, noise, alpha, sigma, prediction)
    torch.testing.assert_close(clean_from_output(output, noise, alpha, sigma, prediction), x0)


def test_the_arithmetic_is_float32_whatever_the_network_puts_out() -> None:
    x0, noise = pair()
    one = torch.ones(4, 1, 1, 1)
    assert clean_from_output(noise.bfloat16(), x0, one, one, "epsilon").dtype == torch.float32


def test_tables_are_read_row_by_row_and_any_rank() -> None:
    schedule = NoiseSchedule.from_ratios(torch.tensor([0.1, 1.0, 10.0]))
    assert len(schedule) == 3
    for shape in ((2,), (2, 3), (2, 3, 4, 5)):
        alpha, sigma = schedule.at(torch.tensor([2, 0]), torch.zeros(shape))
        assert alpha.ndim == len(shape)
        torch.testing.assert_close(sigma.flatten(), torch.tensor([10.0, 0.1]))
        assert torch.equal(alpha.flatten(), torch.ones(2))


def test_conditions_are_rows() -> None:
    condition = Condition(embedding=torch.arange(12.0).view(3, 2, 2), labels=torch.tensor([7, 8, 9]))
    assert len(condition) == 3
    twice = condition.index([2, 0, 2])
    assert twice.labels is not None
    assert twice.labels.tolist() == [9, 7, 9]
    joined = Condition.cat([condition.index(slice(0, 1)), condition.index(torch.tensor([1, 2]))])
    assert joined.embedding is not None
    assert condition.embedding is not None
    assert torch.equal(joined.embedding, condition.embedding)
    assert joined.pooled is None
    with pytest.raises(ConfigError, match="labels"):
        Condition.cat([condition, Condition(embedding=torch.zeros(1, 2, 2))])


def test_pixel_space_is_the_default() -> None:
    oracle = GaussianMixtureDenoiser(
        torch.zeros(1, 3, 2, 2), torch.ones(1), torch.ones(1), NoiseSchedule.from_ratios(torch.tensor([0.1, 1.0]))
    )
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    x = oracle.encode(images)
    assert x.min() == -1
    assert x.max() == 1
    torch.testing.assert_close(oracle.decode(x), images)
    assert oracle.decode(3 * x).max() == 1


def test_a_fingerprint_tells_denoisers_apart() -> None:
    def built(mean: float = 0.0, last: float = 0.02, dtype: torch.dtype = torch.float32) -> GaussianMixtureDenoiser:
        betas = linear_betas(1000, 1e-4, last)
        return GaussianMixtureDenoiser(
            torch.full((1, 3, 2, 2), mean), torch.ones(1), torch.ones(1), NoiseSchedule.from_betas(betas), dtype=dtype
        )

    assert built().fingerprint() == built(dtype=torch.float64).fingerprint()  # how it computes is not what it is
    assert len({built(mean, last).fingerprint() for mean in (0.0, 0.1) for last in (0.02, 0.03)}) == 4
    loaded = built()
    loaded.spec = DenoiserSpec(name="a", path="b", weights_hash="c")
    assert loaded.fingerprint() == "c"
