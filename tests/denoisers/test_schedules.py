"""Schedules against published figures and against diffusers' own tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule, clean_from_output
from rediffuse.denoisers.schedules import (
    betas_of,
    cosine_betas,
    divide_noise,
    linear_betas,
    prediction_of,
    scaled_linear_betas,
    schedule_of,
    ve_ratios,
    zero_terminal_snr,
)
from rediffuse.errors import ConfigError, ModelError

# ADM's linear schedule of 1,000 steps: t, alpha, sigma, sigma / alpha, half of that (images in [0, 1]), log SNR, 1 / alpha, with the
# digits that were printed.
ADM = """
0    .99995 .0100  0.0100 .0050  9.21   1.000
50   .98486 .17335 0.1760 .0880  3.47   1.015
100  .94612 .32382 0.3423 .1711  2.14   1.057
150  .88650 .46272 0.5220 .2610  1.30   1.128
200  .81015 .58622 0.7236 .3618  0.65   1.234
250  .72210 .69179 0.9580 .4790  0.09   1.385
300  .62770 .77845 1.2402 .6201  -0.43  1.593
350  .53215 .84665 1.5910 .7955  -0.93  1.879
400  .43997 .89801 2.0411 1.0205 -1.43  2.273
450  .35474 .93497 2.6357 1.3178 -1.94  2.819
500  .27892 .96031 3.4430 1.7215 -2.47  3.585
600  .15990 .98713 6.1735 3.0868 -3.64  6.254
700  .08288 .99656 12.025 6.0124 -4.97  12.07
800  .03883 .99925 25.736 12.868 -6.50  25.76
900  .01644 .99987 60.822 30.411 -8.22  60.83
999  .00635 .99998 157.41 78.704 -10.12 157.41
"""
QUANTILES = torch.tensor([0.10, 0.25, 0.50, 0.75, 0.90], dtype=torch.float64)


def agrees(value: float, printed: str) -> bool:
    """Whether the value is what was printed, up to half a unit of its last digit (and float32)."""
    unit = 10.0 ** -len(printed.split(".")[1])
    return abs(value - float(printed)) <= 0.5 * unit * (1 + 1e-3) + 1e-6 * abs(value)


@pytest.mark.parametrize("line", ADM.strip().splitlines())
def test_the_printed_table(line: str) -> None:
    t, *printed = line.split()
    schedule = NoiseSchedule.from_betas(linear_betas())
    tables = (schedule.alpha, schedule.sigma, schedule.ratio, schedule.ratio / 2, schedule.log_snr, 1 / schedule.alpha)
    values = [float(table[int(t)]) for table in tables]
    assert all(agrees(value, text) for value, text in zip(values, printed, strict=True)), values


@pytest.mark.parametrize(
    ("betas", "printed"),
    [(linear_betas(), (".34", ".96", "3.43", "17.3", "60")), (cosine_betas(4000), (".17", ".43", "1.01", "2.4", "6.4"))],
    ids=["linear-1000", "cosine-4000"],
)
def test_quantiles_of_the_noise_under_uniform_t(betas: Tensor, printed: tuple[str, ...]) -> None:
    quantiles = NoiseSchedule.from_betas(betas).ratio.double().quantile(QUANTILES)
    for value, text in zip(quantiles.tolist(), printed, strict=True):
        digits = len(text.replace(".", "").lstrip("0"))
        assert float(f"{value:.{digits}g}") == float(text)


@pytest.mark.parametrize(
    ("betas", "printed"),
    [(linear_betas(), {0.12: 70, 0.25: 145, 0.5: 259, 0.75: 339, 1.0: 396}), (cosine_betas(4000), {0.25: 1158, 0.5: 1984, 1.0: 2809})],
    ids=["linear-1000", "cosine-4000"],
)
def test_times_of_denoised_smoothing(betas: Tensor, printed: dict[float, int]) -> None:
    """The first t with at least the noise sigma on images in [0, 1], 2 sigma here (Carlini et al., ICLR 2023, arXiv 2206.10550)."""
    ratio = NoiseSchedule.from_betas(betas).ratio
    assert {sigma: int((ratio >= 2 * sigma).nonzero()[0]) for sigma in printed} == printed


@pytest.mark.parametrize(("name", "betas"), [("x0_linear_1000", linear_betas()), ("x0_cosine_4000", cosine_betas(4000))])
def test_noise_and_belief_are_those_of_the_published_program(name: str, betas: Tensor) -> None:
    """Numbers that OpenAI's program gave for random images, noise and outputs."""
    given = load_file(Path(__file__).parent / "fixtures" / f"{name}.safetensors")
    schedule, t = NoiseSchedule.from_betas(betas), given["t"]
    torch.testing.assert_close((1 - betas).cumprod(0), given["alphas_cumprod"], rtol=1e-12, atol=0)
    x_t = schedule.add_noise(given["x0"], given["noise"], t)
    torch.testing.assert_close(x_t, given["x_t"], atol=1e-5, rtol=0)
    alpha, sigma = schedule.at(t, x_t)
    x0_hat = clean_from_output(given["eps"], given["x_t"], alpha, sigma, "epsilon").clamp(-1, 1)
    rounding = 1e-7 / alpha  # of float32, enlarged; beyond 1e-5 only where alpha is below .01
    assert ((x0_hat - given["x0_hat_clamped"]).abs() <= rounding.clamp(min=1e-5)).all()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"beta_schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0155, "num_train_timesteps": 300},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.01, 0.02, 0.1]},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True},
    ],
    ids=["defaults", "linear", "scaled_linear", "cosine", "trained", "zero terminal SNR"],
)
def test_configs_give_the_tables_of_diffusers(config: dict[str, Any]) -> None:
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(**config).alphas_cumprod
    schedule = schedule_of({**config, "prediction_type": "v_prediction"})
    torch.testing.assert_close(schedule.alpha.square(), theirs, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(schedule.sigma.square(), 1 - theirs, atol=2e-6, rtol=1e-4)


def test_zero_terminal_snr_ends_silent_and_starts_where_it_did() -> None:
    betas = scaled_linear_betas()
    before, after = NoiseSchedule.from_betas(betas), NoiseSchedule.from_betas(zero_terminal_snr(betas))
    assert float(after.alpha[-1]) == 0
    assert float(after.sigma[-1]) == 1
    torch.testing.assert_close(after.alpha[0], before.alpha[0])
    root, shifted = before.alpha.double(), after.alpha.double()
    slope = (root[0] - root[500]) / (shifted[0] - shifted[500])
    torch.testing.assert_close(root[0] - root, slope * (shifted[0] - shifted), atol=1e-6, rtol=0)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_divided_noise_is_that_of_the_same_step_divided(factor: float) -> None:
    plain, divided = (NoiseSchedule.from_betas(betas) for betas in (scaled_linear_betas(), divide_noise(scaled_linear_betas(), factor)))
    torch.testing.assert_close(divided.ratio, plain.ratio / factor, rtol=1e-5, atol=0)
    torch.testing.assert_close(divided.alpha.square() + divided.sigma.square(), torch.ones(1000))


def test_rounded_trained_betas_keep_the_schedule() -> None:
    """A config file holds decimal numbers; ten digits after the point are enough."""
    betas = divide_noise(scaled_linear_betas(), 2.0)
    written = schedule_of({"trained_betas": [round(value, 10) for value in betas.tolist()]})
    torch.testing.assert_close(written.ratio, NoiseSchedule.from_betas(betas).ratio, rtol=1e-5, atol=0)


def test_a_written_schedule_may_end_without_signal() -> None:
    """As `rescale_betas_zero_snr` says in another way; PNDM of diffusers reads the betas and not that word."""
    betas = zero_terminal_snr(scaled_linear_betas())
    written = schedule_of({"trained_betas": [round(value, 10) for value in betas.tolist()]})
    said = schedule_of({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True})
    torch.testing.assert_close(written.alpha, said.alpha, rtol=1e-4, atol=0)
    assert written.alpha[-1] == 0
    assert written.ratio[-1].isinf()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"trained_betas": [0.1, 1.5]}, "1.5"),
        ({"trained_betas": [0.1]}, "at least 2"),
        ({"trained_betas": [0.1, 1.0, 0.2]}, "only at the end"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_schedules_that_cannot_be_are_refused(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        betas_of(config)


def test_predictions() -> None:
    assert prediction_of({}) == "epsilon"
    assert prediction_of({"prediction_type": "v_prediction"}) == "v_prediction"
    with pytest.raises(ModelError, match="flow_prediction"):
        prediction_of({"prediction_type": "flow_prediction"})
    with pytest.raises(ModelError, match="v_prediction"):
        prediction_of({"prediction_type": "epsilon", "rescale_betas_zero_snr": True})
    with pytest.raises(ModelError, match="v_prediction"):
        prediction_of({"prediction_type": "epsilon", "trained_betas": [0.5, 1.0]})


def test_exploding_noise_grows_by_one_factor() -> None:
    """Also in closed form: 5,000 = 50 / .01 in 999 steps."""
    schedule = NoiseSchedule.from_ratios(ve_ratios())
    assert len(schedule) == 1000
    assert torch.equal(schedule.alpha, torch.ones(1000))
    assert [float(schedule.sigma[t]) for t in (0, 999)] == pytest.approx([0.01, 50.0])
    assert float(schedule.sigma[333]) == pytest.approx(0.01 * 5000 ** (1 / 3))
    torch.testing.assert_close(ve_ratios(0.02, 8, 5), torch.tensor([0.02, 0.02 * 400**0.25, 0.4, 0.02 * 400**0.75, 8]).double())


@pytest.mark.parametrize("wrong", [(0.0, 50.0, 1000), (50.0, 0.01, 1000), (0.01, float("inf"), 1000), (0.01, 50.0, 1)])
def test_levels_that_do_not_grow_are_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError, match=r"0 < lowest < highest and at least 2 steps, got"):
        ve_ratios(*wrong)


def test_tables_must_fit_and_grow() -> None:
    with pytest.raises(ConfigError, match="one length"):
        NoiseSchedule.from_tables(torch.ones(3), torch.ones(4))
    with pytest.raises(ConfigError, match="reverse"):
        NoiseSchedule.from_ratios(torch.tensor([2.0, 1.0]))
