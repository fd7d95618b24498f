"""Each table against diffusers' own scheduler on the same network and noise, and the lists of timesteps against what was published."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sampling.curved import SHAPE, Curved, curved, job, source, stable_schedule

from rediffuse.denoisers.base import Denoiser, NoiseSchedule, clean_from_output
from rediffuse.denoisers.schedules import cosine_betas, linear_betas
from rediffuse.errors import ConfigError
from rediffuse.sampling.sampler import noise_generator, sample_one
from rediffuse.sampling.solvers import SOLVERS, SPACINGS, ancestral, ddim, dpm_plus_plus_2m, from_noise, trajectory

STABLE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
EXACT = {"atol": 1e-4, "rtol": 1e-4}


def run_diffusers(scheduler: Any, steps: int, strength: float, seed: int = 0, takes_generator: bool = False) -> torch.Tensor:
    """What the image-to-image pipeline does around a scheduler."""
    scheduler.set_timesteps(steps)
    start = max(steps - min(int(steps * strength), steps), 0)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    times = scheduler.timesteps[start:]
    generator = noise_generator(seed)
    noise = torch.randn(1, *SHAPE, generator=generator)
    x = scheduler.add_noise(source(seed)[None], noise, times[:1])
    extra = {"generator": generator} if takes_generator else {}
    for t in times:
        x = scheduler.step(curved(scheduler.scale_model_input(x, t), t.view(1)), t, x, **extra).prev_sample
    return x[0]


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False},
            {"spacing": "leading", "steps_offset": 1, "end": "first"},
        ),
        ({"timestep_spacing": "trailing", "set_alpha_to_one": True}, {"spacing": "trailing", "end": "clean"}),
    ],
)
@pytest.mark.parametrize("steps", [50, 20])
def test_ddim_is_that_of_diffusers(theirs: dict[str, Any], ours: dict[str, Any], steps: int, strength: float) -> None:
    from diffusers import DDIMScheduler

    expected = run_diffusers(DDIMScheduler(**STABLE, **theirs, clip_sample=False), steps, strength)
    made = sample_one(Curved(), job(trajectory(stable_schedule(), "ddim", steps, strength, **ours), 0))
    torch.testing.assert_close(made, expected, **EXACT)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"timestep_spacing": "trailing", "final_sigmas_type": "zero"}, {}),
        ({"timestep_spacing": "leading", "steps_offset": 1, "final_sigmas_type": "zero"}, {"spacing": "leading", "steps_offset": 1}),
        ({"timestep_spacing": "trailing", "final_sigmas_type": "sigma_min", "lower_order_final": False}, {"end": "first"}),
    ],
)
@pytest.mark.parametrize("steps", [25, 10])
def test_dpm_solver_is_that_of_diffusers(theirs: dict[str, Any], ours: dict[str, Any], steps: int, strength: float) -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(**STABLE, **theirs, algorithm_type="dpmsolver++", solver_order=2)
    made = sample_one(Curved(), job(trajectory(stable_schedule(), "dpm++2m", steps, strength, **ours), 0))
    torch.testing.assert_close(made, run_diffusers(scheduler, steps, strength), **EXACT)


@pytest.mark.parametrize("strength", [*STRENGTHS, 0.1, 0.04, 0.02])
def test_pndm_is_that_of_diffusers_with_its_quirk(strength: float) -> None:
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(**STABLE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)
    made = sample_one(Curved(), job(trajectory(stable_schedule(), "pndm", 50, strength), 0))
    torch.testing.assert_close(made, run_diffusers(scheduler, 50, strength), **EXACT)


@pytest.mark.parametrize(("steps", "offset"), [(1, 0), (2, 1), (3, 0), (7, 1), (100, 5)])
def test_pndm_of_other_lengths(steps: int, offset: int) -> None:
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler(**STABLE, skip_prk_steps=True, steps_offset=offset, set_alpha_to_one=True)
    made = sample_one(Curved(), job(trajectory(stable_schedule(), "pndm", steps, 1.0, steps_offset=offset, end="clean"), 0))
    torch.testing.assert_close(made, run_diffusers(scheduler, steps, 1.0), **EXACT)


def test_published_calls_and_starts() -> None:
    tables = [trajectory(stable_schedule(), "pndm", 50, strength) for strength in STRENGTHS]
    assert [len(table) for table in tables] == [51, 38, 26, 13]
    assert [table.start for table in tables] == [981, 741, 501, 241]
    assert tables[0].t[:4].tolist() == [981, 961, 961, 941]  # the repeat that
    assert tables[2].t[:4].tolist() == [501, 481, 461, 441]  # a cut list has lost
    assert all(table.t[-1] == 1 for table in tables)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_ancestral_is_ddpm(spacing: Any, strength: float) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(**STABLE, variance_type="fixed_small", clip_sample=False, timestep_spacing=spacing)
    made = sample_one(Curved(), job(trajectory(stable_schedule(), "ancestral", 50, strength, spacing=spacing), 3))
    torch.testing.assert_close(made, run_diffusers(scheduler, 50, strength, seed=3, takes_generator=True), **EXACT)


class Exploding(Denoiser):
    """The same network behind a variance-exploding table: it sees x / sqrt(1 + sigma²)."""

    channels = SHAPE[0]

    def __init__(self) -> None:
        super().__init__()
        self.schedule = NoiseSchedule.from_ratios(stable_schedule().ratio)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any = None) -> torch.Tensor:
        alpha, sigma = self.schedule.at(t, x_t)
        return clean_from_output(curved(x_t / (1 + sigma**2).sqrt(), t), x_t, alpha, sigma, "epsilon")

    def loss(self, *_: Any) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("strength", STRENGTHS)
def test_ancestral_on_a_variance_exploding_table_is_euler_ancestral(strength: float) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler(**STABLE, timestep_spacing="trailing")
    denoiser = Exploding()
    made = sample_one(denoiser, job(trajectory(denoiser.schedule, "ancestral", 20, strength), 3))
    torch.testing.assert_close(made, run_diffusers(scheduler, 20, strength, seed=3, takes_generator=True), **EXACT)


def test_from_noise_is_the_text_to_image_pipeline() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(**STABLE, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False, clip_sample=False)
    scheduler.set_timesteps(20)
    x = torch.randn(1, *SHAPE, generator=noise_generator(5)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(curved(x, t.view(1)), t, x).prev_sample
    table = from_noise(stable_schedule(), "ddim", 20, spacing="leading", steps_offset=1, end="first")
    assert table.start is None
    torch.testing.assert_close(sample_one(Curved(), job(table, 5)), x[0], **EXACT)


@settings(max_examples=60, deadline=None)
@given(
    solver=st.sampled_from(SOLVERS), steps=st.integers(1, 120), strength=st.floats(0.01, 1), spacing=st.sampled_from(SPACINGS),
    end=st.sampled_from(["clean", "first"]),
)  # fmt: skip
def test_a_table_walks_down_and_keeps_a_settled_image(solver: Any, steps: int, strength: float, spacing: Any, end: Any) -> None:
    """With x = alpha x0 + sigma z and a network that knows x0, every deterministic step stays on that line and reaches its end."""
    schedule = stable_schedule()
    spacing = "leading" if solver == "pndm" else spacing
    table = trajectory(schedule, solver, steps, strength, spacing=spacing, end=end)
    calls = max(1, int(steps * strength))
    assert len(table) == calls + (solver == "pndm" and steps > 1)
    assert table.start == table.t[0]
    assert all(low < high or (solver == "pndm" and low == high) for high, low in pairwise(table.t.tolist()))
    assert table.t.min() >= 0
    assert all(value.dtype == torch.float64 for value in (table.x, table.saved, table.noise, table.history))
    if solver in ("ddim", "dpm++2m"):
        alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
        after_alpha = torch.cat([alpha[table.t][1:], alpha[:1] if end == "first" else torch.ones(1)])
        after_sigma = torch.cat([sigma[table.t][1:], sigma[:1] if end == "first" else torch.zeros(1)])
        torch.testing.assert_close(table.x * alpha[table.t] + table.history.sum(1), after_alpha)
        torch.testing.assert_close(table.x * sigma[table.t], after_sigma)
        assert not table.noise.any()


def test_ancestral_keeps_the_spread_of_every_level() -> None:
    """If x0_hat is the true x0, x' has exactly mean alpha' x0 and deviation sigma'."""
    schedule = NoiseSchedule.from_betas(linear_betas())
    table = trajectory(schedule, "ancestral", 40, 1.0)
    alpha, sigma = schedule.alpha.double()[table.t], schedule.sigma.double()[table.t]
    after_alpha, after_sigma = torch.cat([alpha[1:], alpha.new_ones(1)]), torch.cat([sigma[1:], sigma.new_zeros(1)])
    torch.testing.assert_close(table.x * alpha + table.history[:, 0], after_alpha)
    torch.testing.assert_close((table.x * sigma).square() + table.noise.square(), after_sigma.square())


