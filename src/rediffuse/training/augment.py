"""Standard augmentation on tensors, drawn first, then applied: random resized crop, small rotation and flip; or pad, crop and flip."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.errors import ConfigError
from rediffuse.methods.crops import CropDraw, crop
from rediffuse.training.preprocessing import resize


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

    def apply(self, images: Tensor, drawn: Tensor, size: tuple[int, int]) -> Tensor:
        """See `apply_views`."""
        return apply_views(images, drawn, size)


@dataclass(frozen=True, kw_only=True)
class CropViews:
    """Shifts by a few pixels and flips: the law for small pictures that fill their frame, such as CIFAR's.

    Args:
        padding: zeros around a picture before it is cropped, in pixels; None is an eighth of its side (4 at 32).
        flips: whether half of the views are mirrored; False where a mirror image has another label (digits).
    Reference: Lee et al., AISTATS 2015, arXiv 1409.5185, section 4.
    """

    padding: int | None = None
    flips: bool = True

    def __post_init__(self) -> None:
        if self.padding is not None and self.padding < 0:
            raise ConfigError(f"padding is in pixels and must be at least 0, got {self.padding}")

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3) float64 in [0, 1): how far down and right a crop lies in the padded picture, and whether (below .5) it is mirrored."""
        return torch.rand(count, 3, generator=generator, dtype=torch.float64)

    def apply(self, images: Tensor, drawn: Tensor, size: tuple[int, int]) -> Tensor:
        """Crop at the pictures' own scale, then resize. images: (B, 3, H, W) float; size: (height, width) of the result."""
        padding = min(images.shape[2:]) // 8 if self.padding is None else self.padding
        top, left = (drawn[:, :2] * (2 * padding + 1)).long().unbind(1)
        mirror = (drawn[:, 2] < 0.5) & torch.tensor(self.flips)
        return resize(crop(images, CropDraw(top=top, left=left, mirror=mirror), padding), size)


ViewLaw = StandardViews | CropViews


def apply_views(images: Tensor, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample the drawn views of pictures, straight at the size that a network takes; what lies outside is reflected.

    Larger pictures are brought to that size first, with antialiasing, so that no fine pattern comes through as a coarse one.

    Args:
        images: (B, 3, H, W) float.
        views: (B, 2, 3) from `StandardViews.draw`.
        size: (height, width) of the result.
    """
    height, width = images.shape[2:]
    images = resize(images, (min(height, size[0]), min(width, size[1])))
    grid = F.affine_grid(views.to(images.device), [len(images), 3, *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def generator_of(*key: int | str) -> torch.Generator:
    """A generator on the CPU that is a function of this key alone, such as (purpose, seed, step): what a resumed training needs."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
