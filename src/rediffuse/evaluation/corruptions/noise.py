"""Noise of light and of the sensor. Pixels are (B, 3, side, side) float32 from 0 to 255; what is returned may leave that range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rediffuse.evaluation.corruptions.constants import Constants
from rediffuse.evaluation.corruptions.kernels import Floats

Generators = Sequence[np.random.Generator]
"""One a picture, so that its noise is its own whatever the batch."""


def gaussian_noise(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Adds noise of one standard deviation, as in low light."""
    (deviation,) = constants
    return pixels + _normal(pixels, generators) * np.float32(255 * deviation)


def speckle_noise(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Adds noise in proportion to the pixel."""
    (deviation,) = constants
    return pixels + pixels * _normal(pixels, generators) * np.float32(deviation)


def shot_noise(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Counts photons: Poisson with `constants[0]` of them in white."""
    (photons,) = constants
    counts = [
        generator.poisson(picture * (photons / 255)) for picture, generator in zip(pixels.astype(np.float64), generators, strict=True)
    ]
    return np.stack(counts).astype(np.float32) * np.float32(255 / photons)


def impulse_noise(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Sets a share of all values to white or black, evenly: salt and pepper in each channel of its own."""
    (share,) = constants
    drawn = np.stack([generator.random(picture.shape) for picture, generator in zip(pixels, generators, strict=True)])
    return np.where(drawn < share / 2, np.float32(255), np.where(drawn < share, np.float32(0), pixels))


def _normal(pixels: Floats, generators: Generators) -> Floats:
    drawn = [generator.standard_normal(picture.shape, dtype=np.float32) for picture, generator in zip(pixels, generators, strict=True)]
    return np.stack(drawn)
