"""The worth of a class name under a schedule, against closed forms."""

from __future__ import annotations

import pytest
import torch

from rediffuse.recipes.bundled.schedules import best_loss, compare, schedules, spectra


def test_the_best_loss_is_that_of_a_wiener_filter() -> None:
    """In one dimension: E[v | x_t] is linear, and its error is (1 - correlation²) var(v)."""
    variance, betas = 4.0, schedules()["Stable Diffusion"]
    kept = (1 - betas).cumprod(0)[9::10]
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    cross = alpha * sigma - alpha * sigma * variance  # of v = alpha n - sigma x0 with x_t = alpha x0 + sigma n
    error = alpha**2 + sigma**2 * variance - cross**2 / (alpha**2 * variance + sigma**2)
    assert best_loss(torch.tensor([variance], dtype=torch.float64), betas) == pytest.approx(float(error.mean()), rel=1e-12)


def test_spectra_with_and_without_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(5000)
    means = 3.0 * torch.eye(4, 6)
    x = torch.randn(20_000, 6, generator=generator) + means[labels]
    total, within = spectra(x, labels)
    torch.testing.assert_close(within, torch.ones(6, dtype=torch.float64), atol=0.05, rtol=0)
    assert float((total - within).sum()) == pytest.approx(float(means.var(0, correction=0).sum()), rel=0.05)


def test_a_class_is_worth_more_where_the_last_step_is_silent() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(50)
    layout = torch.randn(10, 3, 1, 1, generator=generator)[labels]
    rows = compare(layout + 0.5 * torch.randn(500, 3, 32, 32, generator=generator), labels)
    worth = {(row["averages"], row["schedule"]): row["worth of the class"] for row in rows}
    for averages in ("8x8", "2x2"):
        assert 0 < worth[averages, "half sigma"] < worth[averages, "half sigma, zero terminal SNR"]
