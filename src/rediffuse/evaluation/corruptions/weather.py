"""Snow, fog, frost and bright light. Pixels are (B, 3, side, side) float32 from 0 to 255; what is returned may leave that range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.corruptions.constants import Constants
from rediffuse.evaluation.corruptions.frost import Overlays
from rediffuse.evaluation.corruptions.kernels import Floats, smeared, zoomed
from rediffuse.evaluation.corruptions.levels import cut, nearest
from rediffuse.evaluation.corruptions.noise import Generators

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def brightness(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Adds to the value of hue, saturation, value: pixels grow by one factor, so that hue and saturation stay; black becomes grey."""
    value = pixels.max(axis=1, keepdims=True)
    lifted = np.minimum(value + np.float32(255 * constants[0]), 255)
    found: Floats = np.where(value > 0, pixels * (lifted / np.maximum(value, 1)), lifted)
    return found


def fog(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Adds a fractal cloud and scales back to the picture's own largest value. constants: strength, and how fast detail decays."""
    strength, decay = constants
    side = pixels.shape[-1]
    cloud = plasma(generators, 1 << (side - 1).bit_length(), decay)[:, None, :side, :side]
    largest = pixels.max(axis=(1, 2, 3), keepdims=True) / np.float32(255)
    found: Floats = (pixels + np.float32(255 * strength) * cloud) * (largest / (largest + np.float32(strength)))
    return found


def plasma(generators: Generators, side: int, decay: float) -> Floats:
    """Height maps (B, side, side) from 0 to 1 by the diamond-square algorithm on a torus; side a power of two.

    A new point is the mean of its four neighbours and a uniform draw whose range begins at 10,000 and falls by the square of `decay`
    from one level to the next.
    Reference: Fournier, Fussell and Carpenter, Computer Rendering of Stochastic Models, CACM 1982.
    """
    drawn = np.stack([generator.random(side * side - 1) for generator in generators]) * 2 - 1  # (B, side² - 1)
    height = np.zeros((len(drawn), side, side))
    used, step, reach = 0, side, 100.0

    def wobble(rows: int) -> NDArray[np.float64]:
        nonlocal used
        part = drawn[:, used : used + rows * rows].reshape(-1, rows, rows) * reach**2
        used += rows * rows
        return part

    while step >= 2:
        half, rows = step // 2, side // step
        corners = height[:, ::step, ::step]
        across = corners + np.roll(corners, -1, axis=1)
        height[:, half::step, half::step] = (across + np.roll(across, -1, axis=2)) / 4 + wobble(rows)
        centres = height[:, half::step, half::step]
        height[:, ::step, half::step] = _of_four(centres, corners, 1, 2) + wobble(rows)
        height[:, half::step, ::step] = _of_four(centres, corners, 2, 1) + wobble(rows)
        step, reach = half, reach / decay
    height -= height.min(axis=(1, 2), keepdims=True)
    found: Floats = (height / height.max(axis=(1, 2), keepdims=True)).astype(np.float32)
    return found


def _of_four(centres: NDArray[np.float64], corners: NDArray[np.float64], back: int, forth: int) -> NDArray[np.float64]:
    """Mean of the centres before and after, along one axis, and of the corners along the other."""
    return (centres + np.roll(centres, 1, axis=back) + corners + np.roll(corners, -1, axis=forth)) / 4


def snow(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Flakes, dragged down by the wind and once more upside down, before a whitened picture.

    constants: mean and deviation of the flakes, their size, the least that shows, radius and sigma of the drag in px, share of the picture
    that is not whitened.
    """
    mean, deviation, size, least, radius, sigma, share = constants
    side = pixels.shape[-1]
    noise = np.stack([generator.standard_normal((side, side), dtype=np.float32) for generator in generators])
    flakes = zoomed(noise * np.float32(deviation) + np.float32(mean), size)
    flakes = cut(np.where(flakes < least, np.float32(0), flakes) * 255)
    angles = [float(generator.uniform(-135, -45)) for generator in generators]
    falling = nearest(np.stack([smeared(layer, int(radius), sigma, angle) for layer, angle in zip(flakes, angles, strict=True)]))[:, None]
    grey = (pixels * _LUMA[:, None, None]).sum(axis=1, keepdims=True)
    white = np.maximum(pixels, grey * np.float32(1.5) + np.float32(127.5))
    found: Floats = np.float32(share) * pixels + np.float32(1 - share) * white + falling + falling[..., ::-1, ::-1]
    return found


def frost(pixels: Floats, generators: Generators, constants: Constants, overlays: Overlays) -> Floats:
    """A piece of a photo of frost over the picture. constants: weights of picture and frost."""
    weight, cover = constants
    side = pixels.shape[-1]
    pieces = []
    for generator in generators:
        photo = overlays.photos[int(generator.integers(len(overlays.photos)))]  # (3, h, w)
        top, left = (int(generator.integers(0, max(extent - side, 1))) for extent in photo.shape[1:])
        pieces.append(photo[:, top : top + side, left : left + side])
    return np.float32(weight) * pixels + np.float32(cover) * np.stack(pieces).astype(np.float32)
