"""Photos of frost: those of the `corruptions` extra where it is installed, else a drawing of our own that compares with nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.constants import published_size

FrostSource = Literal["auto", "photos", "drawn"]
_PHOTOS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
# A sixth lies beside them; the published sets never drew it.
_SCALES = {32: 0.2, 64: 0.3, 224: 1.0}
_DRAWN_SIZE = (360, 540)
_DRAWN_COLOURS = ((70, 120, 140), (235, 240, 248))


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlays:
    """Frost at the scale of the pictures.

    Attributes:
        photos: (3, h, w) uint8 each, no side below that of the pictures.
        source: "photos" of the extra, or "drawn".
        digest: of their pixels.
    """

    photos: tuple[NDArray[np.uint8], ...]
    source: str
    digest: str

    @property
    def comparable(self) -> bool:
        """Whether figures may stand beside published ones."""
        return self.source == "photos"


@cache
def frost_overlays(side: int, source: FrostSource = "auto") -> Overlays:
    """Frost for pictures of this side.

    Args:
        side: in px.
        source: "photos" of the package imagecorruptions (extra `corruptions`), "drawn" by us, or "auto": photos where they are installed.
    Raises:
        ConfigError: photos are asked for and not installed.
    """
    if source not in ("auto", "photos", "drawn"):
        raise ConfigError(f"frost must be auto, photos or drawn, got {source!r}")
    folder = photo_folder()
    if source == "photos" and folder is None:
        raise ConfigError("photos of frost come with the extra: pip install '.[corruptions]'; or take frost='drawn', not comparable")
    if folder is None or source == "drawn":
        originals, source = [_draw(seed) for seed in range(len(_PHOTOS))], "drawn"
    else:
        originals, source = [_read(folder / name) for name in _PHOTOS], "photos"
    photos = tuple(_scaled(photo, _SCALES[published_size(side)], side) for photo in originals)
    return Overlays(photos=photos, source=source, digest=_digest(photos))


def photo_folder() -> Path | None:
    """Where the extra keeps the photos, or None. The package itself is not imported: that would load OpenCV and compile for seconds."""
    found = find_spec("imagecorruptions")
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        folder = Path(place) / "frost"
        if all((folder / name).is_file() for name in _PHOTOS):
            return folder
    return None


def _read(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _scaled(photo: NDArray[np.uint8], scale: float, side: int) -> NDArray[np.uint8]:
    """Bilinear between pixel centres and without smoothing, as the published sets scale; more where the picture would not fit in."""
    shape = photo.shape[1:]
    scale = max(scale, *((side + 1) / extent for extent in shape))
    if scale == 1:
        return photo
    found = photo.astype(np.float32)
    for axis, extent in zip((1, 2), shape, strict=True):
        at = ((np.arange(round(extent * scale)) + 0.5) / scale - 0.5).clip(0, extent - 1)
        low = at.astype(np.int64)
        share = (at - low).astype(np.float32)
        first, second = found.take(low, axis), found.take(np.minimum(low + 1, extent - 1), axis)
        found = first + (second - first) * (share[:, None] if axis == 1 else share)
    return np.asarray(np.floor(found + np.float32(0.5)), dtype=np.uint8)


def _draw(seed: int) -> NDArray[np.uint8]:
    """Veins of ice: the crests of noise of many scales, sharpest where it is cold, between two colours."""
    from scipy import ndimage

    generator = np.random.default_rng([20190, seed])
    crests, total = np.zeros(_DRAWN_SIZE), 0.0
    for octave in range(5):
        sigma, weight = 24 / 2**octave, 0.6**octave
        field = ndimage.gaussian_filter(generator.standard_normal(_DRAWN_SIZE), (sigma, sigma * generator.uniform(0.4, 2.5)), mode="wrap")
        crests += weight * (1 - np.minimum(np.abs(field) / (1.5 * field.std()), 1))
        total += weight
    ice = (crests / total - 0.2).clip(0, 0.6) / 0.6
    dark, light = (np.array(colour, dtype=np.float64)[:, None, None] for colour in _DRAWN_COLOURS)
    return np.asarray((dark + (light - dark) * ice).round(), dtype=np.uint8)


def _digest(photos: Sequence[NDArray[np.uint8]]) -> str:
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(repr(photo.shape).encode() + photo.tobytes())
    return digest.hexdigest()
