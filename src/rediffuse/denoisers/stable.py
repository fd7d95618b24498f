"""Stable Diffusion 1.x and 2.x: a denoiser of latents that is told in words what to see.

Reference: Rombach et al., CVPR 2022, arXiv 2112.10752.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.denoisers.base import Condition, Denoiser, DenoiserSpec, Prediction, clean_from_output, training_target
from rediffuse.denoisers.precision import Float32Conv2d, attention_region, denoiser_region, lower_trunk
from rediffuse.denoisers.schedules import prediction_of, schedule_of
from rediffuse.denoisers.text import PLACEHOLDER, encode_prompts, plain_ids
from rediffuse.errors import ConfigError, ModelError

CHUNK_PIXELS = 2**19  # pixels that go through the autoencoder at once: two images of 512, 128 of 64


class StableDenoiser(Denoiser):
    """A UNet on latents, the autoencoder around it and the text encoder beside it; all frozen.

    Made by `load`; build it by hand from diffusers and transformers modules to wrap a pipeline that is already in memory: they are taken
    over as they are (frozen, in float32 but for the trunk), so that pipeline should not be used any more.

    Args:
        unet: UNet2DConditionModel.
        vae: AutoencoderKL.
        text_encoder: CLIPTextModel.
        tokenizer: CLIPTokenizer.
        scheduler_config: entries of scheduler_config.json; kept whole in the attribute of that name (`set_alpha_to_one` says where the
            solver that follows the published pipeline ends).
        dtype: numbers of the UNet's trunk; its last layer, x0_hat, the text encoder and the autoencoder are float32.
        known_words: words that the model is known to have learned; empty if nothing says so.
    Raises:
        ModelError: parts that do not fit each other, or a UNet that wants more than text (inpainting, XL).
    """

    conditional = True

    def __init__(
        self,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler_config: Mapping[str, Any],
        *,
        dtype: torch.dtype = torch.float32,
        known_words: Sequence[str] = (),
        spec: DenoiserSpec | None = None,
    ) -> None:
        super().__init__()
        _check_parts(unet, vae, text_encoder, tokenizer)
        self.unet, self.vae, self.text_encoder = unet.float(), vae.float(), text_encoder.float()
        self.tokenizer = tokenizer
        self.eval().requires_grad_(False)
        unet.conv_out = Float32Conv2d.like(unet.conv_out)
        self.dtype = dtype
        lower_trunk(self.unet, dtype)
        for network in (unet, vae):
            network.to(memory_format=torch.channels_last)
        self.scheduler_config: Mapping[str, Any] = dict(scheduler_config)
        self.schedule = schedule_of(scheduler_config)
        self.prediction: Prediction = prediction_of(scheduler_config)
        self.known_words = tuple(known_words)
        self.spec = spec
        self.channels = unet.config.in_channels
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.multiple_of = self.factor * 2 ** (len(unet.config.block_out_channels) - 1)
        side = unet.config.sample_size
        self.size = side * self.factor if isinstance(side, int) else None
        blocks = enumerate(unet.config.down_block_types)
        self._first_attention = next((level for level, kind in blocks if "Attn" in kind), len(unet.config.down_block_types) - 1)
        self.tokens = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)

    def network(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """What the UNet puts out, in its own parameterisation, float32. x_t: (B, C, H, W); t: (B,) int64."""
        if condition is None or condition.embedding is None:
            raise ConfigError("this model needs a condition: pass condition=denoiser.embed(prompts), one prompt a sample; '' for none")
        with denoiser_region(x_t.device, self.dtype), self._attention(x_t):
            output: Tensor = self.unet(x_t, t, encoder_hidden_states=condition.embedding).sample
        return output.float()

    def _attention(self, x_t: Tensor) -> AbstractContextManager[object]:
        if not torch.is_grad_enabled():
            return nullcontext()
        return attention_region(x_t.device, x_t.shape[2] * x_t.shape[3] // 4**self._first_attention)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x0_hat (B, C, H, W) in float32."""
        alpha, sigma = self.schedule.at(t, x_t)
        return clean_from_output(self.network(x_t, t, condition), x_t, alpha, sigma, self.prediction)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Mean squared error in the UNet's own parameterisation, (B,). Reference: arXiv 2112.10752, Eq. 3."""
        alpha, sigma = self.schedule.at(t, x0)
        output = self.network(alpha * x0 + sigma * noise, t, condition)
        return (output - training_target(x0, noise, alpha, sigma, self.prediction)).square().mean((1, 2, 3))

    def encode(self, images: Tensor, *, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to latents (B, C, H / factor, W / factor): the posterior's mean, or a draw from it.

        Sides must be multiples of `multiple_of`. generator: for `sample`, on the device of the model.
        """
        if images.ndim != 4 or images.shape[1] != 3 or any(side % self.factor for side in images.shape[2:]):
            raise ConfigError(f"images must be (B, 3, H, W) with sides that {self.factor} divides, got {tuple(images.shape)}")
        latents = []
        for chunk in _chunks(images, images.shape[2] * images.shape[3]):
            posterior = self.vae.encode(2 * chunk.float() - 1).latent_dist
            latents.append(posterior.sample(generator) if sample else posterior.mode())
        return (torch.cat(latents) - self._shift) * float(self.vae.config.scaling_factor)

    def decode(self, x: Tensor) -> Tensor:
        """Latents (B, C, h, w) to images (B, 3, h * factor, w * factor) in [0, 1]."""
        latents = x.float() / float(self.vae.config.scaling_factor) + self._shift
        chunks = _chunks(latents, x.shape[2] * x.shape[3] * self.factor**2)
        return ((torch.cat([self.vae.decode(chunk).sample for chunk in chunks]) + 1) / 2).clamp(0, 1)

    def embed(self, prompts: Sequence[str], words: Mapping[str, Tensor] | None = None) -> Condition:
        """Text states of these prompts, one row each; see `Denoiser.embed` for `words`."""
        if isinstance(prompts, str) or not prompts:
            raise ConfigError(f"prompts must be a list with at least one prompt, got {prompts!r}")
        return Condition(embedding=encode_prompts(self.text_encoder, self.tokenizer, prompts, words or {}, self.tokens))

    def word_vectors(self, text: str) -> Tensor:
        """Token embeddings (k, D) of a text, without the ends: the place where a learned word starts. A copy, float32."""
        ids = [] if PLACEHOLDER.search(text) else plain_ids(self.tokenizer, text)
        if not ids:
            raise ConfigError(f"a word to start from needs at least one token of the vocabulary, got {text!r}")
        table: nn.Embedding = self.text_encoder.get_input_embeddings()
        return table.weight[torch.tensor(ids, device=table.weight.device)].detach().clone().float()

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


def _chunks(x: Tensor, pixels: int) -> Iterator[Tensor]:
    yield from x.split(max(1, CHUNK_PIXELS // pixels))


def _check_parts(unet: Any, vae: Any, text_encoder: Any, tokenizer: Any) -> None:
    config = unet.config
    if config.in_channels != vae.config.latent_channels:
        raise ModelError(
            f"the unet reads {config.in_channels} channels and the vae makes {vae.config.latent_channels}: inpainting, depth and upscaling "
            "models are not supported; use the plain text-to-image model"
        )
    extras = {name: getattr(config, name, None) for name in ("class_embed_type", "addition_embed_type", "num_class_embeds")}
    if any(value is not None for value in extras.values()):
        raise ModelError(
            f"the unet wants more than text ({extras}): Stable Diffusion XL and class-conditional models are not supported here"
        )
    width, wanted = text_encoder.config.hidden_size, config.cross_attention_dim
    if any(width != dim for dim in (wanted if isinstance(wanted, list | tuple) else [wanted])):
        raise ModelError(f"the text encoder's states are {width} wide and the unet reads {wanted}: these parts are of different models")
    entries, size = len(tokenizer), text_encoder.config.vocab_size
    if entries > size:
        raise ModelError(f"the tokenizer has {entries} entries and the text encoder {size}: these parts are of different models")
    if not math.isfinite(float(vae.config.scaling_factor)) or vae.config.scaling_factor <= 0:
        raise ModelError(f"the vae's scaling_factor must be positive, got {vae.config.scaling_factor}")
