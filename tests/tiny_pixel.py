"""UNet2DModel folders of a few hundred kilobytes with random weights: pixel denoisers for the tests of every room."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from tests.tiny import write_json

PixelLayout = Literal["pipeline", "flat", "bare", "bare with scheduler"]
"""pipeline: model_index.json, unet/, scheduler/. flat: the same in one folder, as the first repositories are. bare: the network alone."""


def tiny_unet(seed: int = 0, **changes: Any) -> Any:
    """A UNet2DModel of two levels for pixels of 16."""
    from diffusers import UNet2DModel

    config: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "norm_num_groups": 8,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(**{**config, **changes})


def tiny_pixel(
    path: str | Path, *, layout: PixelLayout = "pipeline", scheduler: dict[str, Any] | None = None, seed: int = 0, **changes: Any
) -> Path:
    """Write such a folder and return its path. scheduler: entries of scheduler_config.json; changes: of the network's configuration."""
    path = Path(path)
    split = layout == "pipeline"
    tiny_unet(seed, **changes).save_pretrained(path / "unet" if split else path, safe_serialization=True)
    if layout != "bare":
        entries = {"_class_name": "DDPMScheduler", "_diffusers_version": "0.39.0", "clip_sample": True, **(scheduler or {})}
        write_json((path / "scheduler" if split else path) / "scheduler_config.json", entries)
    if layout in ("pipeline", "flat"):
        index = {"_class_name": "DDPMPipeline", "_diffusers_version": "0.39.0"}
        write_json(path / "model_index.json", {**index, "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]})
    return path
