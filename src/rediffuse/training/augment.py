"""Standard augmentation on tensors: random resized crop, small rotation, flip. Drawn first, then applied."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StandardViews:
    """The law of the standard augmentation, the same for every arm of a comparison.

    Args:
        smallest: least share of the picture's area that a crop keeps, in (0, 1]; 1 crops nothing.
        stretch: largest ratio of a crop's sides, at least 1.
        rotation: largest turn in degrees, either way.
        flips: whether half of the views are mirrored; False where a mirror image has another label (digits).
    """

    smallest: float = 0.5
    stretch: float = 4 / 3
    rotation: float = 15.0
    flips: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ConfigError(f"smallest is a share of the area and must be in (0, 1], got {self.smallest}")
        if self.stretch < 1:
            raise ConfigError(f"stretch is a ratio of sides and must be at least 1, got {self.stretch}")
        if not 0 <= self.rotation <= 180:
            raise ConfigError(f"rotation must be 0 to 180 degrees, got {self.rotation}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 2, 3) float32: for each view, the affine map from its corners to the picture's, in coordinates of [-1, 1]."""
        area = self.smallest + (1 - self.smallest) * torch.rand(count, generator=generator)
        stretch = ((torch.rand(count, generator=generator) - 0.5) * math.log(self.stretch)).exp()
        wide, high = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
        shift_x = (torch.rand(count, generator=generator) * 2 - 1) * (1 - wide)
        shift_y = (torch.rand(count, generator=generator) * 2 - 1) * (1 - high)
        turn = (torch.rand(count, generator=generator) * 2 - 1) * math.radians(self.rotation)
        mirrored = torch.rand(count, generator=generator) < 0.5  # drawn in any case: flips then change no other number
        mirror = 1 - 2 * (mirrored & torch.tensor(self.flips)).float()
        cos, sin = turn.cos(), turn.sin()
        across = torch.stack([cos * wide * mirror, -sin * high, shift_x], 1)
        down = torch.stack([sin * wide * mirror, cos * high, shift_y], 1)
        return torch.stack([across, down], 1)


def apply_views(images: Tensor, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample the drawn views of pictures, straight at the size that a network takes; what lies outside is reflected.

    Args:
        images: (B, 3, H, W) float.
        views: (B, 2, 3) from `StandardViews.draw`.
        size: (height, width) of the result.
    """
    grid = F.affine_grid(views.to(images.device), [len(images), 3, *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def generator_of(*key: int | str) -> torch.Generator:
    """A generator on the CPU that is a function of this key alone, such as (purpose, seed, step): what a resumed training needs."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
