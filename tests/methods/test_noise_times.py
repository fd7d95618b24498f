"""Laws of noise times against the distributions that they name, by fixed seeds; the reference's times at other sizes and schedules."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch
from scipy.stats import chisquare, kstest, norm
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.schedules import cosine_betas, linear_betas, ve_ratios, zero_terminal_snr
from rediffuse.errors import ConfigError
from rediffuse.methods.noise_times import (
    LAWS,
    RAW,
    AdmUniform,
    Fixed,
    LogNormal,
    NoiseTimes,
    Range,
    Uniform,
    law_from,
    levels,
    nearest,
    reference_schedule,
)

LINEAR = NoiseSchedule.from_betas(linear_betas())
COSINE = NoiseSchedule.from_betas(cosine_betas(4000))
VE = NoiseSchedule.from_ratios(ve_ratios(0.002, 80))
SILENT = NoiseSchedule.from_betas(zero_terminal_snr(linear_betas()))
SCHEDULES = {"linear": LINEAR, "cosine": COSINE, "ve": VE, "silent": SILENT}
EVERY_LAW: list[NoiseTimes] = [
    Uniform(),
    Range(low=200, high=600),
    AdmUniform(low=100, high=800),
    LogNormal(),
    Fixed(t=600),
    Fixed(sigma=0.5),
]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alike(t: Tensor, low: int, high: int, cells: int = 40) -> float:
    """p-value of "uniform over low, ..., high", in cells of equal width (40 must divide the count)."""
    width, rest = divmod(high - low + 1, cells)
    assert not rest
    assert int(t.min()) >= low
    assert int(t.max()) <= high
    return float(chisquare(torch.bincount((t - low) // width, minlength=cells).numpy()).pvalue)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_uniform_is_uniform_over_the_own_table(kind: str, stratified: bool):
    schedule, generator = SCHEDULES[kind], stream(1)
    law = Uniform(stratified=stratified)
    t = torch.cat([law.draw(50, schedule, 224, generator) for _ in range(400)])
    assert t.dtype is torch.int64
    if stratified:  # more even than chance: chi-square's p-value is near 1
        assert alike(t, 0, len(schedule) - 1) > 0.5
        first = torch.stack([law.draw(50, schedule, 224, generator)[0] for _ in range(4000)])
        assert alike(first, 0, len(schedule) - 1) > 1e-3  # each sample for itself has the same law
    else:
        assert alike(t, 0, len(schedule) - 1) > 1e-3


def test_range_holds_both_ends():
    t = Range(low=500, high=539).draw(20_000, LINEAR, None, stream(2), None)
    assert alike(t, 500, 539) > 1e-3


@pytest.mark.parametrize("low", [0, 500])
def test_adm_uniform_is_the_table_itself_where_that_is_the_schedule(low: int):
    t = AdmUniform(low=low, high=low + 479).draw(20_000, LINEAR, 224, stream(3))
    assert alike(t, low, low + 479) > 1e-3


@pytest.mark.parametrize("kind", ["cosine", "ve"])
def test_adm_uniform_has_the_paper_s_sigma_on_other_schedules(kind: str):
    """Deciles of sigma under uniform t on the linear table (10/25/50/75/90 %: .34 .96 3.43 17.3 60), within the coarser table's steps."""
    schedule = SCHEDULES[kind]
    sigma = schedule.ratio[AdmUniform().draw(200_000, schedule, 224, stream(4))].double()
    found = sigma.quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([0.34, 0.96, 3.43, 17.3, 60.0], dtype=torch.float64), rtol=0.03, atol=0)


def test_what_the_schedule_does_not_reach_is_clipped():
    """EDM-like tables end at sigma 80, which 7 % of the paper's draws exceed."""
    t = AdmUniform().draw(100_000, VE, 224, stream(5))
    assert int(t.max()) == 999
    assert abs(float((t == 999).double().mean()) - 0.07) < 0.004


