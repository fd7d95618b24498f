"""Pictures with structure at every scale, and small real networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rediffuse.evaluation.judged import Judged


def pictures(count: int, side: int = 32, seed: int = 0) -> Tensor:
    """(count, 3, side, side) uint8: ramps, blocks and noise, so that no two and no two channels are alike."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    found = []
    for _ in range(count):
        slope = generator.uniform(-100, 100, (2, 3))
        blocks = generator.uniform(0, 255, (3, 4, 4)).repeat(side // 4, 1).repeat(side // 4, 2)
        blocks = np.pad(blocks, ((0, 0), (0, side - blocks.shape[1]), (0, side - blocks.shape[2])), mode="edge")
        ramp = slope[0][:, None, None] * x + slope[1][:, None, None] * y
        found.append((0.6 * blocks + ramp + generator.normal(0, 10, blocks.shape) + 60).clip(0, 255))
    return torch.from_numpy(np.stack(found).astype(np.uint8))


def network(classes: list[str], seed: int = 0, name: str = "") -> Judged:
    """A convolution, a mean and a linear layer, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, len(classes)))
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return Judged(net, classes, name=name or f"net {seed}")
