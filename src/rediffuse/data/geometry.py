"""Fitting pictures of any shape to a model's square, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.data.images import to_pil, to_rgb, to_tensor
from rediffuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

FIT_MODES = ("pad", "crop", "squash")
Kept = Literal["preserved", "unknown"]
"""Whether masks and boxes of a source, scaled to an image's width and height, still fit what was made of it."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a source image lies in the model's square: all in pixels.

    Attributes:
        mode: pad, crop or squash.
        size: side of the square.
        source_width, source_height: the image before.
        left, top, width, height: the part of the square that shows the image; the rest is padding.
        geometry: `preserved` where masks and boxes of the source still fit the undone image, `unknown` after a crop.
    """

    mode: str
    size: int
    source_width: int
    source_height: int
    left: int
    top: int
    width: int
    height: int

    @property
    def geometry(self) -> Kept:
        return kept_by(self.mode)

    def to_row(self) -> dict[str, int | str]:
        """Plain values for a table."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Geometry:
        """Back from a table; further columns are ignored."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How images become a model's square.

    Args:
        mode: `pad` keeps the whole image and its aspect and fills the rest by reflection (the default: it can be undone); `crop`
            takes the centre; `squash` ignores the aspect, as the paper does.
        size: side of the square in pixels.
        multiple_of: what the model needs sides to be a multiple of.
        short_side: what the short side is scaled to before a crop takes the centre, at least size; None takes size. Published figures of
            ImageNet at 224 pixels have 256, which cuts an eighth off that side too.
    """

    mode: Literal["pad", "crop", "squash"] = "pad"
    size: int
    multiple_of: int = 1
    short_side: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in FIT_MODES:
            raise ConfigError(f"fit must be one of {', '.join(FIT_MODES)}, got {self.mode!r}")
        for name, value in (("size", self.size), ("multiple_of", self.multiple_of)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.size % self.multiple_of:
            below = self.size // self.multiple_of * self.multiple_of
            near = ", ".join(str(size) for size in (below, below + self.multiple_of) if size)
            raise ConfigError(f"size must be a multiple of {self.multiple_of} for this model, got {self.size}; nearest: {near}")
        if self.short_side is not None and (self.mode != "crop" or self.short_side < self.size):
            told = f"got {self.short_side} with fit {self.mode!r} and size {self.size}; leave it out, or crop"
            raise ConfigError(f"short_side is for fit 'crop' and at least size, {told}")

    def to_model(self, image: Image.Image) -> tuple[Tensor, Geometry]:
        """The image as float32 (3, size, size) in [0, 1], and where it lies there; an image of that size passes through bit by bit, but
        for a short side that is to be longer."""
        rgb = to_rgb(image)
        source_width, source_height = rgb.size
        width, height = self._scaled(source_width, source_height)
        left, top = self._before(width), self._before(height)
        place = {"left": left, "top": top, "width": width, "height": height}
        scaled = _resize(rgb, width, height)
        if self.mode == "pad":
            scaled = _reflect(scaled, left, top, self.size)
        elif self.mode == "crop":
            scaled = scaled.crop((-left, -top, self.size - left, self.size - top))
            place = {"left": 0, "top": 0, "width": self.size, "height": self.size}
        geometry = Geometry(mode=self.mode, size=self.size, source_width=source_width, source_height=source_height, **place)
        return to_tensor(scaled), geometry

    def undo(self, image: Tensor, geometry: Geometry, size: Literal["source", "model"] = "source") -> Image.Image:
        """A picture of the model's square as the source was: padding taken off, and at the source's size or the model's.

        A crop cannot be undone: it stays the square that it is, whatever the size asked for.
        """
        if size not in ("source", "model"):
            raise ConfigError(f"size must be source or model, got {size!r}")
        if tuple(image.shape) != (3, geometry.size, geometry.size):
            raise DataError(f"the image must be (3, {geometry.size}, {geometry.size}) as its geometry says, got {tuple(image.shape)}")
        square = to_pil(image)
        if geometry.mode == "crop":
            return square
        right, bottom = geometry.left + geometry.width, geometry.top + geometry.height
        inner = square.crop((geometry.left, geometry.top, right, bottom))
        return inner if size == "model" else _resize(inner, geometry.source_width, geometry.source_height)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        if self.mode == "squash":
            return self.size, self.size
        side = max(width, height) if self.mode == "pad" else min(width, height)
        if self.short_side is not None:  # cut to whole pixels, as torchvision does
            return width * self.short_side // side, height * self.short_side // side
        return max(1, round(width * self.size / side)), max(1, round(height * self.size / side))

    def _before(self, side: int) -> int:
        """Pixels before a scaled side; fewer than none of a crop."""
        return (self.size - side) // 2 if self.short_side is None else round((self.size - side) / 2)  # as torchvision rounds


def kept_by(mode: str) -> Kept:
    """What becomes of masks and boxes where images are fitted so and undone; a crop cuts off what no one notes."""
    return "unknown" if mode == "crop" else "preserved"


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    from PIL import Image

    if image.size == (width, height):
        return image
    smaller = width <= image.width and height <= image.height
    return image.resize((width, height), Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC)


def _reflect(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    import numpy as np
    from PIL import Image

    if image.size == (size, size):
        return image
    pixels = np.asarray(image)  # (H, W, 3)
    sides = ((top, size - top - image.height), (left, size - left - image.width), (0, 0))
    return Image.fromarray(np.pad(pixels, sides, mode="reflect"))
