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
LEAST_SHARE = 0.1
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
            takes the centre; `squash` ignores the aspect, as the paper does. `crop:0.875` takes that share of the short side, from .1 to
            1: published figures of ImageNet at 224 pixels scale it to 256 first (others name the share crop_pct).
        size: side of the square in pixels.
        multiple_of: what the model needs sides to be a multiple of.
    Raises:
        ConfigError: another mode, a share outside its range, or a size that is no multiple.
    """

    mode: str = "pad"
    size: int
    multiple_of: int = 1

    def __post_init__(self) -> None:
        parse_fit(self.mode)
        for name, value in (("size", self.size), ("multiple_of", self.multiple_of)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if self.size % self.multiple_of:
            below = self.size // self.multiple_of * self.multiple_of
            near = ", ".join(str(size) for size in (below, below + self.multiple_of) if size)
            raise ConfigError(f"size must be a multiple of {self.multiple_of} for this model, got {self.size}; nearest: {near}")

    @property
    def kind(self) -> str:
        """pad, crop or squash."""
        return parse_fit(self.mode)[0]

    @property
    def short_side(self) -> int:
        """What the short side is scaled to before a crop takes the centre, in whole pixels."""
        share = parse_fit(self.mode)[1]
        return self.size if share == 1 else int(self.size / share + 1e-5)  # a share in nine digits is a little off

    def to_model(self, image: Image.Image) -> tuple[Tensor, Geometry]:
        """The image as float32 (3, size, size) in [0, 1], and where it lies there; an image of that size passes through bit by bit, but
        for a crop that takes a share of it."""
        rgb = to_rgb(image)
        source_width, source_height = rgb.size
        scaled, left, top = self._scale(rgb)
        place = {"left": left, "top": top, "width": scaled.width, "height": scaled.height}
        if self.kind == "pad":
            scaled = _reflect(scaled, left, top, self.size)
        elif self.kind == "crop":
            scaled = scaled.crop((-left, -top, self.size - left, self.size - top))
            place = {"left": 0, "top": 0, "width": self.size, "height": self.size}
        geometry = Geometry(mode=self.kind, size=self.size, source_width=source_width, source_height=source_height, **place)
        return to_tensor(scaled), geometry

    def with_margin(self, image: Image.Image) -> Tensor:
        """(3, S, S) float32 in [0, 1] with S the `short_side`: what lies around a crop, at its scale; its middle is `to_model`'s square."""
        scaled, left, top = self._scale(to_rgb(image))
        margin = round((self.short_side - self.size) / 2)
        left, top = -left - margin, -top - margin
        return to_tensor(scaled.crop((left, top, left + self.short_side, top + self.short_side)))

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

    def _scale(self, rgb: Image.Image) -> tuple[Image.Image, int, int]:
        """The image at the square's scale, and the pixels before it on the left and above; fewer than none of a crop."""
        width, height = self._scaled(*rgb.size)
        return _resize(rgb, width, height), self._before(width), self._before(height)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        if self.kind == "squash":
            return self.size, self.size
        side = max(width, height) if self.kind == "pad" else min(width, height)
        if self.short_side != self.size:  # cut to whole pixels, as torchvision does
            return width * self.short_side // side, height * self.short_side // side
        return max(1, round(width * self.size / side)), max(1, round(height * self.size / side))

    def _before(self, side: int) -> int:
        """Pixels before a scaled side; fewer than none of a crop."""
        return (self.size - side) // 2 if self.short_side == self.size else round((self.size - side) / 2)  # as torchvision rounds


def parse_fit(mode: str) -> tuple[str, float]:
    """(pad, crop or squash; share of the short side that a crop keeps). Raises ConfigError."""
    kind, colon, told = mode.partition(":")
    try:
        share = float(told) if colon else 1.0
    except ValueError:
        share = 0.0
    if kind not in FIT_MODES or (colon and kind != "crop") or not LEAST_SHARE <= share <= 1:
        raise ConfigError(
            f"fit must be one of {', '.join(FIT_MODES)}, or crop:SHARE with the share of the short side that is kept, from {LEAST_SHARE} "
            f"to 1, such as crop:0.875; got {mode!r}"
        )
    return kind, share


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
