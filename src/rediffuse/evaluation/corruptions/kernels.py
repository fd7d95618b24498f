"""Linear pieces that corruptions are built from: blurs, zooms and shifts, each exact at the edges and blind to the batch.

Bits must not depend on how pictures are batched. So a product is one of fixed shape a picture in float64, or arithmetic by element.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@cache
def blur_matrix(side: int, sigma: float, *, truncate: float = 4.0, edge: Literal["nearest", "reflect"] = "nearest") -> NDArray[np.float64]:
    """A Gaussian blur of a line as a matrix (side, side): A @ x is `scipy.ndimage.gaussian_filter1d(x, sigma, truncate=, mode=edge)`.

    Rows sum to one, so a constant stays. sigma 0 is the identity.
    """
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    places = np.arange(side)[:, None] + offsets  # (side, taps)
    places = places.clip(0, side - 1) if edge == "nearest" else mirrored(places, side)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], places), weights / weights.sum())
    matrix.setflags(write=False)
    return matrix


def mirrored(places: NDArray[np.int64], side: int, *, repeat_edge: bool = True) -> NDArray[np.int64]:
    """Indices outside a line folded back into it: d c b a | a b c d with `repeat_edge`, d c b | a b c d without."""
    period = 2 * side if repeat_edge else max(2 * side - 2, 1)
    folded = places % period
    return np.minimum(folded, period - 1 - folded if repeat_edge else period - folded)


def gaussian(
    pixels: NDArray[np.floating], sigma: float, *, truncate: float = 4.0, edge: Literal["nearest", "reflect"] = "nearest"
) -> Floats:
    """Blur pictures (..., side, side). sigma in pixels."""
    matrix = blur_matrix(pixels.shape[-1], float(sigma), truncate=truncate, edge=edge)
    blurred: Floats = (matrix @ (pixels.astype(np.float64) @ matrix.T)).astype(np.float32)
    return blurred


@cache
def disk(radius: float, softness: float) -> NDArray[np.float64]:
    """A lens out of focus: a disk of equal weights whose rim a small Gaussian of `softness` px softens.

    It sums to one up to radius 7. The published disks of radius 8 and 10 touch the rim of their grid, where the softening counts
    what lies within twice: they sum to 1.013 and 1.011, and brighten a little. That is kept.
    """
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    line = np.arange(-reach, reach + 1)
    hard = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (offsets / softness) ** 2)
    places = mirrored(np.arange(len(line))[:, None] + offsets, len(line), repeat_edge=False)
    soften = np.zeros((len(line), len(line)))
    np.add.at(soften, (np.arange(len(line))[:, None], places), weights / weights.sum())
    found: NDArray[np.float64] = soften @ (hard / hard.sum()) @ soften.T
    inner = np.flatnonzero(found.max(axis=0) > 0)
    return found[inner[0] : inner[-1] + 1, inner[0] : inner[-1] + 1]


def correlate(pixels: Floats, kernel: NDArray[np.float64]) -> Floats:
    """Pictures (..., side, side) under a symmetric kernel of odd side, mirrored at the edge without repeating it."""
    from scipy import fft

    reach, side = kernel.shape[0] // 2, pixels.shape[-1]
    places = mirrored(np.arange(-reach, side + reach), side, repeat_edge=False)
    shape = (fft.next_fast_len(len(places), real=True),) * 2
    spectrum = fft.rfft2(kernel, shape)
    padded = pixels[..., places[:, None], places].astype(np.float64)
    whole = fft.irfft2(fft.rfft2(padded, shape) * spectrum, shape)
    # A circular product of this size wraps only into the first 2 * reach rows and columns, which are cut off.
    valid: Floats = whole[..., 2 * reach : 2 * reach + side, 2 * reach : 2 * reach + side].astype(np.float32)
    return valid


def zoomed(pixels: Floats, factor: float) -> Floats:
    """The middle of pictures (..., side, side) enlarged to their size, bilinear with the corners of the crop on the corners."""
    side = pixels.shape[-1]
    crop = math.ceil(side / factor)
    start, wide = (side - crop) // 2, round(crop * factor)
    first = (wide - side) // 2
    at = np.arange(first, first + side) * ((crop - 1) / max(wide - 1, 1))
    low = np.minimum(at.astype(np.int64), crop - 1)
    high, share = np.minimum(low + 1, crop - 1), (at - low).astype(np.float32)
    inner = pixels[..., start : start + crop, start : start + crop]
    rows = _between(inner[..., low, :], inner[..., high, :], share[:, None])
    return _between(rows[..., low], rows[..., high], share)


def sampled(pixels: Floats, y: NDArray[np.floating], x: NDArray[np.floating], *, repeat_edge: bool) -> Floats:
    """Pictures (B, 3, side, side) read between pixels at (B, side, side) coordinates, bilinear, mirrored beyond the edge."""
    batch, channels, side, _ = pixels.shape
    flat = pixels.transpose(0, 2, 3, 1).reshape(batch * side * side, channels)
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = (y - top).astype(np.float32)[..., None], (x - left).astype(np.float32)[..., None]
    base = np.arange(batch)[:, None, None] * (side * side)
    rows = [base + mirrored(top + step, side, repeat_edge=repeat_edge) * side for step in (0, 1)]
    columns = [mirrored(left + step, side, repeat_edge=repeat_edge) for step in (0, 1)]
    upper = _between(flat[rows[0] + columns[0]], flat[rows[0] + columns[1]], right)
    lower = _between(flat[rows[1] + columns[0]], flat[rows[1] + columns[1]], right)
    return np.ascontiguousarray(_between(upper, lower, down).transpose(0, 3, 1, 2))


def _between(first: Floats, second: Floats, share: Floats) -> Floats:
    return first + (second - first) * share


def smeared(picture: Floats, radius: int, sigma: float, angle: float) -> Floats:
    """One picture (..., side, side) dragged along a line: half a Gaussian of `sigma` px over 2 * radius + 1 whole-pixel steps.

    Beyond the edge its last pixel goes on. angle: degrees.
    """
    side, width = picture.shape[-1], 2 * radius + 1
    weights = np.exp(-0.5 * (np.arange(width) / sigma) ** 2)
    weights /= weights.sum()
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    steps = [(math.ceil(step * down - 0.5), math.ceil(step * right - 0.5)) for step in range(width)]
    reach = max(max(abs(y), abs(x)) for y, x in steps)
    padded = np.pad(picture, [(0, 0)] * (picture.ndim - 2) + [(reach, reach)] * 2, mode="edge")
    found = np.zeros_like(picture)
    for weight, (y, x) in zip(weights.astype(np.float32), steps, strict=True):
        if weight > 1e-6:  # less moves no pixel by a thousandth of a level
            found += weight * padded[..., reach + y : reach + y + side, reach + x : reach + x + side]
    return found
