"""What certificates add up to: counted by hand, and no gain from choosing sigma among equals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.certify.result import Certified, Series, choose
from rediffuse.evaluation.certify.rows import Certificate
from rediffuse.evaluation.certify.smoothing import Smoothing


def series(model: str, sigma: float, radii: list[float], right: list[bool]) -> Series:
    """A radius below 0 abstains."""
    rows = [
        Certificate(index=place, label=1, predict=-1 if radius < 0 else 1 if good else 0, radius=max(0.0, radius), seconds=1.0)
        for place, (radius, good) in enumerate(zip(radii, right, strict=True))
    ]
    return Series(model=model, sigma=sigma, ceiling=Certified.ceiling(certified([], 1), sigma), rows=tuple(rows))


def certified(parts: list[Series], images: int, sigmas: tuple[float, ...] = (0.5,)) -> Certified:
    return Certified(
        smoothing=Smoothing(sigmas=sigmas, draws=1000),
        smoother="plain",
        images=images,
        models=tuple(dict.fromkeys(part.model for part in parts)),
        series=tuple(parts),
    )


def test_accuracy_at_a_radius() -> None:
    one = series("net", 0.5, [0.2, 0.5, 0.7, -1, 0.6], [True, True, True, True, False])
    assert [one.accuracy(radius) for radius in (0, 0.2, 0.21, 0.5, 0.7, 0.8)] == [0.6, 0.6, 0.4, 0.4, 0.2, 0]
    assert one.abstained == 0.2
    radii, accuracies = zip(*one.curve(50), strict=True)
    assert radii[0] == 0
    assert radii[-1] == one.ceiling == pytest.approx(0.5 * 2.46, abs=0.01)
    assert list(accuracies) == sorted(accuracies, reverse=True)


def test_choosing_sigma_among_equals_gains_nothing() -> None:
    generator, best, chosen = np.random.default_rng(0), [], []
    for _ in range(1000):
        coins = generator.random((8, 50)) < 0.5
        fold = generator.permutation(50) % 2
        places, right = choose(coins, fold)
        best.append(coins.mean(1).max())
        chosen.append(right.mean())
        for part, place in enumerate(places):
            assert coins[place, fold != part].mean() == coins[:, fold != part].mean(1).max()
            assert np.array_equal(right[fold == part], coins[place, fold == part])
    assert np.mean(best) > 0.58  # what choosing on the judged images would say
    assert abs(np.mean(chosen) - 0.5) < 0.01


def test_the_envelope_takes_each_radius_from_the_better_sigma() -> None:
    low = series("net", 0.25, [0.3] * 20, [True] * 18 + [False] * 2)
    high = series("net", 1.0, [1.5] * 20, [True] * 9 + [False] * 11)
    found = certified([low, high], 20, (0.25, 1.0))
    envelope = found.envelope("net", [0.25, 1.0])
    assert envelope.sigmas == ((0.25, 0.25), (1.0, 1.0))
    assert (envelope.accuracy(0.25), envelope.accuracy(1.0)) == (0.9, 0.45)
    with pytest.raises(ConfigError, match=r"knows the radii 0\.25, 1, got 2"):
        envelope.accuracy(2)
    with pytest.raises(DataError, match="at least 2 are needed, got 1"):
        certified([series("net", 0.5, [0.3], [True])], 1).envelope("net")


def test_a_half_without_certificates_chooses_no_sigma_that_cannot_reach() -> None:
    """All certificates at radius 2 lie in one half: the other half sees none at either sigma, and must not take the smaller."""
    first = int(np.flatnonzero(np.random.default_rng(0).permutation(20) % 2 == 0)[0])
    low = series("net", 0.25, [0.3] * 20, [True] * 20)
    high = series("net", 1.0, [2.1 if place == first else 0.1 for place in range(20)], [True] * 20)
    found = certified([low, high], 20, (0.25, 1.0)).envelope("net", [2.0, 3.0])
    assert found.sigmas[0] == (1.0, 1.0)
    assert (found.accuracy(2.0), found.accuracy(3.0)) == (0.05, 0)


def test_two_models_are_compared_on_the_same_images(tmp_path: Path) -> None:
    right = np.arange(40) % 4 != 0
    one = series("one", 0.5, [0.6] * 40, right.tolist())
    two = series("two", 0.5, [0.6] * 40, (right | (np.arange(40) < 20)).tolist())
    found = certified([one, two], 40)
    gain = found.gain("two", "one", 0.5)
    assert gain.value == pytest.approx(5 / 40)
    assert gain.low is not None
    assert 0 < gain.low < gain.value
    assert found.gain("two", "one", 0.5, sigma=0.5).value == pytest.approx(5 / 40)
    assert found.gain("two", "one", 1.0).value == 0
    with pytest.raises(ConfigError, match=r"no certificates of 'three' at sigma 0\.5; there are those of one, two at 0\.5"):
        found.find("three", 0.5)
    saved = json.loads(found.save("certified_toy", tmp_path, command="made up").read_text())
    assert saved["headline"]["gain_over_two_at_050"]["value"] == pytest.approx(-5 / 40)
    assert saved["headline"]["two_at_050"]["value"] == pytest.approx(35 / 40)
    assert saved["seconds"] == 40  # an image's time is that of both models
    said = " ".join(saved["notes"])
    assert "40 images; N0 = 100, N = 1000" in said
    assert "1.232 at sigma 0.5" in said
    rows = {(row["model"], row["sigma"], row["radius"]): row for row in saved["rows"]}
    assert rows["one", 0.5, 0.5]["certified_accuracy"] == rows["one", "chosen", 0.5]["certified_accuracy"] == 0.75
    exact = stats.binomtest(30, 40).proportion_ci(0.95, "exact")
    assert (rows["one", 0.5, 0.5]["low"], rows["one", 0.5, 0.5]["high"]) == pytest.approx((exact.low, exact.high))
    assert rows["one", 0.5, 1.5]["certified_accuracy"] == 0
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))["differences"]
    for sigma in (0.5, None):
        gain = found.gain("one", "two", 0.25, sigma).to_json()
        assert {"model": "one", "over": "two", "sigma": sigma or "chosen", "radius": 0.25, **gain} in told
