"""Mixup and CutMix against loops written out by hand, and their laws."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from rediffuse.errors import ConfigError
from rediffuse.training.augment import generator_of
from rediffuse.training.soft_labels import SoftLabels, cut_box

IMAGES = torch.rand((4, 3, 12, 16), generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0, 1, 2])


def test_mixup_mixes_pictures_and_labels_by_the_same_share() -> None:
    law = SoftLabels(cutmix=0, smoothing=0)
    mixed, target = law.apply(IMAGES, LABELS, 3, generator_of("mixup"))
    assert float(target[0, 2]) == pytest.approx(1)  # the first and its partner, the last, are of one class
    kept = float(target[1, 0])
    assert 0 < kept < 1
    for row, other in ((0, 3), (1, 2), (2, 1), (3, 0)):
        assert torch.allclose(mixed[row], kept * IMAGES[row] + (1 - kept) * IMAGES[other], atol=1e-6)
    assert torch.allclose(target[1], torch.tensor([kept, 1 - kept, 0]))
    assert torch.allclose(target[2], torch.tensor([1 - kept, kept, 0]))


def test_cutmix_counts_the_pixels_that_it_took() -> None:
    law = SoftLabels(mixup=0, smoothing=0)
    for number in range(20):
        mixed, target = law.apply(IMAGES, LABELS, 3, generator_of("cutmix", number))
        taken = (mixed[1] != IMAGES[1]).any(0)
        assert torch.equal(mixed[1][:, taken], IMAGES[2][:, taken])
        assert float(target[1, 1]) == pytest.approx(float(taken.double().mean()), abs=1e-6)
        rows, columns = taken.any(1).nonzero().flatten(), taken.any(0).nonzero().flatten()
        assert int(taken.sum()) == len(rows) * len(columns)  # one rectangle


def test_smoothing_is_that_of_torch() -> None:
    """Against the loss of hard labels with torch's own smoothing, and rows sum to 1."""
    logits = torch.randn((4, 3), generator=torch.Generator().manual_seed(1))
    _, target = SoftLabels(mixup=0, cutmix=0, smoothing=0.2).apply(IMAGES, LABELS, 3, generator_of("none"))
    soft = torch.nn.functional.cross_entropy(logits, target)
    assert torch.allclose(soft, torch.nn.functional.cross_entropy(logits, LABELS, label_smoothing=0.2))
    _, target = SoftLabels().apply(IMAGES, LABELS, 3, generator_of("both"))
    assert torch.allclose(target.sum(1), torch.ones(4))


def test_the_share_is_a_beta() -> None:
    shares = []
    for number in range(600):
        _, target = SoftLabels(cutmix=0, smoothing=0, mixup=0.8).apply(IMAGES, LABELS, 3, generator_of("law", number))
        shares.append(float(target[1, 0]))
    assert stats.kstest(shares, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3


def test_each_comes_with_its_probability() -> None:
    """A mixed picture is nowhere equal to its source, a cut one mostly."""
    cut = 0
    for number in range(400):
        mixed, _ = SoftLabels(switch=0.25).apply(IMAGES, LABELS, 3, generator_of("switch", number))
        cut += bool((mixed[1] == IMAGES[1]).any()) or bool((mixed[1] == IMAGES[2]).all())
    assert stats.binomtest(cut, 400, 0.25).pvalue > 1e-3


def test_a_box_is_cut_off_at_the_edge() -> None:
    assert cut_box(10, 20, 0.25, 0.5, 0.5) == (3, 8, 5, 15)
    assert cut_box(10, 20, 0.25, 0.0, 0.999) == (0, 3, 14, 20)
    assert cut_box(10, 20, 0.0, 0.3, 0.3)[0] == cut_box(10, 20, 0.0, 0.3, 0.3)[1]


def test_settings_outside_their_range() -> None:
    with pytest.raises(ConfigError, match="mixup and cutmix are alphas"):
        SoftLabels(mixup=-0.1)
    with pytest.raises(ConfigError, match=r"switch must be in \[0, 1\]"):
        SoftLabels(switch=1.1)
