"""Solvers as tables of coefficients, built in float64.

A trajectory is a list of levels (alpha, sigma), noisiest first, with one denoiser call at each level but the last. `ddim`,
`dpm_plus_plus_2m` and `ancestral` turn such a list into the rows of a StepTable; `pndm` follows a list of timesteps because its
published form mislabels levels. Formulas use alpha and sigma and never 1 / alpha, so that a trajectory may start where alpha is 0; PNDM,
which steps in noise, cannot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.errors import ConfigError
from rediffuse.sampling.table import StepTable

Solver = Literal["ddim", "dpm++2m", "pndm", "ancestral"]
Spacing = Literal["trailing", "leading", "karras"]
End = Literal["clean", "first"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)
SPACINGS: tuple[Spacing, ...] = get_args(Spacing)


def trajectory(
    schedule: NoiseSchedule,
    solver: Solver,
    steps: int,
    strength: float,
    *,
    spacing: Spacing | None = None,
    steps_offset: int | None = None,
    end: End | None = None,
) -> StepTable:
    """The calls that redo the last `strength` of a schedule of `steps` steps.

    Of the whole list of timesteps the last max(1, int(steps * strength)) are run, as diffusers' image-to-image pipeline cuts it.
    "pndm" is the published DA-Fusion setting and costs one call more; with 50 steps strengths 1, .75, .5, .25 make 51, 38, 26, 13 calls.

    Args:
        solver: "dpm++2m" for 10 to 30 steps; "ddim" is first order, to compare with others; "ancestral" adds fresh noise at each step
            (more variety, needs 50 steps or more); "pndm" only to redo what was published.
        steps: number of steps of the whole schedule, 1 to len(schedule).
        strength: share of the schedule that is redone, in (0, 1]; 1 starts at the noisiest level of the list (SDEdit's t0).
        spacing: "trailing" counts down from the last level in equal strides of t, so that a strength means the same noise at any number of
            steps; "leading" counts up from `steps_offset`, as most published pipelines do; "karras" starts where
            trailing starts and takes strides that shrink towards level 0. On Gaussian mixtures dpm++2m as a rule ends nearer to the exact
            path with it at strengths up to .5 and a dozen calls or more; with few calls, with ddim and near strength 1 often farther off.
            Default: leading for pndm, else trailing.
        steps_offset: added to each t of the leading spacing. Default: 1 for pndm, else 0. diffusers' pipelines of Stable Diffusion put 1 in
            the place of any other that a scheduler_config.json holds; so the default is what was published, whatever the model says.
        end: "clean" goes to alpha 1, sigma 0; "first" stops at level 0, as Stable Diffusion's scheduler configs do (`set_alpha_to_one:
            false`). Default: first for pndm, else clean.
    Returns: the table; `start` is t[0].
    Raises: ConfigError, naming the value and the fix.
    Reference: Meng et al., ICLR 2022, arXiv 2108.01073, Algorithm 1 (start in the middle); Lin et al., arXiv 2305.08891, Table 2
    (spacings).
    """
    published = solver == "pndm"
    spacing = spacing or ("leading" if published else "trailing")
    steps_offset = int(published) if steps_offset is None else steps_offset
    end = end or ("first" if published else "clean")
    _check(schedule, solver, steps, strength, spacing, steps_offset, end)
    calls = max(1, min(int(steps * strength), steps))
    if solver == "pndm":
        return pndm(schedule, steps, calls, steps_offset, end)
    if spacing == "leading":
        # diffusers gives DPM-Solver one interval more, because it steps on from its last t to the clean image
        t = leading(len(schedule), steps, steps_offset, intervals=steps + int(solver == "dpm++2m"))[steps - calls :]
    else:
        t = trailing(len(schedule), steps)[steps - calls :]
    if spacing == "karras":
        t = karras(schedule, int(t[0]), calls, end)
    _check_levels(schedule, solver, t)
    last_alpha, last_sigma = _level(schedule, -1, end)
    alpha = torch.cat([schedule.alpha.double().cpu()[t], last_alpha.view(1)])  # (calls + 1,)
    sigma = torch.cat([schedule.sigma.double().cpu()[t], last_sigma.view(1)])
    build = {"ddim": ddim, "dpm++2m": dpm_plus_plus_2m, "ancestral": ancestral}[solver]
    return build(t, alpha, sigma)


def from_noise(
    schedule: NoiseSchedule,
    solver: Solver,
    steps: int,
    *,
    spacing: Spacing | None = None,
    steps_offset: int | None = None,
    end: End | None = None,
) -> StepTable:
    """The whole schedule from pure noise: sampling without a source. Args as in `trajectory`; `start` is None."""
    return replace(trajectory(schedule, solver, steps, 1.0, spacing=spacing, steps_offset=steps_offset, end=end), start=None)


def trailing(levels: int, steps: int) -> Tensor:
    """(steps,) int64: from levels - 1 down in strides of levels / steps, rounded."""
    return (levels - torch.arange(steps, dtype=torch.float64) * (levels / steps)).round().long() - 1


def leading(levels: int, steps: int, offset: int, intervals: int) -> Tensor:
    """(steps,) int64: down to `offset` (one stride above it if there is an interval more) in strides of levels // intervals."""
    first = intervals - steps
    return torch.arange(first, first + steps).flip(0) * (levels // intervals) + offset


def karras(schedule: NoiseSchedule, start: int, calls: int, end: End, rho: float = 7) -> Tensor:
    """(calls,) int64: from `start` to level 0 in strides of (sigma / alpha)^(1 / rho) as equal as the table allows.

    With end "clean" the last call is at level 0, with "first" the last step ends there. Reference: Karras et al., NeurIPS 2022, arXiv
    2206.00364, Eq. 5.
    """
    scale = (schedule.sigma.double() / schedule.alpha.double()).cpu() ** (1 / rho)
    highest = int(scale[: start + 1].isfinite().nonzero().max())  # zero terminal SNR: strides count from the last level with signal
    goals = torch.linspace(float(scale[highest]), float(scale[0]), calls + int(end == "first"), dtype=torch.float64)[:calls]
    above = torch.searchsorted(scale, goals).clamp(1, len(scale) - 1)
    t = torch.where((scale[above - 1] - goals).abs() <= (scale[above] - goals).abs(), above - 1, above)
    t[0] = start
    rank = torch.arange(calls)
    t = (t + rank).cummin(0).values - rank  # strictly falling,
    return torch.maximum(t, rank.flip(0))  # with a level left for every call to come


def ddim(t: Tensor, alpha: Tensor, sigma: Tensor) -> StepTable:
    """Deterministic, first order, one belief. t: (n,); alpha, sigma: (n + 1,).

    x' = alpha' x0_hat + sigma' (x - alpha x0_hat) / sigma. Reference: Song et al., ICLR 2021, arXiv 2010.02502, Eq. 12 with eta 0.
    """
    x = sigma[1:] / sigma[:-1]
    return _table(t, x=x, history=(alpha[1:] - x * alpha[:-1])[:, None])


def dpm_plus_plus_2m(t: Tensor, alpha: Tensor, sigma: Tensor) -> StepTable:
    """Deterministic, second order, two beliefs. t: (n,); alpha, sigma: (n + 1,).

    With lambda = log(alpha / sigma), h = lambda' - lambda and r = h_before / h:

        x' = (sigma' / sigma) x - alpha' (exp(-h) - 1) D,    D = (1 + 1 / 2r) x0_hat - 1 / 2r x0_hat_before

    First order (D = x0_hat) in three places: at the first call, which has no belief before it; after a level without signal (h_before
    is infinite, so 1 / r is 0); and in a last step to the clean image, at any number of steps: there h is infinite, and only D = x0_hat
    has a limit. A last step to level 0 stays second order.

    Reference: Lu et al. 2022, arXiv 2211.01095, Algorithm 2.
    """
    step = _half_log_snr(alpha, sigma).diff()  # (n,) h
    extrapolate = torch.zeros_like(step)  # 1 / 2r
    extrapolate[1:] = step[1:] / (2 * step[:-1])
    extrapolate[1:][(step[:-1] <= 0) | step[:-1].isinf() | step[1:].isinf()] = 0
    x = sigma[1:] / sigma[:-1]
    belief = alpha[1:] - x * alpha[:-1]  # -alpha' (exp(-h) - 1), without the ratio
    return _table(t, x=x, history=torch.stack([belief * (1 + extrapolate), -belief * extrapolate], 1))


def ancestral(t: Tensor, alpha: Tensor, sigma: Tensor) -> StepTable:
    """Fresh noise at every step but one to the clean image. t: (n,); alpha, sigma: (n + 1,).

    The posterior q(x' | x, x0 = x0_hat). With a = alpha / alpha', v = sigma² - a² sigma'² (the noise between the two levels):

        mean = a sigma'² / sigma² x + alpha' v / sigma² x0_hat,    variance = v sigma'² / sigma²

    On a variance-preserving schedule this is DDPM with the small variance; on a variance-exploding one it is "Euler ancestral": one
    table for both.
    Reference: Ho et al., NeurIPS 2020, arXiv 2006.11239, Eq. 7; Kingma et al., NeurIPS 2021, arXiv 2107.00630, appendix A (any alpha and
    sigma).
    """
    kept = alpha[:-1] / alpha[1:]
    between = (sigma[:-1].square() - (kept * sigma[1:]).square()).clamp(min=0)
    share = (sigma[1:] / sigma[:-1]).square()
    history = alpha[1:] * between / sigma[:-1].square()
    return _table(t, x=kept * share, history=history[:, None], noise=(between * share).sqrt())


def pndm(schedule: NoiseSchedule, steps: int, calls: int, offset: int, end: End) -> StepTable:
    """PLMS as published in Stable Diffusion pipelines (skip_prk_steps), the last `calls` steps of `steps`.

    Fourth-order Adams-Bashforth in the noise, with x' = (alpha' / alpha) x + (sigma' - sigma alpha' / alpha) noise. The second call of a
    trajectory redoes the first step, from the x before it, with the mean of two noises; the whole list of timesteps therefore names its
    second t twice.
    A list that is cut in the middle has lost that repeat, yet the second call still redoes the first step: from the third call on, x is
    one stride noisier than the t it is called with. That is the quirk of every published image-to-image run with this solver; it is kept
    here on purpose.

    Reference: Liu et al., ICLR 2022, arXiv 2202.09778, Eq. 9 and 12; the call counts are those of diffusers' PNDMScheduler.
    """
    stride = len(schedule) // steps
    t = leading(len(schedule), steps, offset, intervals=steps)
    t = torch.cat([t[:1], t[1:2], t[1:]])[steps - calls :]
    _check_levels(schedule, "pndm", t)
    n = len(t)
    x, saved = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    history = torch.zeros(n, 4, dtype=torch.float64)
    for i, at in enumerate(t.tolist()):
        here, there = (at + stride, at) if i == 1 else (at, at - stride)
        (alpha, sigma), (next_alpha, next_sigma) = _level(schedule, here, end), _level(schedule, there, end)
        (saved if i == 1 else x)[i] = next_alpha / alpha
        weights = torch.tensor(_ADAMS_BASHFORTH[min(i, 4)], dtype=torch.float64)
        history[i, : len(weights)] = weights * (next_sigma - sigma * next_alpha / alpha)
    first, second = torch.arange(n) == 0, torch.arange(n) == 1
    return StepTable(
        start=int(t[0]), t=t, remembers="noise", x=x, saved=saved, noise=torch.zeros_like(x), history=history, push=~second, save=first
    )


# By call: Euler, the mean that redoes it, then two, three and four noises (newest first).
_ADAMS_BASHFORTH = (
    (1.0,),
    (1 / 2, 1 / 2),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _table(t: Tensor, *, x: Tensor, history: Tensor, noise: Tensor | None = None) -> StepTable:
    """A table that remembers x0_hat and saves no x."""
    never = torch.zeros(len(t), dtype=torch.bool)
    return StepTable(
        start=int(t[0]),
        t=t,
        remembers="x0",
        x=x,
        saved=torch.zeros_like(x),
        noise=torch.zeros_like(x) if noise is None else noise,
        history=history,
        push=~never,
        save=never,
    )


def _half_log_snr(alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha.log() - sigma.log()


def _level(schedule: NoiseSchedule, t: int, end: End) -> tuple[Tensor, Tensor]:
    """alpha and sigma at t in float64; a negative t is the end of the trajectory."""
    if t < 0 and end == "clean":
        return torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return schedule.alpha[max(t, 0)].double().cpu(), schedule.sigma[max(t, 0)].double().cpu()


def _check(schedule: NoiseSchedule, solver: str, steps: int, strength: float, spacing: str, steps_offset: int, end: str) -> None:
    if solver not in SOLVERS:
        raise ConfigError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= len(schedule):
        raise ConfigError(f"steps must be a whole number from 1 to {len(schedule)} (the levels of the schedule), got {steps!r}")
    if not 0 < strength <= 1:
        raise ConfigError(f"strength must be in (0, 1], got {strength}; 1.0 redoes the whole schedule")
    if spacing not in SPACINGS:
        raise ConfigError(f"unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)}")
    if end not in get_args(End):
        raise ConfigError(f"unknown end {end!r}; choose one of {', '.join(get_args(End))}")
    if solver == "pndm" and spacing != "leading":
        raise ConfigError(f'pndm is kept as published, with spacing "leading", got {spacing!r}; use dpm++2m for another spacing')
    if spacing != "leading" and steps_offset:
        raise ConfigError(
            f'steps_offset moves the leading spacing alone, got {steps_offset} with {spacing!r}; leave it out or set spacing="leading"'
        )
    if spacing == "leading":
        stride = len(schedule) // (steps + int(solver == "dpm++2m"))
        last = (steps - int(solver != "dpm++2m")) * stride + steps_offset
        if stride < 1 or steps_offset < 0 or last >= len(schedule):
            raise ConfigError(
                f"steps_offset {steps_offset} with {steps} steps asks for level {last} in strides of {stride}, the schedule has 0 to "
                f"{len(schedule) - 1}; use fewer steps, or an offset from 0 to {max(0, len(schedule) - 1 - last + steps_offset)}"
            )


def _check_levels(schedule: NoiseSchedule, solver: str, t: Tensor) -> None:
    alpha, sigma = schedule.alpha.cpu()[t], schedule.sigma.cpu()[t]
    if bool((sigma <= 0).any()):
        raise ConfigError(f"level {int(t[sigma <= 0][0])} of the schedule has no noise, so nothing can be denoised there; use fewer steps")
    if solver == "pndm" and bool((alpha <= 0).any()):
        raise ConfigError(f"pndm cannot start at level {int(t[0])}, which has no signal (alpha 0); use dpm++2m or ddim, or more steps")
