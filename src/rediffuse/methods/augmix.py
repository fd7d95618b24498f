"""AugMix: several short chains of picture operations, mixed with each other and with the picture itself.

    x_mix = sum_i w_i chain_i(x)        view = (1 - m) x + m x_mix        w ~ Dirichlet(a, ..., a), m ~ Beta(a, a)

Reference: Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan. ICLR 2020, arXiv 1912.02781, Algorithm 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.precision import exact_region
from rediffuse.errors import ConfigError
from rediffuse.methods.base import Method, SeedDraw, check_draw, check_images
from rediffuse.methods.picture_operations import ALL_OPERATIONS, DEEPEST, OPERATIONS

LEAST_LEVEL = 0.1
LEAST_ALPHA = 0.01  # below it all weights of a picture can round to nothing
LONGEST = 3
"""Operations of the longest chain, where the length is drawn."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Chains:
    """What the chains of a batch are, W of them an image and L operations at most.

    operation: (B, W, L) int64, -1 behind the end of a chain; level: (B, W, L) float64; sign: (B, W, L) float64, +1 or -1;
    weight: (B, W) float64, sums to 1; share: (B,) float64, of the mixture against the picture.
    """

    operation: Tensor
    level: Tensor
    sign: Tensor
    weight: Tensor
    share: Tensor


class AugMix(Method[SeedDraw]):
    """A mixture of a picture and of short chains of picture operations on it.

    Choose it for robustness without any model: with its consistency loss (`training.objectives`), or alone as one more view. On a batch of
    32-pixel pictures it costs a fraction of a small network's step.

    The operations work on bytes, as the published ones do, so no gradient passes; the mixture is of full precision. What a picture gets
    is a function of its seed alone.

    Args:
        severity: how far operations go, in [0.1, 10); the paper takes 3 on CIFAR (32 px) and 1 on ImageNet (224 px).
        width: chains.
        depth: operations of a chain; None draws 1 to 3 for each chain.
        alpha: of the Dirichlet and Beta laws, at least 0.01.
        all_ops: also color, contrast, brightness and sharpness, which the corruption benchmarks contain.
    Shape: (B, 3, H, W) or (3, H, W) in [0, 1] -> the same.
    Raises:
        ConfigError: a setting out of range.
        DataError: images that are not float RGB in [0, 1].
    Reference: Hendrycks et al., ICLR 2020, arXiv 1912.02781.
    """

    name = "augmix"
    citation = """@inproceedings{hendrycks2020augmix,
  title = {{AugMix}: A Simple Data Processing Method to Improve Robustness and Uncertainty},
  author = {Hendrycks, Dan and Mu, Norman and Cubuk, Ekin D. and Zoph, Barret and Gilmer, Justin and Lakshminarayanan, Balaji},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  eprint = {1912.02781},
  archivePrefix = {arXiv}
}"""

    def __init__(
        self, severity: float = 3.0, *, width: int = 3, depth: int | None = None, alpha: float = 1.0, all_ops: bool = False
    ) -> None:
        super().__init__()
        if not LEAST_LEVEL <= severity < DEEPEST:
            raise ConfigError(f"severity must be in [{LEAST_LEVEL}, {DEEPEST:g}), got {severity}; 3 at 32 pixels, 1 at 224")
        if width < 1 or (depth is not None and depth < 1):
            raise ConfigError(f"width and depth must be at least 1, got {width} and {depth}; depth None draws it")
        if not (alpha >= LEAST_ALPHA and math.isfinite(alpha)):
            raise ConfigError(f"alpha must be a number of at least {LEAST_ALPHA}, got {alpha}; the paper's is 1")
        self.severity, self.width, self.depth, self.alpha, self.all_ops = float(severity), width, depth, float(alpha), all_ops
        self.operations = tuple((ALL_OPERATIONS if all_ops else OPERATIONS).values())

    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> SeedDraw:
        """A seed for each picture."""
        return SeedDraw.of(batch_size, self.generator() if generator is None else generator)

    def chains(self, draw: SeedDraw) -> Chains:
        """What the seeds stand for."""
        from scipy.special import betaincinv, gammaincinv

        longest = self.depth or LONGEST
        shape = (len(draw), self.width, longest)
        each = 1 + 2 * self.width + 3 * self.width * longest
        made = [torch.rand(each, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in draw.seed.tolist()]
        chance = torch.stack(made) if made else torch.zeros(0, each, dtype=torch.float64)
        share, weight, length, rest = chance.split([1, self.width, self.width, 3 * self.width * longest], 1)
        operation, level, sign = (part.reshape(shape) for part in rest.chunk(3, 1))
        depth = (1 + length * LONGEST).long() if self.depth is None else torch.full_like(length, self.depth).long()
        index = (operation * len(self.operations)).long()
        gamma = torch.from_numpy(gammaincinv(self.alpha, weight.numpy()))  # Dirichlet: independent Gammas, scaled to sum to 1
        return Chains(
            operation=index.where(torch.arange(longest) < depth.unsqueeze(2), torch.tensor(-1)),
            level=LEAST_LEVEL + level * (self.severity - LEAST_LEVEL),
            sign=torch.where(sign < 0.5, 1.0, -1.0).double(),
            weight=gamma / gamma.sum(1, keepdim=True),
            share=torch.from_numpy(betaincinv(self.alpha, self.alpha, share[:, 0].numpy())),
        )

    @torch.no_grad()
    def apply(self, images: Tensor, draw: SeedDraw) -> Tensor:  # type: ignore[override]
        """The mixtures of a draw; what a batch is cut into changes nothing. (B, 3, H, W) -> (B, 3, H, W)."""
        check_images(images)
        check_draw(images, draw)
        if images.device.type == "mps":  # Apple's devices have no float64, by which pixels are found
            return self.apply(images.cpu(), draw).to(images.device)
        chains = self.chains(draw)
        pictures = images.float().mul(255).round().clamp(0, 255).repeat_interleave(self.width, 0)  # (B W, 3, H, W)
        parts = (part.flatten(0, 1) for part in (chains.operation, chains.level, chains.sign))
        with exact_region(images.device):  # bytes up to 255 need more digits than a caller's autocast has
            pictures = run_chains(pictures, self.operations, *parts)
        ends = pictures.view(len(images), self.width, *images.shape[1:])
        weight, share = (part.to(images.device, images.dtype) for part in (chains.weight, chains.share))
        mixture = (weight.view(-1, self.width, 1, 1, 1) * ends.to(images.dtype) / 255).sum(1)
        return images.lerp(mixture, share.view(-1, 1, 1, 1)).clamp(0, 1)  # rounding

    def settings(self) -> dict[str, Any]:
        """All that the method is, as JSON."""
        named = {"severity": self.severity, "width": self.width, "depth": self.depth, "alpha": self.alpha, "all_ops": self.all_ops}
        return {"method": self.name, **named}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings().items() if name != "method")


def run_chains(pictures: Tensor, operations: Any, operation: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Every row through its own operations, in order; one call for all rows that are at the same operation.

    Args:
        pictures: (N, 3, H, W), whole numbers 0 to 255.
        operations: see `picture_operations.Operation`.
        operation: (N, L) int64 index, -1 for none; level, sign: (N, L) float64.
    """
    for place in range(operation.shape[1]):
        after = pictures.clone()
        for index in operation[:, place].unique().tolist():
            if index >= 0:
                rows = (operation[:, place] == index).nonzero().flatten()
                here = rows.to(pictures.device)
                after[here] = operations[index](pictures[here], level[rows, place], sign[rows, place])
        pictures = after
    return pictures
