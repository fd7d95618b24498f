"""OpenAI's pixel models: guided diffusion ("ADM") and improved diffusion, from the files that were published.

Reference: Dhariwal & Nichol, NeurIPS 2021, arXiv 2105.05233; Nichol & Dhariwal, ICML 2021, arXiv 2102.09672.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from rediffuse.denoisers.adm_file import architecture_of, fill, read_weights
from rediffuse.denoisers.adm_network import AdmNetwork, Architecture, Heads
from rediffuse.denoisers.base import Condition, DenoiserSpec, NoiseSchedule, Prediction
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import cosine_betas, linear_betas
from rediffuse.denoisers.stable_folder import read_json
from rediffuse.errors import ConfigError, ModelError

Curve = Literal["linear", "cosine"]
REFERENCE_STEPS = 1000  # the linear schedule's range of betas, and rescaled times, are stated for so many steps


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the shapes of a network's weights do not tell, under the names of the flags that it was trained with.

    image_size: side in pixels; noise_schedule: linear or cosine, in diffusion_steps steps; num_heads or num_head_channels, one of the two:
    how attention is cut; use_new_attention_order: order of its projection; rescale_timesteps: whether the network is told t * 1000 / steps.
    """

    image_size: int
    noise_schedule: Curve
    diffusion_steps: int
    use_new_attention_order: bool
    rescale_timesteps: bool
    num_heads: int | None = None
    num_head_channels: int | None = None

    def __post_init__(self) -> None:
        for name in ("image_size", "diffusion_steps", "num_heads", "num_head_channels"):
            value = getattr(self, name)
            if not (value is None and name.startswith("num")) and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        if (self.num_heads is None) == (self.num_head_channels is None):
            raise ConfigError(f"give num_heads or num_head_channels, one of the two; got {self.num_heads} and {self.num_head_channels}")
        if self.noise_schedule not in get_args(Curve):
            raise ConfigError(f"noise_schedule must be one of {', '.join(get_args(Curve))}, got {self.noise_schedule!r}")
        for name in ("use_new_attention_order", "rescale_timesteps"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")

    @property
    def heads(self) -> Heads:
        return Heads(number=self.num_heads, width=self.num_head_channels, new_order=self.use_new_attention_order)

    @property
    def schedule(self) -> NoiseSchedule:
        """Linear betas are scaled so that any number of steps ends in about the same noise. Reference: arXiv 2102.09672, section 3.2."""
        steps, scale = self.diffusion_steps, REFERENCE_STEPS / self.diffusion_steps
        return NoiseSchedule.from_betas(
            linear_betas(steps, scale * 1e-4, scale * 0.02) if self.noise_schedule == "linear" else cosine_betas(steps)
        )


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published checkpoint: its shapes, and what they do not tell."""

    architecture: Architecture
    settings: Settings


_ADM = Architecture(channels=256, multipliers=(1, 1, 2, 2, 4, 4), layers=2, attention=(3, 4, 5))
_LINEAR = Settings(
    image_size=256,
    noise_schedule="linear",
    diffusion_steps=1000,
    use_new_attention_order=False,
    rescale_timesteps=False,
    num_head_channels=64,
)
_IMPROVED = Architecture(channels=128, multipliers=(1, 2, 3, 4), layers=3, attention=(2, 3), residual_resampling=False)
_COSINE = Settings(
    image_size=64, noise_schedule="cosine", diffusion_steps=4000, use_new_attention_order=False, rescale_timesteps=True, num_heads=4
)
# By the name of the file. Those of lsun_bedroom, lsun_cat and lsun_horse are networks like 256x256_diffusion_uncond; those of the vlb
# models are like their namesakes without.
PUBLISHED: Mapping[str, Published] = {
    "256x256_diffusion_uncond": Published(architecture=_ADM, settings=_LINEAR),
    "256x256_diffusion": Published(architecture=replace(_ADM, classes=1000), settings=_LINEAR),
    "512x512_diffusion": Published(
        architecture=replace(_ADM, multipliers=(0.5, 1, 1, 2, 2, 4, 4), attention=(4, 5, 6), classes=1000),
        settings=replace(_LINEAR, image_size=512),
    ),
    "128x128_diffusion": Published(
        architecture=replace(_ADM, multipliers=(1, 1, 2, 3, 4), attention=(2, 3, 4), classes=1000),
        settings=replace(_LINEAR, image_size=128, num_heads=4, num_head_channels=None),
    ),
    "64x64_diffusion": Published(
        architecture=replace(_ADM, channels=192, multipliers=(1, 2, 3, 4), layers=3, attention=(1, 2, 3), classes=1000),
        settings=replace(_LINEAR, image_size=64, noise_schedule="cosine", use_new_attention_order=True),
    ),
    "cifar10_uncond_50M_500K": Published(
        architecture=replace(_IMPROVED, multipliers=(1, 2, 2, 2), attention=(1, 2)), settings=replace(_COSINE, image_size=32)
    ),
    "imagenet64_uncond_100M_1500K": Published(architecture=_IMPROVED, settings=_COSINE),
    "imagenet64_cond_270M_250K": Published(
        architecture=replace(_IMPROVED, channels=192, classes=1000), settings=replace(_COSINE, rescale_timesteps=False)
    ),
    "lsun_uncond_100M_1200K_bs128": Published(
        architecture=replace(_IMPROVED, multipliers=(1, 1, 2, 2, 4, 4), layers=2, attention=(4,), scale_shift=False),
        settings=replace(_LINEAR, num_heads=1, num_head_channels=None),
    ),
}


class AdmDenoiser(PixelDenoiser):
    """A network of guided diffusion or improved diffusion, frozen; a learned variance is dropped.

    Made by `load`. To let gradients reach the input of a large one in little memory: `denoiser.network.checkpointing = True`.

    Args:
        network: with its weights; taken over as it is.
        settings: what its shapes do not tell.
        prediction: what it puts out; every published one puts out epsilon.
        dtype: numbers of the trunk; the embedding of the time, the first convolution, the last block and x0_hat are float32.
    Attributes:
        classes: how many it draws, or None. With classes it needs a condition: Condition(labels=...), a number below `classes` a row.
    """

    def __init__(
        self,
        network: AdmNetwork,
        settings: Settings,
        *,
        prediction: Prediction = "epsilon",
        dtype: torch.dtype = torch.float32,
        spec: DenoiserSpec | None = None,
    ) -> None:
        plan = network.architecture
        super().__init__(
            network,
            settings.schedule,
            head="out.2",
            exact=_ends(network),
            prediction=prediction,
            size=settings.image_size,
            multiple_of=plan.multiple_of,
            dtype=dtype,
            spec=spec,
        )
        self.settings, self.classes = settings, plan.classes
        self.conditional = plan.classes is not None

    def call(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        time = t * (REFERENCE_STEPS / self.settings.diffusion_steps) if self.settings.rescale_timesteps else t
        output: Tensor = self.network(x_t, time, self._labels(x_t, condition))
        return output

    def _labels(self, x_t: Tensor, condition: Condition | None) -> Tensor | None:
        if self.classes is None:
            return None
        labels = None if condition is None else condition.labels
        if labels is None:
            raise ConfigError(f"this model draws {self.classes} classes: pass condition=Condition(labels=...), (B,) int64, one a sample")
        if labels.shape != x_t.shape[:1] or labels.dtype is not torch.int64:
            raise ConfigError(f"labels must be ({len(x_t)},) int64, one a sample, got {tuple(labels.shape)} {labels.dtype}")
        low, high = (int(value) for value in labels.aminmax()) if len(labels) else (0, 0)
        if low < 0 or high >= self.classes:
            raise ConfigError(f"labels must be from 0 to {self.classes - 1}, the classes of this model; got {low} to {high}")
        return labels.to(x_t.device)


def open_file(
    file: Path, *, dtype: torch.dtype = torch.float32, prediction: Prediction | None = None, settings: Settings | None = None
) -> AdmDenoiser:
    """A checkpoint as it was published (`.pt`), or the same weights as `.safetensors`.

    Args:
        prediction: what the network puts out; None is epsilon, as in every published one.
        settings: what the shapes do not tell; None reads NAME.json beside the file, else takes those of the published network of these
            shapes (PUBLISHED).
    Raises:
        ModelError: another architecture, a broken file, or shapes of no published network with nothing that says the rest.
    """
    weights = read_weights(file)
    architecture = architecture_of(file, weights)
    if architecture.outputs not in (3, 6):
        raise ModelError(f"{file.name} puts out {architecture.outputs} channels; it must be 3, or 6 with a learned variance")
    told = settings or _settings_beside(file) or _published_settings(file, architecture)
    return AdmDenoiser(fill(file, architecture, told.heads, weights), told, prediction=prediction or "epsilon", dtype=dtype)


def settings_files(file: Path) -> list[Path]:
    """What lies beside a checkpoint and decides what it draws: NAME.json, if it is there."""
    beside = file.with_suffix(".json")
    return [beside] if beside.is_file() else []


def _ends(network: AdmNetwork) -> list[str]:
    """The convolutions that the noise passes on its short way: the first, what lets it into the finest level, and the last block there.

    In the published networks they are 6 to 14 % of the operations.
    """
    last = len(network.output_blocks) - 1
    finest = range(last - network.architecture.layers, last + 1)
    skips = [f"output_blocks.{place}.0.skip_connection" for place in finest]
    return ["input_blocks.0.0", *skips, *(f"output_blocks.{last}.0.{conv}" for conv in ("in_layers.2", "out_layers.3"))]


def _settings_beside(file: Path) -> Settings | None:
    for beside in settings_files(file):
        told = read_json(beside)
        names = [field.name for field in fields(Settings)]
        if not isinstance(told, dict) or (unknown := sorted(told.keys() - set(names))):
            wrong = f"unknown entries {', '.join(unknown)}" if isinstance(told, dict) else f"a {type(told).__name__}"
            raise ModelError(f"{beside} must hold entries among {', '.join(names)} and nothing else, got {wrong}; shapes tell the rest")
        try:
            return Settings(**told)
        except (ConfigError, TypeError) as error:
            raise ModelError(f"{beside} does not say how {file.name} was trained: {error}") from error
    return None


def _published_settings(file: Path, architecture: Architecture) -> Settings:
    for published in PUBLISHED.values():
        if published.architecture == architecture:
            return published.settings
    raise ModelError(
        f"{file.name} has the shapes of no published network ({', '.join(PUBLISHED)}), and shapes do not tell how attention is cut nor the "
        f"schedule. Write the flags of its training into {file.stem}.json beside it: image_size, noise_schedule (linear or cosine), "
        "diffusion_steps, use_new_attention_order, rescale_timesteps, and num_heads or num_head_channels"
    )