def test_a_start_means_the_same_noise_at_any_number_of_steps() -> None:
    schedule = stable_schedule()
    for spacing in ("trailing", "karras"):
        starts = {trajectory(schedule, "dpm++2m", steps, 0.5, spacing=spacing).start for steps in (10, 20, 50, 100)}
        assert starts == {499}


def test_karras_strides_are_equal_in_the_seventh_root() -> None:
    schedule = NoiseSchedule.from_betas(linear_betas(10_000, 1e-5, 0.002))
    table = trajectory(schedule, "dpm++2m", 20, 1.0, spacing="karras")
    strides = schedule.ratio.double()[table.t].pow(1 / 7).diff()
    torch.testing.assert_close(strides, strides.mean().expand_as(strides), rtol=0.05, atol=0)
    assert table.t[-1] == 0
    assert trajectory(schedule, "dpm++2m", 20, 1.0, spacing="karras", end="first").t[-1] > 0


def zero_terminal() -> NoiseSchedule:
    """Signal is gone at the last level (Lin et al., arXiv 2305.08891, Algorithm 1)."""
    root = (1 - linear_betas()).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return NoiseSchedule.from_tables(root, (1 - root.square()).sqrt())


class Settled(Denoiser):
    """Believes in one image whatever it sees."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule, self.channels = schedule, SHAPE[0]

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return source(77).expand_as(x_t)

    def loss(self, *_: Any) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("spacing", ["trailing", "karras"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "ancestral"])
def test_zero_terminal_signal(solver: Any, spacing: Any) -> None:
    schedule = zero_terminal()
    assert schedule.alpha[-1] == 0
    table = trajectory(schedule, solver, 10, 1.0, spacing=spacing)
    assert table.start == 999
    assert all(bool(value.isfinite().all()) for value in (table.x, table.noise, table.history))
    if solver == "dpm++2m":
        assert not table.history[:2, 1].any()  # first order at the level without signal and right after it
    torch.testing.assert_close(sample_one(Settled(schedule), job(table, 1)), source(77), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="no signal"):
        trajectory(schedule, "pndm", 1000, 1.0, steps_offset=0)


def test_levels_of_equal_noise_do_no_harm() -> None:
    alpha = torch.tensor([1.0, 0.9, 0.9, 0.9, 0.5], dtype=torch.float64)
    schedule = NoiseSchedule.from_tables(alpha, (1.0001 - alpha.square()).sqrt())
    for build in (ddim, dpm_plus_plus_2m, ancestral):
        t = torch.tensor([4, 3, 2, 1])
        levels = [torch.cat([table.double()[t], end]) for table, end in ((schedule.alpha, torch.ones(1)), (schedule.sigma, torch.zeros(1)))]
        table = build(t, *levels)
        assert bool(table.history.isfinite().all() and table.x.isfinite().all() and table.noise.isfinite().all())


def test_long_schedules() -> None:
    schedule = NoiseSchedule.from_betas(cosine_betas(4000))
    assert trajectory(schedule, "ddim", 4000, 1.0).t.tolist() == list(range(3999, -1, -1))
    assert len(trajectory(schedule, "dpm++2m", 25, 0.001)) == 1  # never less than one call


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "euler"}, r"unknown solver 'euler'.*ddim, dpm\+\+2m, pndm, ancestral"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1000.*got 0"),
        ({"steps": 1001}, "got 1001"),
        ({"steps": 2.5}, "got 2.5"),
        ({"strength": 0.0}, r"strength must be in \(0, 1\], got 0.0"),
        ({"strength": 1.3}, "got 1.3; 1.0 redoes the whole schedule"),
        ({"strength": float("nan")}, "got nan"),
        ({"spacing": "even"}, "unknown spacing 'even'.*trailing, leading, karras"),
        ({"end": "zero"}, "unknown end 'zero'"),
        ({"steps_offset": 1}, "steps_offset moves the leading spacing alone, got 1 with 'trailing'"),
        ({"spacing": "leading", "steps_offset": -1}, "steps_offset -1"),
        ({"spacing": "leading", "steps": 50, "steps_offset": 40}, "steps_offset 40 with 50 steps asks for level 1020.*from 0 to 19"),
        ({"solver": "pndm", "spacing": "trailing"}, "pndm is kept as published, with spacing \"leading\", got 'trailing'"),
        ({"solver": "pndm", "steps": 1000}, "asks for level 1000"),
    ],
)
def test_settings_are_refused_by_name_value_and_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trajectory(stable_schedule(), **{"solver": "ddim", "steps": 20, "strength": 0.5, **changes})


def test_a_level_without_noise_is_refused() -> None:
    schedule = NoiseSchedule.from_tables(torch.tensor([1.0, 0.9, 0.5]), torch.tensor([0.0, 0.4, 0.8]))
    with pytest.raises(ConfigError, match="level 0 of the schedule has no noise"):
        trajectory(schedule, "ddim", 3, 1.0)
    assert len(trajectory(schedule, "ddim", 1, 1.0)) == 1
