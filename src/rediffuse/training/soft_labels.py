"""Mixup and CutMix: pictures of a batch mixed with each other, and their labels likewise.

Reference: Zhang et al., ICLR 2018, arXiv 1710.09412 (mixup); Yun et al., ICCV 2019, arXiv 1905.04899 (CutMix).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """The law by which a batch is mixed with its own reverse: mixup or CutMix, one of the two for the whole batch.

    Choose it for the clean views of vision transformers; the defaults are those of DeiT-III's second stage (Touvron et al., ECCV 2022,
    arXiv 2204.07118).

    Args:
        mixup, cutmix: alpha of the Beta law of the share, at least 0; 0 switches that one off.
        switch: probability of CutMix where both are on, in [0, 1].
        smoothing: of the labels, before they are mixed, in [0, 1).
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0:
            raise ConfigError(f"mixup and cutmix are alphas and must be at least 0, got {self.mixup} and {self.cutmix}")
        if not 0 <= self.switch <= 1 or not 0 <= self.smoothing < 1:
            raise ConfigError(f"switch must be in [0, 1] and smoothing in [0, 1), got {self.switch} and {self.smoothing}")

    def apply(self, images: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mixed pictures (B, 3, H, W) and what they show, (B, classes): rows sum to 1.

        CutMix counts the area that a box really covers, which its picture's edge may have cut off.
        """
        from scipy.special import betaincinv

        coin, share, down, across = torch.rand(4, dtype=torch.float64, generator=generator).tolist()
        cuts = self.cutmix > 0 and (self.mixup == 0 or coin < self.switch)
        alpha = self.cutmix if cuts else self.mixup
        kept = float(betaincinv(alpha, alpha, share)) if alpha > 0 else 1.0
        other = images.flip(0)
        if cuts:
            top, bottom, left, right = cut_box(images.shape[2], images.shape[3], 1 - kept, down, across)
            mixed = images.clone()
            mixed[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
            kept = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        else:
            mixed = kept * images + (1 - kept) * other
        target = F.one_hot(labels, classes).to(images.dtype) * (1 - self.smoothing) + self.smoothing / classes
        return mixed, kept * target + (1 - kept) * target.flip(0)


def cut_box(height: int, width: int, area: float, down: float, across: float) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a box of that share of the area, its centre at these shares of the sides, cut off at the edges."""
    high, wide = int(height * math.sqrt(area)), int(width * math.sqrt(area))
    middle_y, middle_x = int(down * height), int(across * width)
    top, left = max(0, middle_y - high // 2), max(0, middle_x - wide // 2)
    return top, min(height, middle_y - high // 2 + high), left, min(width, middle_x - wide // 2 + wide)
