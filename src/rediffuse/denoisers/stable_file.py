"""Stable Diffusion 1.x and 2.x as one `.safetensors` file in the layout of the original code.

Such a file holds weights alone: the shapes tell the architecture, diffusers' public converters rename the weights of UNet and autoencoder,
and the text encoder is renamed here. What the shapes do not tell (what a 2.x network predicts) is looked up beside them or asked for.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.base import Prediction
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.denoisers.stable_folder import open_tokenizer
from rediffuse.denoisers.weight_names import looks_like, unknown
from rediffuse.errors import ModelError
from rediffuse.quiet import quiet

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
TOKENIZER = "openai/clip-vit-large-patch14"
# What the configuration files of the original releases say and the weights do not.
SCHEDULER: Mapping[str, Any] = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
SCALING_FACTOR = 0.18215
PREDICTIONS: Mapping[str, Prediction] = {"v": "v_prediction", "eps": "epsilon", "epsilon": "epsilon", "v_prediction": "v_prediction"}
OPEN_CLIP_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def open_file(
    file: Path, *, dtype: torch.dtype = torch.float32, tokenizer: Path | None = None, prediction: Prediction | None = None
) -> StableDenoiser:
    """A single-file checkpoint.

    Args:
        tokenizer: folder of CLIP's tokenizer; None looks for openai/clip-vit-large-patch14 in the hub's local cache.
        prediction: what the network puts out; None reads it from the file, or a NAME.yaml beside it; 1.x falls back to epsilon.
    Raises:
        ModelError: another kind of file, a part that is missing, no tokenizer, a 2.x file of which nothing says what it predicts.
    """
    state, metadata = read_state(file)
    second = _check_parts(file, state)
    kind = prediction or _stored_prediction(file, state, metadata)
    if kind is None:
        if second:
            raise ModelError(
                f"nothing says whether {file.name} (Stable Diffusion 2.x) predicts noise or v: say epsilon (512 base) or v_prediction "
                f"(768) with --prediction, or prediction= in Python, or put the original configuration beside it as {file.stem}.yaml"
            )
        kind = "epsilon"
    words = open_tokenizer(tokenizer or _cached_tokenizer(file), **({"pad_token": "!"} if second else {}))
    try:
        configs = unet_config(state, sample_size=96 if second and kind == "v_prediction" else 64), vae_config(state)
        text = _text_encoder(clip_weights(state, second), second)
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        raise ModelError(f"the weights in {file.name} are not those of Stable Diffusion 1.x or 2.x: {error!r} was not found") from error
    unet, vae = _convert(state, *configs)
    scheduler = {**SCHEDULER, "prediction_type": kind, "rescale_betas_zero_snr": "ztsnr" in state}
    return StableDenoiser(unet, vae, text, words, scheduler, dtype=dtype)


def settings_files(file: Path) -> list[Path]:
    """The original configuration beside a checkpoint, if it is there: where nothing else does, it says what the network predicts."""
    beside = file.with_suffix(".yaml")
    return [beside] if beside.is_file() else []


def read_state(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All weights and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} cannot be read as safetensors ({error}); download it again") from error


def _check_parts(file: Path, state: Mapping[str, Tensor]) -> bool:
    """Whether this is Stable Diffusion 2.x (else 1.x). Raises ModelError for anything else, saying what it seems to be."""

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in state)

    if has("conditioner.embedders.") or has(f"{UNET}label_emb."):
        raise ModelError(f"{file.name} is a Stable Diffusion XL checkpoint, which is not supported yet; take a 1.x or 2.x model")
    if not has(UNET):
        raise ModelError(f"{file.name} is not a whole Stable Diffusion checkpoint. It looks like {looks_like(state) or unknown(state)}")
    if not has(VAE):
        raise ModelError(f"{file.name} lacks its vae (weights under {VAE}*); take the full checkpoint")
    if not has(CLIP) and not has(OPEN_CLIP):
        raise ModelError(f"{file.name} lacks its text_encoder (weights under cond_stage_model.*); take the full checkpoint")
    return not has(CLIP)


def _stored_prediction(file: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Prediction | None:
    """By a marker among the weights, the file's metadata, or the original configuration beside it."""
    if "v_pred" in state:
        return "v_prediction"
    if found := PREDICTIONS.get(metadata.get("modelspec.prediction_type", "").lower()):
        return found
    for beside in settings_files(file):
        if match := re.search(r"^\s*parameterization:\s*[\"']?(\w+)", beside.read_text(encoding="utf-8"), re.MULTILINE):
            return PREDICTIONS.get(match[1])
    return None


def _cached_tokenizer(file: Path) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(TOKENIZER, name) for name in ("vocab.json", "merges.txt")]
    if not all(isinstance(path, str) for path in found):
        raise ModelError(
            f"{file.name} brings no tokenizer, and {TOKENIZER} is not in the hub's local cache: give a tokenizer folder (--tokenizer "
            "FOLDER, or tokenizer= in Python) with CLIP's vocab.json and merges.txt, such as tokenizer/ of any Stable Diffusion pipeline, "
            f"or run `hf download {TOKENIZER} vocab.json merges.txt` once"
        )
    return Path(str(found[0])).parent


