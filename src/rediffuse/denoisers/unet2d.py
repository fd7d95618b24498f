"""Pixel models of diffusers: a UNet2DModel and the numbers of a DDPM or DDIM scheduler.

Reference: Ho et al., NeurIPS 2020, arXiv 2006.11239.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Condition, DenoiserSpec
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import prediction_of, schedule_of
from rediffuse.denoisers.stable_folder import Part, choose_weights, load_part, read_json, refuse_code, weight_files
from rediffuse.errors import ConfigError, ModelError

PART = Part(library="diffusers", classes=("UNet2DModel",), stem="diffusion_pytorch_model")
INDEX = "model_index.json"
SCHEDULER_FILES = ("scheduler/scheduler_config.json", "scheduler_config.json")
SETTINGS = ("unet/config.json", "config.json", *SCHEDULER_FILES)
# Whose tables are betas and whose times are indices into them. Others (VE, EDM, consistency, flow) call the network otherwise.
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


class UNet2DDenoiser(PixelDenoiser):
    """A diffusers UNet2DModel in pixel space.

    Made by `load`; build it by hand to wrap a network that is in memory, which is taken over as it is.

    Args:
        unet: UNet2DModel; one with `num_class_embeds` is conditional, on `Condition(labels=...)`.
        scheduler_config: entries of scheduler_config.json; empty means 1,000 linear steps and epsilon, as diffusers would.
        dtype: numbers of the trunk.
    Raises:
        ModelError: a network that is not told t, or classes, as whole numbers; a scheduler without betas.
    """

    def __init__(
        self, unet: Any, scheduler_config: Mapping[str, Any], *, dtype: torch.dtype = torch.float32, spec: DenoiserSpec | None = None
    ) -> None:
        _check(unet.config, scheduler_config)
        side = unet.config.sample_size
        super().__init__(
            unet,
            schedule_of(scheduler_config),
            head="conv_out",
            exact=_ends(unet),
            prediction=prediction_of(scheduler_config),
            channels=unet.config.in_channels,
            size=side if isinstance(side, int) else None,
            multiple_of=2 ** (len(unet.config.block_out_channels) - 1),
            dtype=dtype,
            spec=spec,
        )
        self.classes: int | None = unet.config.num_class_embeds
        self.conditional = self.classes is not None

    def call(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        labels = None
        if self.conditional:
            labels = None if condition is None else condition.labels
            if labels is None:
                raise ConfigError(f"this model draws classes: pass condition=Condition(labels=...), (B,) int64 below {self.classes}")
        output: Tensor = self.network(x_t, t, class_labels=labels, return_dict=False)[0]
        return output


def is_ours(files: Sequence[str]) -> bool:
    """Whether a repository of these files holds a lone UNet, in `unet/` or at its top."""
    return any(name.removeprefix("unet/").startswith(PART.stem) for name in files) and not any(
        name.startswith(("vae/", "vqvae/", "text_encoder/")) for name in files
    )


def needed_files(files: Sequence[str]) -> list[str]:
    """Which files of a repository make the model. Raises ModelError, before any download, if it has no safetensors."""
    top = "unet/" if "unet/config.json" in files else ""
    inside = [name.removeprefix(top) for name in files if name.startswith(top) and "/" not in name.removeprefix(top)]
    weights = choose_weights("its unet", inside, PART.stem)[1]
    return sorted({*(name for name in (INDEX, *SETTINGS) if name in files), *(top + name for name in weights)})


def all_weight_files(folder: Path) -> list[Path]:
    """Every weight file that `open_folder` reads, in a fixed order."""
    return weight_files(_places(folder)[0], PART.stem)[1]


def open_folder(folder: Path, *, dtype: torch.dtype = torch.float32, tokenizer: Path | None = None) -> UNet2DDenoiser:
    """A folder of a UNet2DModel: a DDPM or DDIM pipeline (parts in folders, or all in one), or the bare network.

    A bare network may have scheduler_config.json beside its config.json; without one it is read as diffusers would: 1,000 linear steps,
    epsilon.
    """
    if tokenizer is not None:
        raise ConfigError(f"{folder} is a pixel model and reads no words and no tokenizer; leave it out")
    place, scheduler = _places(folder)
    from diffusers import UNet2DModel

    config = {} if scheduler is None else _table(scheduler)
    return UNet2DDenoiser(load_part(UNet2DModel, place, PART), config, dtype=dtype)


def _places(folder: Path) -> tuple[Path, Path | None]:
    """Where the network and the scheduler's file lie. Raises ModelError for parts that are missing or bring code."""
    index = _table(folder / INDEX) if (folder / INDEX).is_file() else {}
    refuse_code(folder, index)
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler = next((folder / name for name in SCHEDULER_FILES if (folder / name).is_file()), None)
    if index and scheduler is None:
        raise ModelError(f"{folder} lacks its scheduler ({SCHEDULER_FILES[0]}), which says how much noise a step holds")
    kind = _table(place / "config.json").get("_class_name")
    if kind not in PART.classes:
        raise ModelError(f"{place} holds a {kind}; a pixel model is a {PART.classes[0]}")
    return place, scheduler


def _ends(unet: Any) -> list[str]:
    """The convolutions that the noise passes on its short way: the first, what lets it into the last level, and the last block there.

    In cifar10-32 they are 9 % of the operations; kept in float32 they take away two thirds of what a bfloat16 trunk gets wrong.
    """
    level = f"up_blocks.{len(unet.up_blocks) - 1}.resnets"
    resnets = dict(unet.get_submodule(level).named_children())
    names = ["conv_in", *(f"{level}.{place}.conv_shortcut" for place, block in resnets.items() if block.conv_shortcut is not None)]
    return [*names, *(f"{level}.{len(resnets) - 1}.{conv}" for conv in ("conv1", "conv2"))]


def _table(file: Path) -> Mapping[str, Any]:
    entries = read_json(file)
    if not isinstance(entries, dict):
        raise ModelError(f"{file} must hold names and values, got a {type(entries).__name__}; copy or download it again")
    return entries


def _check(config: Any, scheduler: Mapping[str, Any]) -> None:
    name = scheduler.get("_class_name")
    if name is not None and name not in SCHEDULERS:
        raise ModelError(f"the scheduler {name} is not supported for pixel models: {', '.join(SCHEDULERS)} are")
    if config.time_embedding_type == "fourier":
        raise ModelError("this UNet2DModel is told noise levels in place of steps (time_embedding_type fourier), which is not supported")
    if config.class_embed_type is not None:
        raise ModelError(f"this UNet2DModel is told classes by {config.class_embed_type!r}; only num_class_embeds is supported")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise ModelError(
            f"this UNet2DModel reads {config.in_channels} channels and puts out {config.out_channels}; a denoiser puts out as many as it "
            "reads, or twice that with a variance"
        )
    steps = config.num_train_timesteps
    if config.time_embedding_type == "learned" and (steps or 0) < int(scheduler.get("num_train_timesteps", 1000)):
        raise ModelError(f"this UNet2DModel knows {steps} steps, fewer than its scheduler: the two are of different models")
