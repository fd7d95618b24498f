"""Small denoisers and classifiers of which everything is known, for the tests of what happens at test time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rediffuse.data.images import to_pil
from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.base import Condition, Denoiser, NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.evaluation.judged import Judged

LINEAR = NoiseSchedule.from_betas(linear_betas())
SIZE = 8


class Function(Denoiser):
    """x0_hat as a given function of (x_t, t)."""

    def __init__(self, function: object, schedule: NoiseSchedule = LINEAR, *, channels: int = 3, multiple_of: int = 1) -> None:
        super().__init__()
        self.function, self.schedule, self.channels, self.multiple_of = function, schedule, channels, multiple_of
        self.rows: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        self.rows.append(len(x_t))
        return self.function(x_t, t)  # type: ignore[operator]

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        raise NotImplementedError


class Bayes(nn.Module):
    """The best classifier of clean draws of a mixture: log weight + log density of each component."""

    def __init__(self, mixture: GaussianMixtureDenoiser) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, images: Tensor) -> Tensor:
        x = self.mixture.encode(images.double())
        variance = self.mixture.variances
        distance = (x[:, None] - self.mixture.means).square().sum((2, 3, 4))
        return self.mixture.log_weights - distance / (2 * variance) - self.mixture.means[0].numel() / 2 * variance.log()


class Projection(nn.Module):
    """Random linear logits, and BatchNorm and dropout, so that a wrong mode shows."""

    def __init__(self, classes: int = 4, size: int = SIZE, seed: int = 0) -> None:
        super().__init__()
        weight = torch.randn(3 * size * size, classes, generator=torch.Generator().manual_seed(seed)) / 3
        self.weight = nn.Parameter(weight)
        self.norm, self.drop = nn.BatchNorm1d(classes), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.norm((images - 0.5).flatten(1) @ self.weight))


def mixture(classes: int = 3, size: int = SIZE, spread: float = 0.1, variance: float = 0.004, seed: int = 1) -> GaussianMixtureDenoiser:
    """Components well inside of [-1, 1]."""
    means = spread * torch.randn(classes, 3, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    variances = torch.full((classes,), variance, dtype=torch.float64)
    return GaussianMixtureDenoiser(means, variances, torch.ones(classes), LINEAR)


def pictures(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def gaussians(count: int) -> tuple[Judged, ImageSet, GaussianMixtureDenoiser]:
    """A mixture of two classes: its best classifier, draws of it, and its denoiser."""
    made, labels = mixture(classes=2, spread=0.15), torch.arange(count) % 2
    x = made.decode(made.sample(count, torch.Generator().manual_seed(0), labels))
    examples = [Example(id=str(k), image=to_pil(image), label=int(label)) for k, (image, label) in enumerate(zip(x, labels, strict=True))]
    return Judged(Bayes(made), ["a", "b"], name="bayes"), ImageSet.of(examples, classes=["a", "b"]), made
