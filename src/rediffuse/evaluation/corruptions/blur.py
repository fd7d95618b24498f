"""Blurs of lens, glass, motion and zoom. Pixels are (B, 3, side, side) float32 from 0 to 255; what is returned may leave that range."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.corruptions.constants import Constants
from rediffuse.evaluation.corruptions.kernels import Floats, correlate, disk, gaussian, smeared, zoomed
from rediffuse.evaluation.corruptions.levels import cut, nearest
from rediffuse.evaluation.corruptions.noise import Generators


def defocus_blur(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """A lens out of focus. constants: radius and softness of the disk in px."""
    radius, softness = constants
    return correlate(pixels, disk(radius, softness))


def gaussian_blur(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """A Gaussian of `constants[0]` px."""
    return gaussian(pixels, constants[0])


def glass_blur(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Frosted glass: a blur, pixels moved to neighbours, the blur again. constants: sigma in px, largest move in px, rounds.

    The published sets do not exchange two pixels, as the paper has it, but copy the one over the other: the second half of the exchange
    reads what the first has written. That is kept, because accuracies are compared with theirs.
    """
    sigma, reach, rounds = constants[0], int(constants[1]), int(constants[2])
    side = pixels.shape[-1]
    blurred = cut(gaussian(pixels, sigma)).reshape(*pixels.shape[:2], side * side)
    targets = _glass_order(side, reach)
    moved = np.empty_like(blurred)
    for row, generator in enumerate(generators):
        steps = generator.integers(-reach, reach, size=(rounds, len(targets), 2))
        sources = targets + steps[..., 0] + steps[..., 1] * side
        came_from = list(range(side * side))
        for pairs in sources.tolist():
            for target, source in zip(targets.tolist(), pairs, strict=True):
                came_from[target] = came_from[source]
        moved[row] = blurred[row][:, came_from]
    return gaussian(moved.reshape(pixels.shape), sigma)


@cache
def _glass_order(side: int, reach: int) -> NDArray[np.int64]:
    """Flat places in the order in which they are moved: from the last row up, in a row from the right."""
    line = np.arange(side - reach, reach, -1)
    return (line[:, None] * side + line).reshape(-1)


def motion_blur(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """A camera that moves, at an angle of -45 to 45 degrees. constants: radius and sigma in px."""
    radius, sigma = constants
    angles = [float(generator.uniform(-45, 45)) for generator in generators]
    return nearest(np.stack([smeared(picture, int(radius), sigma, angle) for picture, angle in zip(pixels, angles, strict=True)]))


def zoom_blur(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """A camera that moves towards the scene: the mean of the picture and its enlargements. constants: step and number of factors."""
    step, count = constants[0], int(constants[1])
    step = (1 + step) - 1  # as a running range counts: the last bits decide how many pixels some crops have
    total = pixels.copy()
    for place in range(count):
        total += zoomed(pixels, 1 + place * step)
    return total / np.float32(count + 1)