@pytest.mark.parametrize("stratified", [False, True])
def test_log_normal_is_normal_in_log_sigma(stratified: bool):
    law = LogNormal(mean=-0.5, std=0.7, stratified=stratified)
    fine = NoiseSchedule.from_ratios(torch.logspace(-4, 4, 20_000, base=math.e, dtype=torch.float64))
    sigma = fine.ratio[law.draw(5000, fine, None, stream(6), None)].double()
    assert kstest(sigma.log().numpy(), norm(-0.5, 0.7).cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", [Uniform, AdmUniform, LogNormal])
def test_strata_vary_less(law: type[NoiseTimes]):
    def spread(stratified: bool) -> float:
        generator = stream(7)
        means = [VE.log_snr[law(stratified=stratified).draw(32, VE, 224, generator)].mean() for _ in range(300)]
        return float(torch.stack(means).std())

    assert spread(True) < 0.3 * spread(False)


def test_strata_hold_one_draw_each_in_random_order():
    draws = torch.stack([Uniform(stratified=True).draw(10, LINEAR, 224, stream(seed)) for seed in range(200)])
    assert torch.equal((draws // 100).sort(1).values, torch.arange(10).expand(200, 10))
    assert chisquare(torch.bincount(draws[:, 0] // 100, minlength=10).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law.name)
def test_a_law_is_a_function_of_its_stream_and_at_the_reference_size_unscaled(law: NoiseTimes):
    before = torch.get_rng_state()
    one, two, unscaled = (
        law.draw(64, LINEAR, 224, stream(8)),
        law.draw(64, LINEAR, 224, stream(8)),
        law.draw(64, LINEAR, 32, stream(8), None),
    )
    assert torch.equal(one, two)
    assert torch.equal(one, unscaled)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(law.draw(0, LINEAR, 224, stream())) == 0


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law.name)
def test_sigma_shrinks_with_the_image(law: NoiseTimes):
    large, small = (VE.ratio[law.draw(200, VE, size, stream(9))].double() for size in (224, 32))
    inside = (small > 0.003) & (large < 79)
    assert inside.sum() > 50
    assert (small[inside] / large[inside] * 7).log().abs().max() < 0.02


def test_levels_of_the_reference_at_32_pixels():
    found = levels(LINEAR, range(0, 500, 50), 32)
    assert [round(sigma, 3) for sigma in found.sigma.tolist()] == [0, 0.025, 0.049, 0.075, 0.103, 0.137, 0.177, 0.227, 0.292, 0.377]
    assert found.times.tolist() == list(range(0, 500, 50))
    assert int(found.t[0]) == RAW
    used = LINEAR.ratio[found.t[1:]].double()
    steps = LINEAR.ratio[found.t[1:] + 1].double() - LINEAR.ratio[found.t[1:] - 1].double()
    assert ((used - found.sigma[1:]).abs() <= steps / 2).all()


def test_levels_elsewhere():
    assert levels(LINEAR, (0, 150, 450), 224).t.tolist() == [RAW, 150, 450]
    assert levels(LINEAR, (0, 150, 450), 32, None).t.tolist() == [RAW, 150, 450]
    on_cosine = levels(COSINE, (150,), 224)
    assert abs(float(COSINE.ratio[on_cosine.t[0]]) - 0.5220) < 0.0005
    assert len(levels(LINEAR, (), 32).t) == 0


def test_time_150_at_32_pixels_destroys_what_511_does_at_224():
    sigma = reference_schedule().ratio[150].double()
    assert nearest(reference_schedule(), 7 * sigma[None]).tolist() == [511]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_nearest_finds_every_level_of_the_table(kind: str):
    schedule = SCHEDULES[kind]
    assert torch.equal(nearest(schedule, schedule.ratio.double()), torch.arange(len(schedule)))
    assert nearest(schedule, torch.tensor([0.0, torch.inf], dtype=torch.float64)).tolist() == [0, len(schedule) - 1]


def test_fixed_levels():
    assert set(Fixed(t=999).draw(5, LINEAR, 224, stream()).tolist()) == {999}
    assert set(Fixed(sigma=0.5220).draw(5, LINEAR, 224, stream()).tolist()) == {150}
    assert set(Fixed(sigma=0).draw(5, LINEAR, 224, stream()).tolist()) == {0}


@pytest.mark.parametrize("law", EVERY_LAW, ids=lambda law: law.name)
def test_settings_are_json_and_make_the_law_again(law: NoiseTimes):
    assert law_from(json.loads(json.dumps(law.settings()))) == law
    assert LAWS[law.name] is type(law)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="the low one first, got 600 to 500"):
        Range(low=600, high=500)
    with pytest.raises(ConfigError, match="got -1 to 5"):
        AdmUniform(low=-1, high=5)
    with pytest.raises(ConfigError, match="noise times 0 to 999, got 1000"):
        AdmUniform(high=1000)
    with pytest.raises(ConfigError, match="noise times 0 to 999, got 2000"):
        Range(low=0, high=2000).draw(1, LINEAR, 224, stream())
    with pytest.raises(ConfigError, match="std above 0, got 0 and 0"):
        LogNormal(mean=0, std=0)
    with pytest.raises(ConfigError, match="t or sigma and not both"):
        Fixed()
    with pytest.raises(ConfigError, match=r"at least 0, got -0\.1"):
        Fixed(sigma=-0.1)
    with pytest.raises(ConfigError, match="at which size it is used, got size=None"):
        Uniform().draw(1, LINEAR, None, stream())
    with pytest.raises(ConfigError, match="no law of noise times 'beta'; laws are uniform"):
        law_from({"law": "beta"})
    with pytest.raises(ConfigError, match="the law range does not take"):
        law_from({"law": "range", "lowest": 0})
    with pytest.raises(ConfigError, match="noise times 0 to 999, got 1000"):
        levels(LINEAR, (0, 1000), 32)
    with pytest.raises(ConfigError, match="reference_size is in pixels"):
        levels(LINEAR, (50,), 32, 0)


@dataclass(frozen=True, kw_only=True)
class Halves(NoiseTimes):
    """A law of one's own."""

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        return 0.1 + 2 * (share >= 0.5).double()


def test_a_law_of_ones_own_goes_by_the_name_of_its_class():
    assert Halves().settings() == {"law": "Halves", "stratified": False}
    drawn = Halves(stratified=True).draw(10, SCHEDULES["linear"], None, torch.Generator(), None)
    assert len(set(drawn.tolist())) == 2
