"""Runs sampling jobs: many images, each on its own way through its own table, in shared batches.

Slots of one call may stand at different noise levels of different solvers. What differs between them is gathered from tables on the
device: a step does no arithmetic per slot in Python and never waits for the device. What a job gives depends on that job alone, up to
the rounding of the network in batches of other sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule
from rediffuse.errors import ConfigError
from rediffuse.sampling.packing import Packing, pack
from rediffuse.sampling.slots import Rows, Slots
from rediffuse.sampling.table import SamplingJob, StepTable

Progress = Callable[[int, int], None]
"""Called after each denoiser call with the steps done and the steps in all, counted over all jobs."""


def run_jobs(denoiser: Denoiser, jobs: Sequence[SamplingJob], batch: int, progress: Progress | None = None) -> Tensor:
    """Sample all jobs, packed into calls of at most `batch` slots.

    A job starts from x = alpha[start] source + sigma[start] z (SDEdit); without a start, from noise of the scale that x has at t[0]
    where clean
    images have unit variance: sqrt(alpha² + sigma²) z. All z are drawn on the CPU from `noise_generator(job.seed)`: the start's first,
    then one for each step that adds noise. Where a mask is 0, x is replaced after each step by the source, noised with the start's z to
    the level of the next call, and after the last step by the source itself (RePaint without resampling, Lugmayr et al., CVPR 2022,
    arXiv 2201.09865, Eq. 8).

    Besides the result, memory grows with `batch` and with the number of different conditions, not with the number of jobs.

    Args:
        denoiser: any; wrap it in `ClassifierFree` for guidance.
        jobs: at least one; all sources of one shape. Jobs that share a Condition or a StepTable object share its copy on the device.
        batch: slots of a full call.
        progress: called after every call.
    Returns: (N, C, H, W) float32 on the denoiser's device, in the order of the jobs.
    Raises: ConfigError.
    """
    _check(denoiser, jobs)
    device, shape = denoiser.device, jobs[0].source.shape
    tables = list({id(job.table): job.table for job in jobs}.values())
    plan = _Timetable.of(pack([len(job.table) for job in jobs], batch), jobs, tables)
    rows = Rows.stack(tables, denoiser.schedule)
    pushes, adds_noise = rows.push.numpy()[plan.row], rows.noise.numpy()[plan.row] != 0  # (calls, batch), on the host
    out = torch.empty(len(jobs), *shape, device=device)  # outside of inference mode: gradients may pass through what follows
    done = (plan.variant >= 0).sum(axis=1).cumsum()
    with torch.inference_mode():
        rows = rows.to(device)
        row, condition_row = (_upload(torch.from_numpy(grid), device) for grid in (plan.row, plan.condition))
        condition = _stack_conditions(jobs, device)
        slots = Slots(int(plan.sizes[0]), shape, tables, any(job.mask is not None for job in jobs), device)
        generators: dict[int, torch.Generator] = {}
        for call, size in enumerate(plan.sizes.tolist()):
            if call and size < plan.sizes[call - 1]:
                slots.move(_upload(plan.order(call), device))
            places, variants = plan.entering(call)
            _enter(slots, places, variants, jobs, generators, denoiser.schedule)
            now = rows.index(row[call, :size])
            x0_hat = denoiser(slots.x, now.t, None if condition is None else condition.index(condition_row[call, :size])).float()
            noise = _step_noise(plan.variant[call, :size], adds_noise[call, :size], generators, shape, device)
            slots.step(now, x0_hat, noise, all_push=bool(pushes[call, :size].all()))
            places, variants = plan.leaving(call)
            if len(places):
                out[_upload(torch.tensor(variants), device)] = slots.x[_upload(torch.from_numpy(places), device)]
            for variant in variants:
                del generators[variant]
            if progress is not None:
                progress(int(done[call]), int(done[-1]))
    return out


def sample_one(denoiser: Denoiser, job: SamplingJob) -> Tensor:
    """One job in batches of one. Returns: (C, H, W) float32."""
    return run_jobs(denoiser, [job], batch=1)[0]


def noise_generator(seed: int) -> torch.Generator:
    """The generator of all noise of a job with this seed, on the CPU: every device sees the same noise.

    For seeds under 2^32 it is `torch.Generator().manual_seed(seed)`. torch ignores the bits above; here they are folded in.
    """
    return torch.Generator().manual_seed((seed ^ (seed >> 32)) & 0xFFFFFFFF)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Timetable:
    """A packing in terms of rows and conditions. Arrays on the host; (calls, batch) where not said otherwise."""

    sizes: NDArray[np.int64]  # (calls,)
    length: NDArray[np.int64]  # (N,)
    variant: NDArray[np.int64]  # -1 where a slot is empty
    step: NDArray[np.int64]  # -1 where a slot is empty
    row: NDArray[np.int64]
    condition: NDArray[np.int64]

    @classmethod
    def of(cls, packing: Packing, jobs: Sequence[SamplingJob], tables: Sequence[StepTable]) -> Self:
        starts = np.cumsum([0, *(len(table) for table in tables)])
        table_place = {id(table): place for place, table in enumerate(tables)}
        condition_place = {key: place for place, key in enumerate(dict.fromkeys(id(job.condition) for job in jobs))}
        first_row = starts[[table_place[id(job.table)] for job in jobs]]
        condition = np.array([condition_place[id(job.condition)] for job in jobs])
        variant, step = packing.grid(2), packing.grid(3)
        return cls(
            sizes=packing.sizes,
            length=np.array([len(job.table) for job in jobs]),
            variant=variant,
            step=step,
            row=np.where(variant < 0, starts[-1], first_row[variant] + step),
            condition=np.where(variant < 0, 0, condition[variant]),
        )

    def order(self, call: int) -> Tensor:
        """(size,) where each slot's variant stood one call before; 0 where it has only come."""
        before = np.zeros(len(self.length), dtype=np.int64)
        busy = np.flatnonzero(self.variant[call - 1] >= 0)
        before[self.variant[call - 1, busy]] = busy
        size = self.sizes[call]
        return torch.from_numpy(np.where(self.step[call, :size] > 0, before[self.variant[call, :size]], 0))

    def entering(self, call: int) -> tuple[NDArray[np.int64], list[int]]:
        """Slots and variants that take their first step at this call."""
        places = np.flatnonzero(self.step[call] == 0)
        return places, self.variant[call, places].tolist()

    def leaving(self, call: int) -> tuple[NDArray[np.int64], list[int]]:
        """Slots and variants that have taken their last step."""
        places = np.flatnonzero((self.variant[call] >= 0) & (self.step[call] == self.length[self.variant[call]] - 1))
        return places, self.variant[call, places].tolist()


