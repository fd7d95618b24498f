"""How long and by which means a network usually learns to be robust, by what it knows at the start."""

from __future__ import annotations

from rediffuse.training.augment import CropViews, StandardViews, ViewLaw
from rediffuse.training.backbones import CIFAR_VIT, FROM_RANDOM
from rediffuse.training.procedure import Procedure
from rediffuse.training.settings import TrainSettings

EPOCHS = 30.0
SMALL = 64
"""Pictures of this many pixels fill their frame, and are shifted instead of cropped."""


def usual(level: str) -> tuple[TrainSettings, Procedure]:
    """Settings (of one step; `replace` the number) and means: SGD for convolutions and AdamW for transformers from random weights, a
    gentle AdamW for networks that know something."""
    if level == CIFAR_VIT:
        return TrainSettings(steps=1, batch=128, learning_rate=1e-3, weight_decay=0.05), _means("adamw", clip=1.0)
    if level in FROM_RANDOM:
        return TrainSettings(steps=1, batch=128, learning_rate=0.1, weight_decay=5e-4), _means("sgd")
    return TrainSettings(steps=1, batch=64, learning_rate=5e-5, weight_decay=0.05), _means("adamw", clip=1.0)


def usual_views(size: int, flips: bool) -> ViewLaw:
    """Pad and crop for small pictures; for larger ones crops of 8 % of the area and up, as on ImageNet."""
    if size <= SMALL:
        return CropViews(flips=flips)
    return StandardViews(smallest=0.08, rotation=0, flips=flips)


def usual_severity(size: int) -> float:
    """AugMix's: 3 on small pictures, 1 at ImageNet's size. Reference: Hendrycks et al., ICLR 2020, arXiv 1912.02781."""
    return 3.0 if size <= SMALL else 1.0


def _means(optimizer: str, clip: float = 0.0) -> Procedure:
    return Procedure(optimizer=optimizer, order="epochs", dtype="auto", clip=clip)  # type: ignore[arg-type]
