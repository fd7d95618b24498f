"""What a job gives depends on the job alone; masks, conditions, noise and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sampling.curved import SHAPE, Curved, job, source, stable_schedule, start_noise

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import ve_ratios
from rediffuse.errors import ConfigError
from rediffuse.sampling.sampler import noise_generator, run_jobs, sample_one
from rediffuse.sampling.solvers import SOLVERS, from_noise, trajectory
from rediffuse.sampling.table import SamplingJob, StepTable

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
TABLES = [trajectory(stable_schedule(), solver, 8, strength) for solver in SOLVERS for strength in STRENGTHS]
TABLES.append(from_noise(stable_schedule(), "dpm++2m", 8))
LABELS = [Condition(labels=torch.tensor([label])) for label in range(3)]


def mixed_jobs(count: int) -> list[SamplingJob]:
    """Every solver, every strength, three conditions, some masks."""
    left = (torch.arange(SHAPE[2]) < 3).float().expand(1, *SHAPE[1:])
    return [job(TABLES[n % len(TABLES)], n, LABELS[n % 3], left if n % 4 == 1 else None) for n in range(count)]


def reference(denoiser: Denoiser, given_job: SamplingJob) -> torch.Tensor:
    """The definition of a StepTable and of a mask, one number at a time, in float64 but for the network."""
    table, schedule = given_job.table, denoiser.schedule
    generator = noise_generator(given_job.seed)
    z = torch.randn(*given_job.source.shape, generator=generator)
    at = int(table.t[0])
    if table.start is None:
        x = (schedule.alpha[at] ** 2 + schedule.sigma[at] ** 2).sqrt() * z
    else:
        x = schedule.alpha[table.start] * given_job.source + schedule.sigma[table.start] * z
    saved, memory = torch.zeros_like(x), []
    x = x.double()
    for i in range(len(table)):
        alpha, sigma = schedule.alpha[table.t[i]].double(), schedule.sigma[table.t[i]].double()
        x0_hat = denoiser(x.float()[None], table.t[i : i + 1], given_job.condition)[0].double()
        belief = x0_hat if table.remembers == "x0" else (x - alpha * x0_hat) / sigma
        saved = x if table.save[i] else saved
        x = table.x[i] * x + table.saved[i] * saved
        x = x + sum(float(weight) * seen for weight, seen in zip(table.history[i], [belief, *memory], strict=False))
        if table.noise[i]:
            x = x + table.noise[i] * torch.randn(*given_job.source.shape, generator=generator)
        if table.push[i]:
            memory = [belief, *memory]
        if given_job.mask is not None:
            outside = given_job.source
            if i + 1 < len(table):
                outside = schedule.alpha[table.t[i + 1]] * given_job.source + schedule.sigma[table.t[i + 1]] * z
            x = given_job.mask * x + (1 - given_job.mask) * outside
    return x.float()


def test_a_mixed_batch_is_the_definition() -> None:
    jobs, denoiser = mixed_jobs(40), Curved(conditional=True)
    made = run_jobs(denoiser, jobs, batch=8)
    assert made.shape == (40, *SHAPE)
    assert made.dtype == torch.float32
    for number, each in enumerate(jobs):
        torch.testing.assert_close(made[number], reference(denoiser, each), atol=2e-5, rtol=2e-5)


def test_a_slot_of_a_mixed_batch_is_the_job_alone() -> None:
    jobs = mixed_jobs(40)
    made = run_jobs(Curved(conditional=True), jobs, batch=8)
    alone = torch.stack([sample_one(Curved(conditional=True), each) for each in jobs])
    assert torch.equal(made, alone)  # this network does the same arithmetic in any batch, and so does everything around it


def test_batch_sizes_1_7_and_32() -> None:
    jobs = mixed_jobs(40)
    one, seven, many = (run_jobs(Curved(conditional=True), jobs, batch=batch) for batch in (1, 7, 32))
    assert torch.equal(seven, one)
    assert torch.equal(many, one)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(20)), st.integers(1, 25))
def test_the_order_of_the_jobs_changes_nothing(order: list[int], batch: int) -> None:
    jobs = mixed_jobs(20)
    made = run_jobs(Curved(conditional=True), [jobs[n] for n in order], batch)
    assert torch.equal(made, run_jobs(Curved(conditional=True), jobs, 20)[list(order)])


def test_equal_seeds_give_equal_images_and_others_do_not() -> None:
    for table in (TABLES[0], TABLES[-2]):
        one, again, other = (job(table, 0), job(table, 0), replace(job(table, 0), seed=1))
        made = run_jobs(Curved(), [one, again, other], batch=3)
        assert torch.equal(made[0], made[1])
        assert (made[0] - made[2]).abs().max() > 0.1


def test_noise_is_a_function_of_all_bits_of_the_seed() -> None:
    same = torch.randn(*SHAPE, generator=torch.Generator().manual_seed(12345))
    assert torch.equal(start_noise(12345), same)
    assert torch.equal(start_noise(12345), start_noise(12345))
    assert not torch.equal(start_noise(5), start_noise(5 + (1 << 32)))  # torch alone would give the same
    assert start_noise((1 << 63) - 1).isfinite().all()


def test_from_noise_starts_at_the_spread_of_an_exploding_table() -> None:
    """At the deviation that pictures of deviation 1 have there, not at that of the noise alone."""
    seen: list[torch.Tensor] = []

    class Watching(GaussianMixtureDenoiser):
        def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
            seen.append(x_t.clone())
            return super().forward(x_t, t, condition)

    model = Watching(torch.zeros(1, *SHAPE), torch.ones(1), torch.ones(1), NoiseSchedule.from_ratios(ve_ratios(0.01, 50)))
    sample_one(model, replace(job(from_noise(model.schedule, "ddim", 4), 3), source=torch.zeros(SHAPE)))
    torch.testing.assert_close(seen[0][0], (1 + 50.0**2) ** 0.5 * start_noise(3))


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run_jobs(Curved(conditional=True), mixed_jobs(9), batch=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_call_is_as_packed_and_progress_counts_steps() -> None:
    denoiser, seen = Curved(), []
    jobs = [job(trajectory(stable_schedule(), "dpm++2m", 8, strength), n) for n, strength in enumerate(STRENGTHS * 4)]
    run_jobs(denoiser, jobs, batch=8, progress=lambda done, total: seen.append((done, total)))
    total = sum(len(each.table) for each in jobs)
    assert [end for _, end in seen] == [total] * len(denoiser.batches)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == total
    assert max(denoiser.batches) == 8
    assert sum(denoiser.batches) <= total / 0.95


class Watching(Curved):
    """Notes what is alive during a call."""

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        self.seen = (*getattr(self, "seen", ()), (x_t.dtype, t.dtype, len(x_t), 0 if condition is None else len(condition)))
        return super().forward(x_t, t, condition)


def test_a_call_gets_float32_int64_and_one_condition_a_slot() -> None:
    denoiser = Watching(conditional=True)
    run_jobs(denoiser, [replace(each, source=each.source.half()) for each in mixed_jobs(9)], batch=4)
    assert all(x == torch.float32 and t == torch.int64 and rows == size for x, t, size, rows in denoiser.seen)


def test_the_result_may_be_trained_on() -> None:
    """Made in inference mode, yet an ordinary tensor: autograd may save it."""
    made = sample_one(Curved(), job(TABLES[0], 0))
    weight = torch.ones((), requires_grad=True)
    (weight * made).square().sum().backward()
    assert weight.grad is not None


def test_tables_that_sampling_copies_to_a_device_may_be_trained_through() -> None:
    schedule = stable_schedule()
    with torch.inference_mode():
        schedule.at(torch.zeros(1, dtype=torch.long), torch.zeros(1, *SHAPE, device="meta"))
    alpha, sigma = schedule.at(torch.zeros(1, dtype=torch.long), torch.zeros(1, *SHAPE, device="meta"))
    assert not alpha.is_inference()
    assert not sigma.is_inference()


class Poisoned(Curved):
    """Answers NaN to one label."""

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
        x0_hat = super().forward(x_t, t, condition)
        assert condition is not None
        assert condition.labels is not None
        return torch.where((condition.labels == 2).view(-1, 1, 1, 1), torch.nan, x0_hat)


def test_a_job_that_breaks_does_not_spoil_the_next_in_its_slot() -> None:
    jobs = mixed_jobs(40)
    made, sound = run_jobs(Poisoned(conditional=True), jobs, batch=8), run_jobs(Curved(conditional=True), jobs, batch=8)
    for number in range(40):
        if number % 3 == 2:
            assert made[number].isnan().any()
        else:
            assert torch.equal(made[number], sound[number])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.remembers}-{table.start}")
def test_outside_of_the_mask_the_source_is_kept_exactly(table: StepTable) -> None:
    mask = torch.zeros(1, *SHAPE[1:])
    mask[:, 2:5, 3:6] = 1
    made = sample_one(Curved(), job(table, 4, mask=mask))
    outside = (mask == 0).expand(SHAPE)
    assert torch.equal(made[outside], source(4)[outside])
    assert (made - source(4))[~outside].abs().mean() > 0.05


def test_masks_that_change_all_or_half() -> None:
    table = TABLES[6]
    free, whole = job(table, 4), job(table, 4, mask=torch.ones(1, *SHAPE[1:]))
    torch.testing.assert_close(*run_jobs(Curved(), [free, whole], batch=2).unbind(0))
    soft = sample_one(Curved(), job(table, 4, mask=torch.full((1, *SHAPE[1:]), 0.5)))
    assert soft.isfinite().all()
    assert not torch.allclose(soft, source(4))


def test_a_mask_sees_its_surroundings_at_the_level_of_the_call() -> None:
    """At each call, x outside of the mask is the source noised to exactly the t that the network is told."""

    class Inspecting(Curved):
        def forward(self, x_t: torch.Tensor, t: torch.Tensor, condition: Condition | None = None) -> torch.Tensor:
            torch.testing.assert_close(x_t[0], self.schedule.add_noise(source(4)[None], start_noise(4)[None], t)[0])
            return super().forward(x_t, t, condition)

    for solver in ("ddim", "pndm", "ancestral"):
        table = trajectory(stable_schedule(), solver, 8, 0.5)
        sample_one(Inspecting(), job(table, 4, mask=torch.zeros(1, *SHAPE[1:])))


def test_memory_is_only_held_where_a_table_needs_it() -> None:
    from rediffuse.sampling.slots import Slots

    def held(tables: list[StepTable], masked: bool = False) -> int:
        slots = Slots(4, SHAPE, tables, masked, torch.device("cpu"))
        return len(slots.past) + sum(value is not None for value in (slots.saved, slots.source, slots.start_noise, slots.mask))

    by_solver = {solver: trajectory(stable_schedule(), solver, 8, 1.0) for solver in SOLVERS}
    assert {solver: held([table]) for solver, table in by_solver.items()} == {"ddim": 0, "dpm++2m": 1, "pndm": 4, "ancestral": 0}
    assert held([by_solver["ddim"]], masked=True) == 3
    assert held(list(by_solver.values())) == 4


def refuse(jobs: list[Any], message: str, conditional: bool = False) -> None:
    with pytest.raises(ConfigError, match=message):
        run_jobs(Curved(conditional=conditional), jobs, batch=2)


def test_refusals() -> None:
    good = job(TABLES[0], 0)
    refuse([], "there are no jobs")
    refuse([good, replace(good, source=torch.zeros(4, 8, 4))], r"job 1 has \(4, 8, 4\), job 0 \(4, 8, 8\)")
    refuse([replace(good, source=torch.zeros(1, 4, 8, 8))], r"job 0 has \(1, 4, 8, 8\)")
    refuse([replace(good, seed=-1)], "seed must be from 0 to .* got -1 in job 0")
    refuse([replace(good, seed=1 << 63)], "seed must be")
    refuse([good], "job 0 has no condition", conditional=True)
    refuse([replace(good, condition=LABELS[0]), good], "job 1 has no condition")
    refuse([replace(good, condition=Condition(labels=torch.tensor([0, 1])))], "is one row, got 2 in job 0")
    refuse([replace(good, mask=torch.ones(8, 8))], r"mask of job 0 must be \(1, 8, 8\) like x, got \(8, 8\)")
    late = replace(good.table, t=good.table.t + 900)
    refuse([replace(good, table=late)], "table of job 0 does not fit the denoiser's 1000 noise levels")
    with pytest.raises(ConfigError, match="batch must be"):
        run_jobs(Curved(), [good], batch=0)
