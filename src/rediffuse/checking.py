"""The checks that stand at every public door: pictures as float RGB in [0, 1], a training set's as bytes, labels within the classes;
a limit of time, and of memory."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError

_RANGE_SLACK = 1e-3  # bicubic overshoot and bfloat16 rounding of a picture that is meant to lie in [0, 1]


def check_tensor(images: Tensor) -> Tensor:
    """Return a picture or batch as it came, or say what is wrong with it.

    Args:
        images: float (3, H, W) or (B, 3, H, W) in [0, 1].
    Raises:
        DataError: another type, shape, channel count or range, or NaN; the message names what came and the fix.
    """
    if images.ndim not in (3, 4):
        raise DataError(f"images must have shape (3, H, W) or (B, 3, H, W), got {tuple(images.shape)}")
    _check_kind(images)
    if images.numel() == 0:
        return images
    low, high = (float(value) for value in images.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"images must be finite, got values from {low} to {high}; leave out pictures with missing values")
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise DataError(f"images must lie in [0, 1], got values from {low:.4g} to {high:.4g}; {_range_fix(low, high)}")
    return images


def check_batch(images: Tensor) -> Tensor:
    """Return a batch as it came, or say what is wrong with its shape or type; no value is read, so it costs nothing on any device.

    Choose it over `check_tensor` where noisy pictures come too, which leave [0, 1] on purpose.

    Args:
        images: float (B, 3, H, W).
    Raises:
        DataError: another type, shape or channel count; the message names what came and the fix.
    """
    if images.ndim != 4:
        one = "; for one picture use images[None]" if images.ndim == 3 else ""
        raise DataError(f"images must have shape (B, 3, H, W), got {tuple(images.shape)}{one}")
    _check_kind(images)
    return images


def check_hours(hours: float | None) -> None:
    """Raise ConfigError for a limit of time that is below 0 or no number. hours: None for no limit."""
    if hours is not None and not (math.isfinite(hours) and hours >= 0):
        raise ConfigError(f"hours must be a number of at least 0, got {hours:g}; leave it out for no limit")


def check_memory(needed: int, what: str, fix: str) -> None:
    """Raise ConfigError for what does not fit into the memory that is free, where the system says how much that is.

    Args:
        needed: bytes, that will be filled. what: takes them. fix: what to give instead.
    """
    free = free_memory()
    if free is not None and needed > free:
        raise ConfigError(f"{what} take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; give {fix}")


def free_memory() -> int | None:
    """Bytes that can be filled without a disk's help; None where the system does not say so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def check_bytes(images: Tensor, name: str = "pictures") -> Tensor:
    """Return the pictures of a training set as they came, or say what is wrong with them.

    Args:
        images: uint8 (N, 3, H, W).
        name: what the message calls them.
    Raises:
        DataError: another type, shape or channel count, or a missing value; the message names what came and the fix.
    """
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise DataError(f"{name} must have shape (N, 3, H, W), got {shape}")
    if shape[1] != 3:
        raise DataError(f"{name} must have 3 channels before height and width, got shape {shape}; {_channel_fix(shape)}")
    if images.dtype != torch.uint8:
        raise DataError(f"{name} must be uint8, got {images.dtype}{_bytes_fix(images)}")
    return images


def check_labels(labels: Tensor, classes: int, name: str = "label") -> Tensor:
    """Return labels as they came, or say which is no class.

    Args:
        labels: (N,) int64 in [0, classes).
        classes: how many there are.
        name: what the message calls one.
    Raises:
        DataError: another type or shape, or a label outside the classes.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        fix = "from one-hot rows use labels.argmax(1)" if labels.ndim == 2 else "use labels.to(torch.int64)"
        raise DataError(f"labels must be int64 (N,), got {labels.dtype} {tuple(labels.shape)}; {fix}")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise DataError(f"{name} {int(outside[0])} is outside the {classes} classes; labels count from 0 to {classes - 1}")
    return labels


def _check_kind(images: Tensor) -> None:
    shape = tuple(images.shape)
    if shape[-3] != 3:
        raise DataError(f"images must have 3 channels before height and width, got shape {shape}; {_channel_fix(shape)}")
    if not images.dtype.is_floating_point:
        raise DataError(f"images must be float in [0, 1], got {images.dtype}; for bytes use images.float() / 255")


def _bytes_fix(images: Tensor) -> str:
    if images.numel() == 0 or not images.dtype.is_floating_point:
        return "; use images.to(torch.uint8)"
    low, high = (float(value) for value in images.aminmax())
    found = f" with values from {low:.4g} to {high:.4g}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{found}; leave out pictures with missing values"
    if low >= 0 and high <= 1:
        return f"{found}; use (images * 255).round().to(torch.uint8)"
    if low >= -1 and high <= 1:
        return f"{found}; use ((images + 1) * 127.5).round().to(torch.uint8)"
    if low >= 0 and high <= 255:
        return f"{found}; use images.round().to(torch.uint8)"
    return f"{found}; undo the normalisation (times std, plus mean) and use (images * 255).round().to(torch.uint8)"


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