def unet_config(state: Mapping[str, Tensor], sample_size: int) -> dict[str, Any]:
    """The UNet2DConditionModel that these shapes belong to."""
    shapes = {key.removeprefix(UNET): tuple(value.shape) for key, value in state.items() if key.startswith(UNET)}
    channels: list[int] = []
    attends: list[bool] = []
    layers = block = 0
    while any(key.startswith(f"input_blocks.{block + 1}.") for key in shapes):
        block += 1
        convolution = f"input_blocks.{block}.0.out_layers.3.weight"
        if convolution not in shapes:  # a step down
            continue
        if block == 1 or f"input_blocks.{block - 1}.0.op.weight" in shapes:
            channels.append(shapes[convolution][0])
            attends.append(any(key.startswith(f"input_blocks.{block}.1.") for key in shapes))
        layers += len(channels) == 1
    inward = next(shape for key, shape in shapes.items() if key.endswith("proj_in.weight"))
    linear = len(inward) == 2
    down = tuple("CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in attends)
    up = tuple("CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(attends))
    return {
        "sample_size": sample_size,
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "cross_attention_dim": next(shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")),
        "attention_head_dim": [width // 64 for width in channels] if linear else 8,  # numbers of heads: 2.x has heads of 64, 1.x always 8
        "use_linear_projection": linear,
    }


def vae_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The AutoencoderKL that these shapes belong to."""
    shapes = {key.removeprefix(VAE): tuple(value.shape) for key, value in state.items() if key.startswith(VAE)}
    levels = 1 + max(int(match[1]) for key in shapes if (match := re.match(r"encoder\.down\.(\d+)\.", key)))
    layers = 1 + max(int(match[1]) for key in shapes if (match := re.match(r"encoder\.down\.0\.block\.(\d+)\.", key)))
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": tuple(shapes[f"encoder.down.{level}.block.0.conv2.weight"][0] for level in range(levels)),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": layers,
        "scaling_factor": SCALING_FACTOR,
    }


def _convert(state: Mapping[str, Tensor], unet: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[Any, Any]:
    """Both networks, renamed by diffusers from local configurations; no network is asked."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    made = []
    with tempfile.TemporaryDirectory() as home, quiet():
        for kind, config, prefix in ((UNet2DConditionModel, unet, UNET), (AutoencoderKL, vae, VAE)):
            folder = Path(home) / kind.__name__
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({"_class_name": kind.__name__, **config}), encoding="utf-8")
            weights = {key: value for key, value in state.items() if key.startswith(prefix)}
            try:
                module = kind.from_single_file(weights, config=str(folder), subfolder="", local_files_only=True)
            except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
                raise ModelError(f"the weights under {prefix}* do not make a {kind.__name__}: {error}") from error
            missing = [name for name, value in module.named_parameters() if value.is_meta]
            if missing:
                raise ModelError(f"the checkpoint lacks {len(missing)} weights of {kind.__name__}, first {missing[0]}; download it again")
            made.append(module)
    return made[0], made[1]


def clip_weights(state: Mapping[str, Tensor], second: bool) -> dict[str, Tensor]:
    """The text encoder's weights under the names of transformers' CLIPTextModel, without its prefix `text_model.`."""
    if not second:
        return {key.removeprefix(CLIP): value for key, value in state.items() if key.startswith(CLIP) and "position_ids" not in key}
    own = {key.removeprefix(OPEN_CLIP): value for key, value in state.items() if key.startswith(OPEN_CLIP)}
    out = {
        "embeddings.token_embedding.weight": own["token_embedding.weight"],
        "embeddings.position_embedding.weight": own["positional_embedding"],
        "final_layer_norm.weight": own["ln_final.weight"],
        "final_layer_norm.bias": own["ln_final.bias"],
    }
    blocks = {int(key.split(".")[2]) for key in own if key.startswith("transformer.resblocks.")}
    for key, value in own.items():
        if not key.startswith("transformer.resblocks."):
            continue
        block, rest = key.removeprefix("transformer.resblocks.").split(".", 1)
        if int(block) == max(blocks):  # 2.x reads the states before the last layer
            continue
        layer = f"encoder.layers.{block}."
        if rest.startswith("attn.in_proj_"):
            for name, piece in zip("qkv", value.chunk(3), strict=True):
                out[f"{layer}self_attn.{name}_proj.{rest.removeprefix('attn.in_proj_')}"] = piece.clone()
        else:
            name, leaf = rest.rsplit(".", 1)
            out[f"{layer}{OPEN_CLIP_NAMES[name]}.{leaf}"] = value
    return out


def _text_encoder(weights: Mapping[str, Tensor], second: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    entries, width = weights["embeddings.token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=entries,
        hidden_size=width,
        intermediate_size=len(weights["encoder.layers.0.mlp.fc1.bias"]),
        num_hidden_layers=1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.layers.")),
        num_attention_heads=width // 64,
        max_position_embeddings=len(weights["embeddings.position_embedding.weight"]),
        hidden_act="gelu" if second else "quick_gelu",
        projection_dim=width,
        bos_token_id=entries - 2,
        eos_token_id=entries - 1,
        pad_token_id=0 if second else entries - 1,
    )
    model = CLIPTextModel(config)
    prefix = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
    try:
        model.load_state_dict({prefix + key: value for key, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise ModelError(f"the weights under cond_stage_model.* do not make a CLIPTextModel: {error}") from error
    return model
