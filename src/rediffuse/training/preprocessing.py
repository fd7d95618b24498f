"""What a network wants its pictures to be: a size and a normalisation, read from and written to `preprocessor_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.data.geometry import FIT_MODES
from rediffuse.errors import ModelError

FILE_NAME = "preprocessor_config.json"
SEEN, FIT = "rediffuse_seen_size", "rediffuse_fit"
"""Entries of that file beside transformers' own, which leaves them alone."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Size and normalisation of a network's input; every picture becomes the whole square, as the paper's classifiers see it.

    Args:
        height, width: in pixels.
        mean, std: of each channel, on [0, 1].
        seen: side in pixels that pictures had in the training before they became the input; None where that is not known.
        fit: how other shapes became squares in the training, as in `data.geometry.Fit`; None where that is not known.
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
            ModelError: the file cannot be read, or neither it nor the configuration names a size.
        """
        path = folder / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            height, width = _size(values.get("crop_size") if values.get("do_center_crop") else values.get("size"), config.get("image_size"))
            normalised = values.get("do_normalize", True)
            mean = values.get("image_mean", (0.5, 0.5, 0.5)) if normalised else (0.0, 0.0, 0.0)
            std = values.get("image_std", (0.5, 0.5, 0.5)) if normalised else (1.0, 1.0, 1.0)
            seen = values.get(SEEN)
            if seen is not None and (not isinstance(seen, int) or seen < 1):
                raise ValueError(f"{SEEN} is {seen!r}, no number of pixels")
            fit = values.get(FIT)
            if fit not in (None, *FIT_MODES):
                raise ValueError(f"{FIT} is {fit!r}, none of {', '.join(FIT_MODES)}")
            return cls(height=height, width=width, mean=_triple(mean), std=_triple(std), seen=seen, fit=fit)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ModelError(f"{path} cannot be used: {error}; it must give size, image_mean and image_std") from error


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The whole picture at another size, (B, 3, H, W) -> (B, 3, *size); at its own size it passes as it is."""
    if tuple(images.shape[-2:]) == size:
        return images
    smaller = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=smaller)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


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
