"""The check of pictures that stands at every public door: float RGB in [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rediffuse.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_RANGE_SLACK = 1e-3  # bicubic overshoot and bfloat16 rounding of a picture that is meant to lie in [0, 1]


def check_tensor(images: Tensor) -> Tensor:
    """Return a picture or batch as it came, or say what is wrong with it.

    Args:
        images: float (3, H, W) or (B, 3, H, W) in [0, 1].
    Raises:
        DataError: another type, shape, channel count or range, or NaN; the message names what came and the fix.
    """
    shape = tuple(images.shape)
    if images.ndim not in (3, 4):
        raise DataError(f"images must have shape (3, H, W) or (B, 3, H, W), got {shape}")
    if images.shape[-3] != 3:
        raise DataError(f"images must have 3 channels before height and width, got shape {shape}; {_channel_fix(shape)}")
    if not images.dtype.is_floating_point:
        raise DataError(f"images must be float in [0, 1], got {images.dtype}; for bytes use images.float() / 255")
    if images.numel() == 0:
        return images
    low, high = (float(value) for value in images.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"images must be finite, got values from {low} to {high}")
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise DataError(f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; {_range_fix(low, high)}")
    return images


def _channel_fix(shape: tuple[int, ...]) -> str:
    if shape[-1] == 3:
        return "channels come first: images.movedim(-1, -3)"
    if shape[-3] == 1:
        return "for grey pictures use images.expand(..., 3, -1, -1)"
    return "drop the alpha channel: images[..., :3, :, :]" if shape[-3] == 4 else "give RGB"


def _range_fix(low: float, high: float) -> str:
    if low >= -1 - _RANGE_SLACK and high <= 1 + _RANGE_SLACK:
        return "from [-1, 1] use (images + 1) / 2"
    if low >= -_RANGE_SLACK and high <= 255 + _RANGE_SLACK:
        return "from [0, 255] use images / 255"
    return "undo the normalisation (times std, plus mean), or clamp(0, 1)"
