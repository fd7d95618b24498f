"""What a file of weights is, by the names in it: for errors that tell what was given instead of a model."""

from __future__ import annotations

from collections.abc import Iterable

# Most telling first: an added weight bears the name of what it is added to, a whole model those of its parts.
MARKS = (
    ("lora", "added weights (LoRA), which need the model that they were made for"),
    ("model.diffusion_model.", "a Stable Diffusion or latent diffusion checkpoint; give its .safetensors file or its pipeline folder"),
    ("out.2.c_proj.", "a classifier of noisy images, not a denoiser; take the diffusion model that it guides"),
    ("transformer_blocks.", "the bare UNet of a latent diffusion model; give the whole pipeline folder"),
    ("decoder.up_blocks.", "an autoencoder alone; give the whole pipeline folder"),
    ("text_model.encoder.", "a text encoder alone; give the whole pipeline folder"),
    ("down_blocks.", "a diffusers network; give the folder with its config.json"),
    ("all_modules.", "a score_sde network, which is not supported"),
    ("map_layer0.", "an EDM network, which is not supported"),
    ("x_embedder.", "a diffusion transformer (DiT), which is not supported"),
    ("layer1.0.conv1.", "a ResNet classifier, not a denoiser"),
    ("resnet.embedder.", "a ResNet classifier, not a denoiser"),
    ("blocks.0.attn.qkv.", "a vision transformer, not a denoiser"),
    ("vit.encoder.", "a vision transformer, not a denoiser"),
)
WRAPPED = "module."


def looks_like(names: Iterable[str]) -> str | None:
    """What weights of these names belong to; None where nothing tells."""
    names = list(names)
    if names and all(name.startswith(WRAPPED) for name in names):
        return f"a network saved from a wrapper for several devices (every name begins with {WRAPPED}); save its .module.state_dict()"
    return next((what for mark, what in MARKS if any(mark in name for name in names)), None)


def unknown(names: Iterable[str]) -> str:
    """What is said where nothing tells."""
    return f"something unknown (first weight: {next(iter(names), 'none')})"
