"""What happens between sensor and screen. Pixels are (B, 3, side, side) float32 from 0 to 255; what is returned may leave that range."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.corruptions.constants import Constants
from rediffuse.evaluation.corruptions.kernels import Floats, blur_matrix, sampled
from rediffuse.evaluation.corruptions.noise import Generators


def contrast(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Draws each channel towards its mean over the picture; `constants[0]` of the distance is left."""
    mean = pixels.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
    return np.asarray((pixels - mean) * constants[0] + mean, dtype=np.float32)


def saturate(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Multiplies the saturation and adds to it; hue and value stay. constants: factor and summand.

    Grey has no hue and counts as red, as in the published sets: it reddens where the summand is not 0.
    """
    factor, summand = constants
    value, least = pixels.max(axis=1, keepdims=True), pixels.min(axis=1, keepdims=True)
    spread = value - least
    saturation = (spread / np.maximum(value, 1) * np.float32(factor) + np.float32(summand)).clip(0, 1)
    red = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
    hue = np.where(spread > 0, (value - pixels) / np.maximum(spread, 1), red)  # 0 in the largest channel, 1 in the smallest
    found: Floats = value - value * saturation * hue
    return found


def jpeg_compression(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Stored as JPEG of quality `constants[0]` and read again."""
    from PIL import Image

    found = np.empty_like(pixels)
    for row, picture in enumerate(_bytes(pixels)):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(constants[0]))
        with Image.open(file) as image:
            found[row] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return found


def pixelate(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Made smaller to `constants[0]` of the side, by means over boxes, and as large again in blocks."""
    from PIL import Image

    side = pixels.shape[-1]
    small = int(side * constants[0])
    found = np.empty_like(pixels)
    for row, picture in enumerate(_bytes(pixels)):
        image = Image.fromarray(picture).resize((small, small), Image.Resampling.BOX).resize((side, side), Image.Resampling.BOX)
        found[row] = np.asarray(image).transpose(2, 0, 1)
    return found


def elastic_transform(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Three corners moved at random, then every pixel by a smooth random field. constants: strength and smoothness of the field and the
    largest move of a corner, in px."""
    strength, smoothness, move = constants
    side = pixels.shape[-1]
    shifts = np.stack([generator.uniform(-move, move, (3, 2)) for generator in generators])
    y, x = _affine(shifts, side)
    if move:
        pixels = sampled(pixels, y, x, repeat_edge=False)
    if not strength:
        return pixels
    drawn = np.stack([generator.uniform(-1, 1, (2, side, side)) for generator in generators])
    matrix = blur_matrix(side, smoothness, truncate=3, edge="reflect")
    field = matrix @ (drawn @ matrix.T) * strength  # (B, 2, side, side)
    grid_y, grid_x = np.mgrid[0:side, 0:side].astype(np.float64)
    return sampled(pixels, grid_y + field[:, 1], grid_x + field[:, 0], repeat_edge=True)


def _affine(shifts: NDArray[np.float64], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each pixel comes from, (y, x) of (B, side, side), when three corners of a middle square move by `shifts` (B, 3, (x, y))."""
    middle, reach = side // 2, side // 3
    before = np.array(
        [[middle + reach, middle + reach], [middle + reach, middle - reach], [middle - reach, middle - reach]], dtype=np.float64
    )
    ones = np.ones((len(shifts), 3, 1))
    after = np.concatenate([before + shifts, ones], axis=2)  # (B, 3, (x, y, 1))
    # after @ back = before: the affine map that takes the moved corners to where they were.
    back = np.linalg.solve(after, np.broadcast_to(before, shifts.shape))  # (B, 3, 2)
    grid_y, grid_x = np.mgrid[0:side, 0:side].astype(np.float64)
    weights = back[:, :, :, None, None]
    x, y = (weights[:, 0, axis] * grid_x + weights[:, 1, axis] * grid_y + weights[:, 2, axis] for axis in (0, 1))
    return y, x


def _bytes(pixels: Floats) -> NDArray[np.uint8]:
    """(B, side, side, 3)."""
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(0, 2, 3, 1))