def _enter(
    slots: Slots,
    places: NDArray[np.int64],
    variants: Sequence[int],
    jobs: Sequence[SamplingJob],
    generators: dict[int, torch.Generator],
    schedule: NoiseSchedule,
) -> None:
    """Put these variants at their starting levels into these slots."""
    if not len(places):
        return
    device = slots.x.device
    generators |= {variant: noise_generator(jobs[variant].seed) for variant in variants}
    noise = _upload(torch.stack([torch.randn(slots.x.shape[1:], generator=generators[variant]) for variant in variants]), device)
    source = _upload(torch.stack([jobs[variant].source for variant in variants]).float(), device)
    scales = torch.tensor([_start_scales(jobs[variant].table, schedule) for variant in variants])
    alpha, sigma = _upload(scales, device).view(-1, 2, 1, 1, 1).unbind(1)
    mask = None
    if slots.mask is not None:
        everything = torch.ones(1, *slots.x.shape[2:])
        masks = [everything if (given := jobs[variant].mask) is None else given.float().cpu() for variant in variants]
        mask = _upload(torch.stack(masks), device)
    slots.enter(_upload(torch.from_numpy(places), device), alpha * source + sigma * noise, source, noise, mask)


def _start_scales(table: StepTable, schedule: NoiseSchedule) -> tuple[float, float]:
    """What the source and the noise are multiplied by at the start."""
    level = int(table.t[0]) if table.start is None else table.start
    alpha, sigma = float(schedule.alpha[level]), float(schedule.sigma[level])
    return (0.0, (alpha**2 + sigma**2) ** 0.5) if table.start is None else (alpha, sigma)


def _step_noise(
    variants: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    generators: dict[int, torch.Generator],
    shape: Sequence[int],
    device: torch.device,
) -> Tensor | None:
    """(size, C, H, W): the next noise of each slot that adds some; None if none does."""
    if not wanted.any():
        return None
    noise = torch.zeros(len(variants), *shape)
    for slot in np.flatnonzero(wanted):
        noise[slot].normal_(generator=generators[int(variants[slot])])
    return _upload(noise, device)


def _stack_conditions(jobs: Sequence[SamplingJob], device: torch.device) -> Condition | None:
    """Every different Condition object once, in the order of its first job."""
    distinct = {id(job.condition): job.condition for job in jobs}.values()
    given = [condition.to(device) for condition in distinct if condition is not None]
    return Condition.cat(given) if given else None


def _upload(value: Tensor, device: torch.device) -> Tensor:
    """To the device without waiting for what it is doing."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and value.device.type == "cpu" else value.to(device)


def _check(denoiser: Denoiser, jobs: Sequence[SamplingJob]) -> None:
    if not jobs:
        raise ConfigError("there are no jobs to sample; give at least one")
    levels, shape, condition = len(denoiser.schedule), tuple(jobs[0].source.shape), jobs[0].condition
    for number, job in enumerate(jobs):
        if job.source.ndim != 3 or tuple(job.source.shape) != shape:
            raise ConfigError(
                f"sources of one run must all be (C, H, W) of one shape: job {number} has {tuple(job.source.shape)}, job 0 {shape}"
            )
        if not 0 <= job.seed < 1 << 63:
            raise ConfigError(f"seed must be from 0 to 2^63 - 1, got {job.seed} in job {number}")
        if not len(job.table) or int(job.table.t.max()) >= levels or int(job.table.t.min()) < 0:
            raise ConfigError(
                f"the table of job {number} does not fit the denoiser's {levels} noise levels; make it from `denoiser.schedule`"
            )
        if (job.condition is None) != (condition is None) or (job.condition is None and denoiser.conditional):
            raise ConfigError(
                f"job {number} has no condition and others or the denoiser ask for one; make it with `denoiser.embed([prompt])`"
            )
        if job.condition is not None and len(job.condition) != 1:
            raise ConfigError(
                f"the condition of a job is one row, got {len(job.condition)} in job {number}; take one with `condition.index([row])`"
            )
        if job.mask is not None and tuple(job.mask.shape) != (1, *shape[1:]):
            raise ConfigError(f"the mask of job {number} must be {(1, *shape[1:])} like x, got {tuple(job.mask.shape)}; resize it to that")
