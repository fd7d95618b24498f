"""Any picture file to plain RGB, RGB to tensors and back."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from rediffuse.errors import DataError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

EXTENSIONS: tuple[str, ...] = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".mpo",
)  # fmt: skip
"""File name endings (any case) that are taken for pictures."""

FOREIGN_EXTENSIONS: tuple[str, ...] = (
    ".heic", ".heif", ".svg", ".psd", ".eps", ".pdf", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".exr", ".hdr",
    ".jxl", ".dcm",
)  # fmt: skip
"""Pictures, but not of a kind that is read: they are rejected by name instead of passed over in silence."""

MAX_PIXELS = 89_478_485
"""Above it (a quarter of a GiB of RGB) a file counts as a decompression bomb."""

# A closed list: Pillow would hand an .eps to Ghostscript, and every further decoder is one more way in.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
# What Pillow's decoders let through on damaged files, beside OSError.
_BROKEN = (
    ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
_BOMB = f"more than {MAX_PIXELS / 1e6:.0f} megapixels, taken for a decompression bomb; scale it down if it is none"


def read_image(source: str | Path | bytes) -> Image.Image:
    """Read one picture as upright 8-bit RGB.

    EXIF orientation is applied, transparency goes over white; grey, palette, CMYK and 16-bit pictures are converted (16-bit is
    scaled, not clipped).

    Args:
        source: a file, or the bytes of one.
    Raises:
        DataError: unreadable, truncated, empty, animated, or more than `MAX_PIXELS` pixels.
    """
    try:
        return decode_image(source)
    except DataError as error:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
        raise DataError(f"{name}: {error}") from error


def decode_image(source: str | Path | bytes) -> Image.Image:
    """As `read_image`; the error holds the reason alone, for a line in a rejected list."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    try:
        with _opened(source) as handle:
            if not handle.read(1):
                raise DataError("empty file (0 bytes)")
            handle.seek(0)
            with Image.open(handle, formats=formats) as image:
                _check_size(image)
                _check_frames(image)
                image.load()
                return to_rgb(image)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("not a picture in a format that is read; save it as PNG or JPEG") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_BOMB) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise DataError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright 8-bit RGB copy of a Pillow image of any mode, without metadata; DataError for pixels that have no known white."""
    from PIL import ImageOps

    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode in ("I", "F") and not deep:
        raise DataError(f"{image.mode}-mode pixels (32-bit) have no known white; save it with 8 or 16 bits a channel")
    upright = ImageOps.exif_transpose(image)  # a copy
    rgb = _sixteen_to_eight(upright) if deep else _over_white(upright) if upright.has_transparency_data else upright.convert("RGB")
    rgb.info = {}  # else a file saved from it would carry the colour profile and orientation of other pixels
    return rgb


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    """Scaled by 1 / 257; Pillow's own conversion clips at 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode[:-1] + "A")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def pixels_sha256(image: Image.Image) -> str:
    """Hex sha256 of width and height (unsigned 32-bit, little endian) and the RGB bytes in rows."""
    return hash_pixels(image.width, image.height, image.tobytes())


def hash_pixels(width: int, height: int, pixels: bytes) -> str:
    """As `pixels_sha256`, of bytes already taken out."""
    return hashlib.sha256(struct.pack("<II", width, height) + pixels).hexdigest()


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB Pillow image as float32 (3, H, W) in [0, 1]; `to_pil` gives the same bytes back."""
    import numpy as np
    import torch

    pixels = np.array(image if image.mode == "RGB" else to_rgb(image), dtype=np.uint8)  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255).contiguous()


def to_pil(image: Tensor) -> Image.Image:
    """A float (3, H, W) tensor as an 8-bit RGB image: clamped to [0, 1] and rounded. Raises DataError on another shape or NaN."""
    from PIL import Image

    if image.ndim != 3 or image.shape[0] != 3 or not image.dtype.is_floating_point:
        raise DataError(f"to_pil takes a float (3, H, W) image, got {image.dtype} {tuple(image.shape)}")
    if bool(image.isnan().any()):
        raise DataError("an image holds NaN; the model that made it overflowed, try --dtype float32")
    pixels = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels)


def _opened(source: str | Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return open(source, "rb")  # a Path would leave its parts behind, interned


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels: {_BOMB}")


def _check_frames(image: Image.Image) -> None:
    if image.format == "MPO":  # a phone's photo with a depth map or preview behind it; the first frame is the photo
        return
    frames = cast(int, getattr(image, "n_frames", 1))
    if frames > 1:
        kind = "pages" if image.format == "TIFF" else "frames (animated)"
        raise DataError(f"has {frames} {kind}; save the one that is meant as a PNG or JPEG")
    image.seek(0)
