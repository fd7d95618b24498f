"""Drops of water or mud on the lens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rediffuse.evaluation.corruptions.constants import Constants
from rediffuse.evaluation.corruptions.kernels import Floats, gaussian
from rediffuse.evaluation.corruptions.noise import Generators

_WATER, _MUD = (175, 238, 238), (63, 42, 20)
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
_FAR = 20
"""Pixels from a rim beyond which all distances count alike."""
_WEAK, _STRONG = 50, 150
"""Gradients (sum of both directions' sizes) between which a rim needs a stronger one beside it."""


def spatter(pixels: Floats, generators: Generators, constants: Constants) -> Floats:
    """Water adds light where drops end, mud covers.

    constants: mean and deviation of the liquid, its smoothness in px, the least that shows, strength of water or smoothness of mud, and
    1 for mud.
    """
    mean, deviation, smoothness, least, strength, mud = constants
    side = pixels.shape[-1]
    noise = np.stack([generator.standard_normal((side, side), dtype=np.float32) for generator in generators])
    liquid = gaussian(noise * np.float32(deviation) + np.float32(mean), smoothness)
    liquid = np.where(liquid < least, np.float32(0), liquid)
    if mud:
        cover = gaussian((liquid > least).astype(np.float32), strength)[:, None]
        cover = np.where(cover < 0.8, np.float32(0), cover)
        return pixels * (1 - cover) + cover * _colour(_MUD)
    light = np.stack([_water(np.floor(layer.clip(0, 1) * 255).astype(np.uint8)) for layer in liquid])[:, None]
    return pixels + np.float32(strength) * light * _colour(_WATER)


def _colour(rgb: tuple[int, int, int]) -> Floats:
    return np.array(rgb, dtype=np.float32)[:, None, None]


def _water(drops: NDArray[np.uint8]) -> Floats:
    """How much light drops (side, side) add: their rims embossed, 0 to 1; nothing where there is no drop."""
    from scipy import ndimage

    edges = rims(drops)
    distance = ndimage.distance_transform_edt(~edges) if edges.any() else np.full(drops.shape, float(_FAR))
    near = np.floor(ndimage.uniform_filter(np.minimum(distance, _FAR), 3, mode="mirror") + 1e-6).astype(np.uint8)
    relief = ndimage.correlate(equalised(near).astype(np.int64), _EMBOSS, mode="mirror").clip(0, 255)
    smooth = np.rint(ndimage.uniform_filter(relief.astype(np.float64), 3, mode="mirror"))
    light = drops * smooth
    return np.asarray(light / max(light.max(), 1), dtype=np.float32)


def equalised(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same order of levels, spread so that each share of pixels has the same range; a constant stays."""
    counts = np.bincount(levels.ravel(), minlength=256)
    first = int(np.flatnonzero(counts)[0])
    rest = levels.size - counts[first]
    if rest == 0:
        return levels
    table = np.rint((np.cumsum(counts) - counts[first]).clip(0) * (255 / rest))
    return np.asarray(table[levels], dtype=np.uint8)


def rims(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Edges as thin lines: largest gradients across their direction, kept where they are strong or hang on a strong one.

    Reference: Canny, A Computational Approach to Edge Detection, PAMI 1986, with Sobel gradients and no smoothing.
    """
    from scipy import ndimage

    picture = levels.astype(np.int64)
    down, right = (ndimage.sobel(picture, axis=axis, mode="nearest") for axis in (0, 1))
    size = np.abs(down) + np.abs(right)
    padded = np.pad(size, 1)
    side_y, side_x = size.shape

    def beside(y: int, x: int) -> NDArray[np.int64]:
        return padded[1 + y : 1 + y + side_y, 1 + x : 1 + x + side_x]

    flat = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    steep = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    falling = (down ^ right) >= 0  # both signs alike: the gradient points along the main diagonal
    thin = np.where(
        flat,
        (size > beside(0, -1)) & (size >= beside(0, 1)),
        np.where(
            steep,
            (size > beside(-1, 0)) & (size >= beside(1, 0)),
            np.where(falling, (size > beside(-1, -1)) & (size > beside(1, 1)), (size > beside(-1, 1)) & (size > beside(1, -1))),
        ),
    )
    weak = thin & (size > _WEAK)
    parts, _ = ndimage.label(weak, structure=np.ones((3, 3)))
    kept = np.unique(parts[weak & (size > _STRONG)])
    found: NDArray[np.bool_] = np.isin(parts, kept[kept > 0])
    return found
