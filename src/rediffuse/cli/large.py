"""Photos that the bundled model is too small for: said before any work, with the two ways to go on and what each costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.cli.common import MODEL, Common
from rediffuse.data.peek import peek_photos
from rediffuse.errors import ConfigError
from rediffuse.progress import roughly

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

LARGEST = 96
"""Side in pixels up to which photos go through the bundled model of 64 pixels without being asked about."""

# Stable Diffusion 1.5 at 512 pixels, counted by torch.utils.flop_counter: one call of the UNet, encoding, decoding.
UNET_FLOP, ENCODE_FLOP, DECODE_FLOP = 0.80e12, 1.12e12, 2.51e12
DOWNLOAD_GB = 4.3
"""unet 3.4, vae 0.3 and text_encoder 0.5 in float32 safetensors."""
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SHARE_OF_PEAK = 0.5
"""Of the speed of one large matrix product that a network of convolutions reaches, about."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a command would ask of a model: images made, denoiser calls an image (guidance doubled), samples of learning."""

    images: int = 0
    calls: float = 0.0
    samples: int = 0

    @property
    def flop(self) -> float:
        """Of Stable Diffusion; a sample of learning costs a forward and a backward pass without gradients of weights, about three calls."""
        return self.images * (self.calls * UNET_FLOP + DECODE_FLOP) + self.samples * 3 * UNET_FLOP


Price = Callable[[int, int], Work]
"""(photos, classes) to what a command would do with them."""


def guard(photos: str, model: str | None, price: Price, common: Common) -> None:
    """Before anything is opened: raise ConfigError if a folder's photos are too large for the bundled model and no model was named."""
    if model is None:
        found = peek_photos(photos)
        check_small([size for _, size in found], len({name for name, _ in found}), price, common.device)


def guard_opened(images: ImageSet, model: str | None, price: Price, common: Common) -> None:
    """The same for photos that are open: those of tables and of the hub."""
    if model is None:
        check_small(images.sizes, len(images.classes), price, common.device)


def check_small(sizes: Sequence[tuple[int, int]], classes: int, price: Price, device: str) -> None:
    """Raise ConfigError with sizes found, the two ways to go on, and what they cost, if a photo is larger than `LARGEST`."""
    large = [size for size in sizes if max(size) > LARGEST]
    if not large:
        return
    work = price(len(sizes), classes)
    seconds = work.flop / (speed(device) * SHARE_OF_PEAK)
    what = " and ".join(["the words"] * bool(work.samples) + [f"the {work.images:,} images"] * bool(work.images))
    raise ConfigError(
        f"{_counted(len(large), len(sizes))} larger than {LARGEST} pixels ({_range(large)}), and the bundled model sees 64 x 64. "
        "Nothing was done yet.\n"
        f"  For a trial at 64 pixels, add   --model {MODEL}\n"
        f"  For full detail, add            --model {STABLE_DIFFUSION}\n"
        f"The second (or the folder of any Stable Diffusion) is {DOWNLOAD_GB} GB to download once, and then takes about "
        f"{roughly(seconds)} here for {what}."
    )


def speed(device: str) -> float:
    """Floating-point operations a second of a large matrix product here, in the number format that a network would run in."""
    import torch

    from rediffuse.denoisers.precision import resolve_device, resolve_dtype

    where = resolve_device(device)
    side = 1024 if where.type == "cpu" else 4096
    matrix = torch.ones(side, side, device=where, dtype=resolve_dtype("auto", where))
    best = float("inf")
    for _ in range(4):  # the first makes ready
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - began)
    return float(2 * side**3 / best)


def _counted(large: int, of: int) -> str:
    if large == of:
        return "The photo is" if of == 1 else f"All {of:,} photos are"
    return f"{large:,} of {of:,} photos are" if large > 1 else f"1 of {of:,} photos is"


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    small, big = (f"{width}x{height}" for width, height in (by_area[0], by_area[-1]))
    return small if small == big else f"{small} to {big}"
