"""The picture operations of AugMix, each on a whole batch at once, to the pixel what Pillow does.

Pictures are float tensors (N, 3, H, W) that hold the whole numbers 0 to 255: the operations are defined on bytes, and each rounds as
Pillow rounds. What lies outside a moved picture is black.

Reference: Hendrycks et al., ICLR 2020, arXiv 1912.02781, appendix C (which operations, and how far a severity goes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(pictures (N, 3, H, W), level (N,) float64 in [0, 10), sign (N,) float64, +1 or -1) -> pictures."""
DEEPEST = 10.0
"""The level at which an operation would go its whole way."""


def autocontrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel stretched so that its values span 0 to 255."""
    low, high = (edge.double().unsqueeze(2) for edge in (images.amin((2, 3)), images.amax((2, 3))))  # (N, 3, 1)
    span = (high - low).clamp(min=1)
    scale = torch.full_like(span, 255) / span  # a number by a tensor would be rounded twice
    table = _every_value(images) * scale - low * scale  # (N, 3, 256)
    return _look_up(images, torch.where(high > low, table.trunc().clamp(0, 255), _every_value(images)))


def equalize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel's values spread so that they occur about equally often."""
    index = images.flatten(2).long()  # (N, 3, H W)
    counts = torch.zeros(*index.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, index, torch.ones_like(index))
    last = counts.gather(2, index.amax(2, keepdim=True))
    step = (index.shape[2] - last) // 255
    before = counts.cumsum(2) - counts
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return _look_up(images, torch.where(step > 0, table, _every_value(images)))


def posterize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """The highest 4 bits of a value kept, or fewer."""
    step = 2.0 ** (4 + _whole(level, 4))
    return (images / _each(step, images)).floor() * _each(step, images)


def solarize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Values from a threshold on inverted."""
    return torch.where(images < _each(256 - _whole(level, 256), images), images, 255 - images)


def rotate(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Turned about the centre by whole degrees, 30 at most."""
    angle = torch.deg2rad(-sign * _whole(level, 30))
    cos, sin = angle.cos(), angle.sin()
    middle_x, middle_y = images.shape[3] / 2, images.shape[2] / 2
    shift_x = middle_x - cos * middle_x - sin * middle_y
    shift_y = middle_y + sin * middle_x - cos * middle_y
    return _affine(images, torch.stack([cos, sin, shift_x, -sin, cos, shift_y], 1))


def shear_x(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Rows slid against each other, by 0.3 of a pixel a row at most."""
    return _affine(images, _matrix(level, b=sign * level * 0.3 / DEEPEST))


def shear_y(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Columns slid against each other, by 0.3 of a pixel a column at most."""
    return _affine(images, _matrix(level, d=sign * level * 0.3 / DEEPEST))


def translate_x(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Moved sideways by whole pixels, a third of the width at most."""
    return _affine(images, _matrix(level, c=sign * _whole(level, images.shape[3] / 3)))


def translate_y(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Moved up or down by whole pixels, a third of the height at most."""
    return _affine(images, _matrix(level, f=sign * _whole(level, images.shape[2] / 3)))


def color(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Between grey and twice as colourful."""
    return _blend(grey(images).expand_as(images), images, _factor(level))


def contrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Between the mean grey and twice the contrast."""
    mean = (grey(images).double().mean((1, 2, 3), keepdim=True) + 0.5).floor().to(images.dtype)
    return _blend(mean.expand_as(images), images, _factor(level))


def brightness(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Between black and twice as bright."""
    return _blend(torch.zeros_like(images), images, _factor(level))


def sharpness(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Between blurred and sharpened; the outermost pixels stay."""
    kernel = torch.ones(3, 1, 3, 3, dtype=images.dtype, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        smooth[:, :, 1:-1, 1:-1] = (F.conv2d(images, kernel, groups=3) / 13 + 0.5).floor()
    return _blend(smooth, images, _factor(level))


OPERATIONS: Mapping[str, Operation] = {
    operation.__name__: operation
    for operation in (autocontrast, equalize, posterize, rotate, solarize, shear_x, shear_y, translate_x, translate_y)
}
"""Those that are no part of the corruption benchmarks: what AugMix uses."""
ALL_OPERATIONS: Mapping[str, Operation] = {
    **OPERATIONS,
    **{operation.__name__: operation for operation in (color, contrast, brightness, sharpness)},
}


def grey(images: Tensor) -> Tensor:
    """Luma (N, 1, H, W) in whole numbers: ITU-R 601 in 16-bit fixed point."""
    red, green, blue = images.to(torch.int64).unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.unsqueeze(1).to(images.dtype)


def _whole(level: Tensor, largest: float) -> Tensor:
    """A level as a whole number up to `largest`."""
    return (level * largest / DEEPEST).trunc()


def _factor(level: Tensor) -> Tensor:
    """A level as the factor of a blend: 0.1 to 1.9."""
    return level * 1.8 / DEEPEST + 0.1


def _each(value: Tensor, images: Tensor) -> Tensor:
    """(N,) so that it multiplies pictures."""
    return value.to(images.device, images.dtype).view(-1, 1, 1, 1)


def _every_value(images: Tensor) -> Tensor:
    return torch.arange(256, device=images.device).expand(len(images), 3, 256)


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """table: (N, 3, 256), what each value of a channel becomes."""
    return table.to(images.dtype).gather(2, images.flatten(2).long()).view_as(images)


def _blend(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """From `one` at 0 past `other` at 1, cut off to whole numbers in [0, 255]."""
    return (one + _each(share, one) * (other - one)).clamp(0, 255).floor()


def _matrix(like: Tensor, **entries: Tensor) -> Tensor:
    """(N, 6): the identity with some of its entries a, b, c, d, e, f replaced."""
    identity = dict.fromkeys("bcdf", torch.zeros_like(like)) | dict.fromkeys("ae", torch.ones_like(like)) | entries
    return torch.stack([identity[name] for name in "abcdef"], 1)


def _affine(images: Tensor, matrix: Tensor) -> Tensor:
    """The pixel at (x, y) is taken from (a x + b y + c, d x + e y + f), bilinearly; centres of pixels lie at halves.

    Places in float64: they decide by a floor which pixels are read. matrix: (N, 6) float64.
    """
    height, width = images.shape[2:]
    a, b, c, d, e, f = (value.view(-1, 1, 1) for value in matrix.to(images.device, torch.float64).unbind(1))
    x = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    y = (torch.arange(height, dtype=torch.float64, device=images.device) + 0.5).unsqueeze(1)
    from_x, from_y = a * x + b * y + c, d * x + e * y + f  # (N, H, W)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    left, right, across = _neighbours(from_x, width)
    top, bottom, down = _neighbours(from_y, height)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3)  # (N H W, 3): a pixel is read at once
    start = torch.arange(0, len(pixels), height * width, device=images.device).view(-1, 1, 1)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return pixels.index_select(0, (start + row * width + column).flatten())

    across, down = (share.flatten().unsqueeze(1).to(images.dtype) for share in (across, down))
    upper = at(top, left).lerp_(at(top, right), across)
    lower = at(bottom, left).lerp_(at(bottom, right), across)
    moved = upper.lerp_(lower, down).floor_().mul_(inside.flatten().unsqueeze(1))
    return moved.view(len(images), height, width, 3).permute(0, 3, 1, 2)


def _neighbours(place: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that a place lies between, and its share of the second."""
    first = (place - 0.5).floor()
    return first.clamp(0, side - 1).long(), (first + 1).clamp(0, side - 1).long(), place - 0.5 - first
