"""A denoiser that is exactly right: the data are a mixture of round Gaussians, so every belief has a closed form.

The oracle of tests and documentation. With x0 ~ sum_k w_k N(m_k, v_k I) and x_t = alpha x0 + sigma noise, component k of x_t is
N(alpha m_k, (alpha² v_k + sigma²) I), and Bayes' rule gives everything below (Karras et al., NeurIPS 2022, arXiv 2206.00364, appendix B.3,
treats the case of points).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule
from rediffuse.errors import ConfigError

EVERY = -1  # the label of a row that is told nothing


class GaussianMixtureDenoiser(Denoiser):
    """The posterior mean of a Gaussian mixture, computed in float64.

    Use it wherever a sampler, a transform or a loss is to be checked against the truth; it needs no weights and no training.

    Args:
        means: (K, C, H, W).
        variances: (K,), positive.
        weights: (K,), positive; they are scaled to sum to 1.
        schedule: any table.
        prompts: component by prompt; "" means all of them unless it is given. None: takes no prompts.
        dtype: of x0_hat.
    A condition's `labels` name the component of each row; EVERY (-1), or no condition, means the whole mixture.
    """

    means: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(
        self,
        means: Tensor,
        variances: Tensor,
        weights: Tensor,
        schedule: NoiseSchedule,
        prompts: Mapping[str, int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        count = len(means)
        if means.ndim != 4 or variances.shape != (count,) or weights.shape != (count,):
            shapes = f"{tuple(means.shape)}, {tuple(variances.shape)} and {tuple(weights.shape)}"
            raise ConfigError(f"means, variances and weights must be (K, C, H, W), (K,) and (K,), got {shapes}")
        if not bool((variances > 0).all() and (weights > 0).all()):
            raise ConfigError(f"variances and weights must be positive, got {variances.tolist()} and {weights.tolist()}")
        self.register_buffer("means", means.detach().double())
        self.register_buffer("variances", variances.detach().double())
        self.register_buffer("log_weights", (weights.double() / weights.double().sum()).log())
        self.schedule = schedule
        self.channels = means.shape[1]
        self.dtype = dtype
        self.prompts = None if prompts is None else {"": EVERY, **prompts}
        self.conditional = prompts is not None

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """E[x0 | x_t], of the component that the condition names or of the mixture. (B, C, H, W)."""
        alpha, sigma = self.schedule.at(t, x_t)
        beliefs, shares = self._components(x_t.double(), alpha.double(), sigma.double(), condition)
        return torch.einsum("bk,bkchw->bchw", shares, beliefs).to(self.dtype)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Mean squared error of x0_hat, (B,): this denoiser's parameterisation is the sample itself."""
        x0_hat = self(self.schedule.add_noise(x0, noise, t), t, condition)
        loss: Tensor = (x0_hat - x0).square().mean((1, 2, 3))
        return loss

    def embed(self, prompts: Sequence[str], words: Mapping[str, Tensor] | None = None) -> Condition:
        """The components of these prompts. Vectors in `words` mean nothing here: a prompt with a placeholder is looked up as it is."""
        if self.prompts is None:
            return super().embed(prompts, words)
        unknown = [prompt for prompt in prompts if prompt not in self.prompts]
        if unknown:
            raise ConfigError(f"the mixture has no component for the prompt {unknown[0]!r}; it knows {sorted(self.prompts)}")
        return Condition(labels=torch.tensor([self.prompts[prompt] for prompt in prompts], device=self.device))

    def sample(self, count: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> Tensor:
        """Draws of x0 (count, C, H, W), of the components `labels` (count,) if given."""
        if labels is None:
            labels = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        noise = torch.randn((count, *self.means.shape[1:]), generator=generator, dtype=torch.float64, device=self.means.device)
        deviation = self.variances.sqrt()[labels].view(-1, 1, 1, 1)
        return (self.means[labels] + deviation * noise).to(self.dtype)

    def responsibilities(self, x_t: Tensor, t: Tensor) -> Tensor:
        """p(k | x_t), (B, K) float64: the best that any classifier of noisy images can say."""
        alpha, sigma = self.schedule.at(t, x_t)
        return self._components(x_t.double(), alpha.double(), sigma.double(), None)[1]

    def posterior_covariance(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Cov[x0 | x_t], (B, D, D) float64 with D = C H W: the mean of the components' covariances and the covariance of their means."""
        alpha, sigma = (value.double() for value in self.schedule.at(t, x_t))
        beliefs, shares = self._components(x_t.double(), alpha, sigma, condition)
        beliefs = beliefs.flatten(2)  # (B, K, D)
        centred = beliefs - torch.einsum("bk,bkd->bd", shares, beliefs).unsqueeze(1)
        between = torch.einsum("bk,bkd,bke->bde", shares, centred, centred)
        alpha, sigma = alpha.view(-1, 1), sigma.view(-1, 1)
        within = self.variances * sigma.square() / (alpha.square() * self.variances + sigma.square())  # (B, K)
        return between + (shares * within).sum(1).view(-1, 1, 1) * torch.eye(beliefs.shape[2], dtype=torch.float64, device=x_t.device)

    def probability_flow(self, x: Tensor, t_from: int, t_to: int | None, steps: int = 500, condition: Condition | None = None) -> Tensor:
        """Where the exact deterministic sampler carries x from level t_from: to level t_to, or to the clean image (None). float64.

        In y = x / alpha and rho = sigma / alpha the flow is dy/drho = -rho * score(y, rho) whatever the table between the two levels
        (arXiv 2206.00364, Eq. 3 and 4). Runge-Kutta of order 4 in asinh(rho / s), which is smooth down to rho = 0; s is the least deviation
        of a component. With 500 steps the error is far below that of any sampler; double them to see it.
        """
        alpha, sigma = self.schedule.alpha.double(), self.schedule.sigma.double()
        if alpha[t_from] == 0:
            raise ConfigError(f"level {t_from} holds no signal (alpha is 0), so the flow cannot start there; take an earlier level")
        scale = float(self.variances.min().sqrt())
        first = float(torch.asinh(sigma[t_from] / alpha[t_from] / scale))
        last = 0.0 if t_to is None else float(torch.asinh(sigma[t_to] / alpha[t_to] / scale))
        grid = torch.linspace(first, last, steps + 1, dtype=torch.float64).tolist()
        y = x.double() / alpha[t_from]
        for now, after in pairwise(grid):
            half, step = (now + after) / 2, after - now
            one = self._slope(y, now, scale, condition)
            two = self._slope(y + step / 2 * one, half, scale, condition)
            three = self._slope(y + step / 2 * two, half, scale, condition)
            four = self._slope(y + step * three, after, scale, condition)
            y = y + step / 6 * (one + 2 * two + 2 * three + four)
        return y if t_to is None else alpha[t_to] * y

    def _slope(self, y: Tensor, time: float, scale: float, condition: Condition | None) -> Tensor:
        """dy/dtime with rho = scale * sinh(time): -rho * score * drho/dtime."""
        clock = torch.tensor(time, dtype=torch.float64)
        rho, speed = scale * clock.sinh().to(y.device), scale * clock.cosh().to(y.device)
        ones = torch.ones(len(y), 1, 1, 1, dtype=torch.float64, device=y.device)
        shares = self._components(y, ones, rho * ones, condition)[1]
        pull = (self.means - y.unsqueeze(1)) / (self.variances + rho.square()).view(-1, 1, 1, 1)  # (B, K, C, H, W)
        return -rho * speed * torch.einsum("bk,bkchw->bchw", shares, pull)

    def _components(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """Each component's E[x0 | x_t, k] (B, K, C, H, W) and its share p(k | x_t) (B, K); alpha, sigma: (B, 1, 1, 1)."""
        alpha, sigma = alpha.unsqueeze(1), sigma.unsqueeze(1)  # (B, 1, 1, 1, 1)
        variance = self.variances.view(1, -1, 1, 1, 1)
        spread = alpha.square() * variance + sigma.square()  # (B, K, 1, 1, 1)
        offset = x_t.unsqueeze(1) - alpha * self.means  # (B, K, C, H, W)
        beliefs = self.means + alpha * variance / spread * offset
        spread = spread.flatten(1)
        size = self.means[0].numel()
        logits = self.log_weights - 0.5 * size * spread.log() - 0.5 * offset.square().sum((2, 3, 4)) / spread
        return beliefs, self._told(logits, condition).softmax(1)

    def _told(self, logits: Tensor, condition: Condition | None) -> Tensor:
        """Rows that are told their component keep it alone."""
        if condition is None:
            return logits
        labels = condition.labels
        if labels is None or len(labels) != len(logits) or not bool(((labels >= EVERY) & (labels < len(self.means))).all()):
            raise ConfigError(f"a condition of this mixture needs one label in [-1, {len(self.means) - 1}] a row, got {labels}")
        labels = labels.to(logits.device).unsqueeze(1)
        other = torch.arange(len(self.means), device=logits.device) != labels
        return logits.masked_fill(other & (labels != EVERY), -torch.inf)
