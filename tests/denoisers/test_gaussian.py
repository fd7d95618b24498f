"""The oracle against brute force, against its own derivatives, and against a flow that has a closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, NoiseSchedule
from rediffuse.denoisers.gaussian import EVERY, GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas, ve_ratios
from rediffuse.errors import ConfigError

SHAPE = (1, 1, 2)
SCHEDULES = {
    "vp": NoiseSchedule.from_betas(linear_betas()),
    "ve": NoiseSchedule.from_ratios(ve_ratios(0.01, 100)),
}
EXACT = torch.float64


def mixture(kind: str, **options: object) -> GaussianMixtureDenoiser:
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.3], [0.2, -1.2]], dtype=EXACT).view(3, *SHAPE)
    variances, weights = torch.tensor([0.05, 0.2, 0.01], dtype=EXACT), torch.tensor([2.0, 1.0, 3.0])
    return GaussianMixtureDenoiser(means, variances, weights, SCHEDULES[kind], dtype=EXACT, **options)  # type: ignore[arg-type]


def noisy(oracle: GaussianMixtureDenoiser, levels: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator, t = torch.Generator().manual_seed(seed), torch.tensor(levels)
    x0 = oracle.sample(len(levels), generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=EXACT)
    return oracle.schedule.add_noise(x0, noise, t), t


LEVELS = {"vp": [0, 60, 150, 300, 500, 999], "ve": [0, 200, 400, 550, 700, 999]}


def by_quadrature(oracle: GaussianMixtureDenoiser, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x0 given one x_t, by summing prior times likelihood over a fine grid of the plane."""
    axis = torch.linspace(-3.5, 3.5, 1401, dtype=EXACT)
    grid = torch.cartesian_prod(axis, axis)  # (G, 2)
    alpha, sigma = oracle.schedule.alpha[t].double(), oracle.schedule.sigma[t].double()
    logs = torch.stack(
        [
            weight.log() - variance.log() - 0.5 * (grid - mean.flatten()).square().sum(1) / variance
            for weight, variance, mean in zip(oracle.log_weights.exp(), oracle.variances, oracle.means, strict=True)
        ]
    ).logsumexp(0)
    share = (logs - 0.5 * (x_t.flatten() - alpha * grid).square().sum(1) / sigma.square()).softmax(0)
    mean = share @ grid
    return mean, (grid - mean).T @ ((grid - mean) * share.unsqueeze(1))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_mean_and_covariance_agree_with_quadrature(kind: str) -> None:
    oracle = mixture(kind)
    x_t, t = noisy(oracle, LEVELS[kind][1:])
    means, covariances = oracle(x_t, t), oracle.posterior_covariance(x_t, t)
    for row in range(len(t)):
        mean, covariance = by_quadrature(oracle, x_t[row], t[row])
        torch.testing.assert_close(means[row].flatten(), mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(covariances[row], covariance, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_mean_agrees_with_monte_carlo(kind: str) -> None:
    """Among pairs (x0, x_t) whose x_t falls near a point, x0 averages to the belief at that point."""
    oracle, level = mixture(kind), LEVELS[kind][3]
    generator = torch.Generator().manual_seed(3)
    count = 400_000
    x0 = oracle.sample(count, generator)
    t = torch.full((count,), level)
    x_t = oracle.schedule.add_noise(x0, torch.randn(x0.shape, generator=generator, dtype=EXACT), t)
    error = x0 - oracle(x_t, t)  # orthogonal to every function of x_t
    for test in (torch.ones_like(x_t), x_t, x_t.sin(), x_t.flip(-1).tanh()):
        products = (error * test).flatten(1)
        assert (products.mean(0).abs() < 5 * products.std(0) / count**0.5).all()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_theorem_one_the_jacobian_is_the_posterior_covariance(kind: str) -> None:
    """d x0_hat / d x_t = alpha / sigma² Cov[x0 | x_t]: symmetric, positive (DiffAug, arXiv 2306.09192, Theorem 1)."""
    oracle = mixture(kind)
    x_t, t = noisy(oracle, LEVELS[kind])
    alpha, sigma = oracle.schedule.alpha[t].double(), oracle.schedule.sigma[t].double()
    wanted = (alpha / sigma.square()).view(-1, 1, 1) * oracle.posterior_covariance(x_t, t)
    for row in range(len(t)):
        jacobian = torch.autograd.functional.jacobian(lambda x, row=row: oracle(x, t[row : row + 1]), x_t[row : row + 1])
        torch.testing.assert_close(jacobian.view(2, 2), wanted[row], rtol=1e-9, atol=1e-12)
        assert (torch.linalg.eigvalsh(wanted[row]) > 0).all()


def test_flow_of_one_gaussian_has_a_closed_form() -> None:
    """The flow of N(m, v) keeps (x - alpha m) / sqrt(alpha² v + sigma²) constant."""
    schedule = SCHEDULES["vp"]
    mean, variance = torch.full((1, *SHAPE), 0.7, dtype=EXACT), torch.tensor([0.3], dtype=EXACT)
    oracle = GaussianMixtureDenoiser(mean, variance, torch.ones(1), schedule, dtype=EXACT)
    x = torch.randn((4, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=EXACT)
    start, end = 900, 40

    def spread(level: int) -> Tensor:
        return (schedule.alpha[level].double().square() * variance + schedule.sigma[level].double().square()).sqrt()

    alpha = schedule.alpha.double()
    kept = (x - alpha[start] * mean) / spread(start)
    torch.testing.assert_close(oracle.probability_flow(x, start, end), alpha[end] * mean + kept * spread(end), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(oracle.probability_flow(x, start, None), mean + kept * variance.sqrt(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_flow_is_converged_reversible_and_carries_the_marginals(kind: str) -> None:
    oracle = mixture(kind)
    x_t, _ = noisy(oracle, [700] * 500)
    clean = oracle.probability_flow(x_t, 700, None, steps=300)
    torch.testing.assert_close(clean, oracle.probability_flow(x_t, 700, None, steps=600), rtol=0, atol=1e-7)
    back = oracle.probability_flow(oracle.probability_flow(x_t, 700, 100, steps=600), 100, 700, steps=600)
    torch.testing.assert_close(back, x_t, rtol=0, atol=1e-5 * float(x_t.abs().max()))
    fresh = oracle.sample(500, torch.Generator().manual_seed(9))
    for power in (1, 2):
        scatter = 5 * (fresh.pow(power).var(0) / 500 + clean.pow(power).var(0) / 500).sqrt()
        assert ((clean.pow(power).mean(0) - fresh.pow(power).mean(0)).abs() < scatter).all()


def test_a_condition_names_components_row_by_row() -> None:
    oracle = mixture("vp", prompts={"left": 0, "right": 1})
    assert oracle.conditional
    x_t, t = noisy(oracle, [400, 400, 400])
    told = oracle(x_t, t, oracle.embed(["left", "", "right"]))
    torch.testing.assert_close(told[1:2], oracle(x_t[1:2], t[1:2]))
    for row, component in ((0, 0), (2, 1)):
        alone = GaussianMixtureDenoiser(
            oracle.means[component : component + 1],
            oracle.variances[component : component + 1],
            torch.ones(1),
            oracle.schedule,
            dtype=EXACT,
        )
        torch.testing.assert_close(told[row : row + 1], alone(x_t[row : row + 1], t[row : row + 1]))


def test_responsibilities_are_bayes_rule() -> None:
    """Weighting each component's own belief by its share gives back the belief of the mixture."""
    oracle = mixture("ve")
    x_t, t = noisy(oracle, [300, 500])
    shares = oracle.responsibilities(x_t, t)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, dtype=EXACT))
    parts = torch.stack([oracle(x_t, t, Condition(labels=torch.full((2,), k))) for k in range(3)], 1)
    torch.testing.assert_close(torch.einsum("bk,bkchw->bchw", shares, parts), oracle(x_t, t))


def test_samples_follow_weights_and_labels() -> None:
    oracle = mixture("vp")
    generator = torch.Generator().manual_seed(1)
    x = oracle.sample(20_000, generator)
    torch.testing.assert_close(x.mean(0), torch.einsum("k,kchw->chw", oracle.log_weights.exp(), oracle.means), atol=0.03, rtol=0)
    one = oracle.sample(5_000, generator, labels=torch.full((5_000,), 2))
    torch.testing.assert_close(one.mean(0), oracle.means[2], atol=0.01, rtol=0)
    torch.testing.assert_close(one.var(0), torch.full(SHAPE, 0.01, dtype=EXACT), atol=0.001, rtol=0)
    assert torch.equal(oracle.sample(3, torch.Generator().manual_seed(5)), oracle.sample(3, torch.Generator().manual_seed(5)))


def test_the_belief_has_the_least_loss() -> None:
    oracle, generator = mixture("vp"), torch.Generator().manual_seed(2)
    x0, t = oracle.sample(20_000, generator), torch.full((20_000,), 400)
    noise = torch.randn(x0.shape, generator=generator, dtype=EXACT)
    least = oracle.loss(x0, t, noise).mean()
    x_t = oracle.schedule.add_noise(x0, noise, t)
    variance = oracle.posterior_covariance(x_t, t).diagonal(dim1=1, dim2=2).mean()
    torch.testing.assert_close(least, variance, rtol=0.03, atol=0)
    for shift in (-0.05, 0.05):
        assert (oracle(x_t, t) + shift - x0).square().mean() > least


def test_x0_hat_is_float32_unless_asked() -> None:
    oracle = GaussianMixtureDenoiser(torch.zeros(1, *SHAPE), torch.ones(1), torch.ones(1), SCHEDULES["vp"])
    assert oracle(torch.zeros(1, *SHAPE), torch.tensor([3])).dtype == torch.float32
    assert not oracle.conditional
    assert oracle.device == torch.device("cpu")


def test_errors_name_the_value() -> None:
    oracle = mixture("vp", prompts={"left": 0})
    x_t, t = noisy(oracle, [10])
    with pytest.raises(ConfigError, match="'up'"):
        oracle.embed(["up"])
    with pytest.raises(ConfigError, match="takes no prompts"):
        mixture("vp").embed(["left"])
    with pytest.raises(ConfigError, match="label"):
        oracle(x_t, t, Condition(labels=torch.tensor([3])))
    with pytest.raises(ConfigError, match="label"):
        oracle(x_t, t, Condition(embedding=torch.zeros(1, 2, 3)))
    with pytest.raises(ConfigError, match="positive"):
        GaussianMixtureDenoiser(torch.zeros(1, *SHAPE), torch.zeros(1), torch.ones(1), SCHEDULES["vp"])
    with pytest.raises(ConfigError, match="variances"):
        GaussianMixtureDenoiser(torch.zeros(1, *SHAPE), torch.ones(2), torch.ones(1), SCHEDULES["vp"])
    silent = NoiseSchedule.from_tables(torch.tensor([1.0, 0.0]), torch.tensor([0.1, 1.0]))
    with pytest.raises(ConfigError, match="no signal"):
        GaussianMixtureDenoiser(torch.zeros(1, *SHAPE), torch.ones(1), torch.ones(1), silent).probability_flow(x_t, 1, 0)
    assert EVERY == -1
