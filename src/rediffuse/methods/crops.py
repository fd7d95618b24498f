"""Padding crop and mirror of small pictures, drawn first and then applied.

Reference: Lee et al., AISTATS 2015, arXiv 1409.5185, section 4 (CIFAR pictures padded by 4 pixels and cropped, half of them mirrored).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.methods.base import Draw


@dataclass(frozen=True, eq=False, kw_only=True)
class CropDraw(Draw):
    """Where crops lie: top, left (B,) int64 in the padded picture; mirror (B,) bool."""

    top: Tensor = field(metadata={"dtype": torch.int64})
    left: Tensor = field(metadata={"dtype": torch.int64})
    mirror: Tensor = field(metadata={"dtype": torch.bool})


def draw_crops(count: int, padding: int, flips: bool, generator: torch.Generator) -> CropDraw:
    """Uniform over all places; half of them mirrored if `flips`, which changes no other number."""
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator)
    return CropDraw(top=top, left=left, mirror=(torch.rand(count, generator=generator) < 0.5) & flips)


def crop(images: Tensor, draw: CropDraw, padding: int) -> Tensor:
    """Pad with zeros, cut out what was drawn, mirror. (B, C, H, W) of any type -> the same."""
    height, width = images.shape[2:]
    padded = F.pad(images, (padding,) * 4)
    top, left, mirror = (value.to(images.device).view(-1, 1) for value in (draw.top, draw.left, draw.mirror))
    across = torch.arange(width, device=images.device)
    rows = top + torch.arange(height, device=images.device)  # (B, H)
    columns = left + torch.where(mirror, across.flip(0), across)  # (B, W)
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    return padded[batch, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()
