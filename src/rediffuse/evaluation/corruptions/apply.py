"""One door to all corruptions: pictures in, corrupted pictures out, the same for the same picture whatever stands beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.images import hash_pixels
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions import blur, digital, noise, spatter, weather
from rediffuse.evaluation.corruptions.constants import SMALLEST, Constants, constants
from rediffuse.evaluation.corruptions.frost import FrostSource, frost_overlays
from rediffuse.evaluation.corruptions.kernels import Floats
from rediffuse.evaluation.corruptions.levels import cut

_Corruption = Callable[[Floats, noise.Generators, Constants], Floats]
_FUNCTIONS: dict[str, _Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}
FIXED = frozenset({"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur", "saturate"})
"""Nothing is drawn for these."""
_CHUNK = 1 << 23
"""Values worked on at once: float64 copies of so many stay far below a gigabyte."""


def corrupt(
    images: Tensor,
    corruption: str,
    severity: int,
    *,
    keys: Sequence[str] | None = None,
    seed: int = 0,
    frost: FrostSource = "auto",
    whole: bool = True,
) -> Tensor:
    """Pictures under one of the corruptions of ImageNet-C, with the constants published for the size nearest to theirs.

    A corrupted picture is a function of its key, the corruption, the severity and the seed: neither order nor company changes a bit of it.
    Float pictures are first rounded to the 256 levels that the corruptions are defined on.

    Args:
        images: (B, 3, side, side), uint8 or float in [0, 1]; square, at least 32 px.
        corruption: one of `constants.ALL`.
        severity: 1 to 5.
        keys: one a picture, what its randomness comes from, such as an id; None takes a hash of its pixels.
        seed: another one draws all noise anew.
        frost: where its photos come from, see `frost.frost_overlays`.
        whole: cut the result to whole levels, as the published sets are; False leaves what is between them (float images only).
    Returns: the same shape, type and device, in [0, 1] or 0 to 255.
    Raises:
        ConfigError: an unknown corruption, a severity outside 1 to 5, another number of keys than pictures.
        DataError: another shape, type or range; pictures that are not square or too small.
    Reference: Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261, section 3 and appendix B.
    """
    levels = _levels(images)
    side = levels.shape[-1]
    chosen = constants(corruption, severity, side)
    if keys is not None and len(keys) != len(levels):
        raise ConfigError(f"one key a picture: {len(levels)} pictures, {len(keys)} keys")
    if not whole and not images.is_floating_point():
        raise ConfigError("what lies between levels needs float images; leave whole=True for uint8")
    function = partial(weather.frost, overlays=frost_overlays(side, frost)) if corruption == "frost" else _FUNCTIONS[corruption]
    out = np.empty(levels.shape, dtype=np.float32)
    step = max(1, _CHUNK // (3 * side * side))
    for start in range(0, len(levels), step):
        part = levels[start : start + step]
        own = pixel_keys(part) if keys is None and corruption not in FIXED else (keys or [""] * len(levels))[start : start + step]
        generators = () if corruption in FIXED else [generator_of(key, corruption, severity, seed) for key in own]
        found = function(part.astype(np.float32), generators, chosen)
        out[start : start + step] = cut(found) if whole else found.clip(0, 255)
    given = torch.from_numpy(out.astype(np.uint8)) if not images.is_floating_point() else torch.from_numpy(out).div_(255)
    return given.to(images.device, images.dtype)


def pixel_keys(levels: NDArray[np.uint8]) -> list[str]:
    """The digest of each picture (B, 3, side, side), the same that an ImageSet gives its images."""
    rows = np.ascontiguousarray(levels.transpose(0, 2, 3, 1))
    return [hash_pixels(row.shape[1], row.shape[0], row.tobytes()) for row in rows]


def generator_of(key: str, corruption: str, severity: int, seed: int) -> np.random.Generator:
    """What a picture's randomness comes from."""
    digest = hashlib.sha256(f"{seed}\n{corruption}\n{severity}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _levels(images: Tensor) -> NDArray[np.uint8]:
    """Checked pictures as uint8 (B, 3, side, side) on the processor."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise DataError(f"pictures to corrupt must be (B, 3, side, side), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height != width:
        raise DataError(f"pictures to corrupt must be square, got {width} x {height} px; crop or pad them, or give a size to fit them to")
    if height < SMALLEST:
        raise DataError(f"pictures of {height} px are too small to corrupt; {SMALLEST} px is the least, so scale them up or leave them out")
    found = images.detach().cpu()
    if found.dtype == torch.uint8:
        return found.numpy()
    if not found.is_floating_point():
        raise DataError(f"pictures to corrupt must be uint8 or float in [0, 1], got {found.dtype}")
    found = found.float()
    if len(found) and not (bool(found.isfinite().all()) and float(found.min()) >= -1e-3 and float(found.max()) <= 1 + 1e-3):
        raise DataError(f"float pictures must lie in [0, 1], got {float(found.min()):.3g} to {float(found.max()):.3g}; divide by 255")
    return found.clamp(0, 1).mul(255).add(0.5).floor().to(torch.uint8).numpy()
