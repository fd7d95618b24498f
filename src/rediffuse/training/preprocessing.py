"""What a network wants its pictures to be: a size and a normalisation, read from and written to `preprocessor_config.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.data.geometry import parse_fit
from rediffuse.errors import ConfigError, ModelError

FILE_NAME = "preprocessor_config.json"
Triple = tuple[float, float, float]
SEEN, FIT = "rediffuse_seen_size", "rediffuse_fit"
"""Entries of that file beside transformers' own, which leaves them alone."""
WITH_CROP_PCT, WARPED = ("convnext", "resnet", "regnet"), 384
"""Networks whose processors scale the short side to size / crop_pct and take the centre, below that many pixels; above they squash."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Size and normalisation of a network's input; every picture becomes the whole square, as the paper's classifiers see it.

    Args:
        height, width: in pixels.
        mean, std: of each channel, on [0, 1].
        seen: side in pixels that pictures had in the training before they became the input; None where that is not known.
        fit: how other shapes became squares in the training, or do by the file of a published network, as in `data.geometry.Fit`; None
            where neither says it.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    seen: int | None = field(default=None, repr=False)  # what the training made, no part of what tells it from others
    fit: str | None = field(default=None, repr=False)

    @property
    def side(self) -> int:
        """At how many pixels a picture is to be held, so that the network is shown what it has learned from."""
        return max(self.size) if self.seen is None else self.seen

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def normalise(self, images: Tensor) -> Tensor:
        """(x - mean) / std. images: (B, 3, H, W) in [0, 1]."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images - mean) / std

    def __call__(self, images: Tensor) -> Tensor:
        """Resize and normalise. images: (B, 3, H, W) in [0, 1] -> (B, 3, height, width)."""
        return self.normalise(resize(images, self.size))

    def save(self, folder: Path) -> None:
        """Write it in the layout that `AutoImageProcessor` reads."""
        values = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.height, "width": self.width},
            "resample": 2,  # bilinear
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        values |= {name: value for name, value in {SEEN: self.seen, FIT: self.fit}.items() if value is not None}
        (folder / FILE_NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, Any]) -> Preprocessing:
        """Of a model folder; without the file, the size is the configuration's and values go to [-1, 1].

        Raises:
            ModelError: the file cannot be read, or neither it nor the configuration names a size; or it asks for other channels or another
                range than red, green and blue on [0, 1] before the normalisation.
        """
        path = folder / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            height, width = _size(values.get("crop_size") if values.get("do_center_crop") else values.get("size"), config.get("image_size"))
            kind = _kind(values, config) if values else ""
            _check_values(values, kind, path)
            mean, std = _normalisation(values, kind)
            seen = values.get(SEEN)
            if seen is not None and (not isinstance(seen, int) or seen < 1):
                raise ValueError(f"{SEEN} is {seen!r}, no number of pixels")
            fit = values.get(FIT)
            if fit is not None:
                parse_fit(fit)
            fit = fit or _published_fit(values, kind)
            return cls(height=height, width=width, mean=mean, std=std, seen=seen, fit=fit)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, ConfigError) as error:
            raise ModelError(f"{path} cannot be used: {error}; it must give size, image_mean and image_std") from error


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole picture at another size, (B, 3, H, W) -> (B, 3, *size); at its own size it passes as it is."""
    if tuple(images.shape[-2:]) == size:
        return images
    smaller = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=smaller)


def _kind(values: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Whose processor a file is of, in small letters; where it does not say so, transformers takes the network's own."""
    return str(values.get("image_processor_type") or values.get("feature_extractor_type") or config.get("model_type") or "").lower()


def _check_values(values: Mapping[str, Any], kind: str, path: Path) -> None:
    """Refuse what a mean and a deviation of each channel cannot say. Raises ModelError."""
    if values.get("do_flip_channel_order", kind.startswith("mobilevit")):
        raise ModelError(
            f"{path} asks for do_flip_channel_order (blue, green, red), and networks are given red, green, blue here; reverse the input "
            "channels of the first layer's weights and set do_flip_channel_order to false, or choose another network"
        )
    factor = values.get("rescale_factor")
    factor = 1 / 255 if factor is None else factor
    wrong = {
        "rescale_offset true": bool(values.get("rescale_offset")),
        "do_rescale false": not values.get("do_rescale", True),
        f"rescale_factor {factor}": not math.isclose(factor, 1 / 255, rel_tol=1e-4),
    }
    for entry, there in wrong.items():
        if there:
            raise ModelError(
                f"{path} asks for {entry}, and networks are given pictures in [0, 1] here; say the same by image_mean and image_std on "
                "[0, 1], with do_rescale true, rescale_factor 1/255 and no rescale_offset"
            )


def _normalisation(values: Mapping[str, Any], kind: str) -> tuple[Triple, Triple]:
    """(mean, std) on [0, 1], as the processor of this kind comes by them."""
    again = kind.startswith("efficientnet") and values.get("include_top", True)  # divides by std once more
    plain = kind.startswith("mobilevit") or not values.get("do_normalize", True)  # MobileViT's never normalises, whatever its file says
    std = (1.0, 1.0, 1.0) if plain and not again else _triple(values.get("image_std", (0.5, 0.5, 0.5)))
    if plain:
        return (0.0, 0.0, 0.0), std
    return _triple(values.get("image_mean", (0.5, 0.5, 0.5))), (std[0] ** 2, std[1] ** 2, std[2] ** 2) if again else std


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _published_fit(values: Mapping[str, Any], kind: str) -> str | None:
    """The crop of the centre that a processor's file asks for; None where it asks for none."""
    if "size" not in values:
        return None
    if kind.startswith(WITH_CROP_PCT):
        side, share = min(_size(values["size"], None)), float(values.get("crop_pct") or 0.875)
        return "squash" if side >= WARPED else crop_of(share)
    if not values.get("do_center_crop"):
        return None
    side, scaled = min(_size(values.get("crop_size"), None)), min(_size(values["size"], None))
    return crop_of(side / scaled)


def crop_of(share: float) -> str:
    """As in `data.geometry.Fit`, the word for a crop that keeps this share of the short side; all of it where it says more."""
    return f"crop:{share:.9g}" if share < 1 else "crop"


def _size(given: Any, fallback: Any) -> tuple[int, int]:
    """(height, width) of the forms that processors have had over the years."""
    for size in (given, fallback):
        if isinstance(size, int):
            return size, size
        if isinstance(size, list | tuple) and len(size) == 2:
            return int(size[0]), int(size[1])
        if isinstance(size, Mapping):
            if "height" in size:
                return int(size["height"]), int(size["width"])
            if "shortest_edge" in size:
                return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise ValueError("no size of the input is given")
