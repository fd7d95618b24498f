"""Bounds against scipy's own interval, radii against the standard library, noise times against the published table."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.schedules import cosine_betas, linear_betas, zero_terminal_snr
from rediffuse.errors import ConfigError
from rediffuse.evaluation.certify.bounds import ABSTAIN, ceiling, decide, lower_bound, noise_time, radius

LINEAR, COSINE = NoiseSchedule.from_betas(linear_betas()), NoiseSchedule.from_betas(cosine_betas())


@pytest.mark.parametrize("alpha", [0.001, 0.1])
@pytest.mark.parametrize("draws", [1, 10, 1000])
def test_the_bound_is_clopper_and_pearsons(draws: int, alpha: float) -> None:
    counts = sorted({0, 1, draws // 2, draws - 1, draws})
    theirs = [stats.binomtest(count, draws).proportion_ci(1 - 2 * alpha, "exact").low for count in counts]
    assert lower_bound(counts, draws, alpha) == pytest.approx(theirs, abs=1e-12)
    assert lower_bound(draws, draws, alpha) == pytest.approx(alpha ** (1 / draws))
    assert float(lower_bound(0, draws, alpha)) == 0


def test_radii_and_the_ceiling() -> None:
    inverse = NormalDist().inv_cdf
    assert radius([0.5, 0.7, 0.999, 0.3], 0.25) == pytest.approx([0, 0.25 * inverse(0.7), 0.25 * inverse(0.999), 0])
    for sigma, draws, alpha in ((0.25, 1000, 0.001), (1.0, 10_000, 0.001), (0.5, 50, 0.1)):
        assert ceiling(sigma, draws, alpha) == pytest.approx(sigma * inverse(alpha ** (1 / draws)))
        assert ceiling(sigma, draws, alpha) == pytest.approx(float(radius(lower_bound(draws, draws, alpha), sigma)))
    assert ceiling(1, 1, 0.001) == 0  # one draw certifies nothing


def test_a_decision() -> None:
    selection, estimation = np.array([[9, 1], [4, 6], [10, 0]]), np.array([[95, 5], [100, 0], [52, 48]])
    classes, radii = decide(selection, estimation, 0.5, 0.001)
    assert classes.tolist() == [0, ABSTAIN, ABSTAIN]  # selected by the first draws alone, however the others voted
    assert radii[0] == pytest.approx(0.5 * NormalDist().inv_cdf(float(lower_bound(95, 100, 0.001))))
    assert radii[1:].tolist() == [0, 0]


def test_the_published_noise_times() -> None:
    assert [noise_time(LINEAR, sigma) for sigma in (0.12, 0.25, 0.5, 0.75, 1.0)] == [70, 145, 259, 339, 396]
    assert [noise_time(COSINE, sigma) for sigma in (0.25, 0.5, 1.0)] == [1158, 1984, 2809]
    for schedule in (LINEAR, COSINE):
        for sigma in (0.1, 0.33, 2.0):
            t = noise_time(schedule, sigma)
            assert float(schedule.ratio[t - 1]) < 2 * sigma <= float(schedule.ratio[t])
    assert noise_time(LINEAR, 0.001) == 0


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError, match=r"sigma must be at most 78\.7 for this denoiser"):
        noise_time(LINEAR, 80)
    silent = NoiseSchedule.from_betas(zero_terminal_snr(linear_betas()))  # its last level has no signal at all
    with pytest.raises(ConfigError, match="sigma must be at most"):
        noise_time(silent, 1e9)
    for sigma in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be above 0"):
            noise_time(LINEAR, sigma)
    for alpha in (0, 1, -0.1, float("nan")):
        with pytest.raises(ConfigError, match=r"alpha .* in \(0, 1\)"):
            lower_bound(1, 2, alpha)
    with pytest.raises(ConfigError, match="between 0 and the number of draws"):
        lower_bound(3, 2, 0.1)
