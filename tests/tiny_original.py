"""The same random Stable Diffusion twice: as a pipeline folder and as one file in the layout of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tests.tiny import tiny_tokenizer, write_json, write_scheduler


def tiny_original(path: str | Path, *, version: Literal[1, 2] = 1, seed: int = 0, sample_size: int = 64) -> tuple[Path, Path]:
    """Write both and return folder and file. Thin, but with what the original layouts fix: 32 groups in norms, 8 heads (1.x) or heads of
    64 (2.x), text heads of 64, and in 2.x a last text layer that nobody reads.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    path, tokenizer = Path(path), tiny_tokenizer()
    second = version == 2
    blocks, layers = ((64, 64) if second else (32, 64)), (2 if second else 1)
    heads: dict[str, Any] = {"attention_head_dim": [1, 1], "use_linear_projection": True} if second else {"attention_head_dim": 8}
    text = {"hidden_act": "gelu", "num_hidden_layers": 3, "pad_token_id": 0} if second else {"num_hidden_layers": 2, "pad_token_id": 536}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=blocks,
            layers_per_block=layers,
            cross_attention_dim=64,
            **heads,
        )
        vae = AutoencoderKL(
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 32),
        )
        config = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 1, "projection_dim": 64, "eos_token_id": 536, **text}
        encoder = CLIPTextModel(CLIPTextConfig(vocab_size=537, max_position_embeddings=77, bos_token_id=535, **config))
        last = {f"encoder.layers.3.{key}": torch.randn_like(value) for key, value in encoder.encoder.layers[0].state_dict().items()}
    for name, part in {"unet": unet, "vae": vae, "text_encoder": encoder}.items():
        part.save_pretrained(path / name)
    if second:
        tokenizer.pad_token = "!"
    tokenizer.save_pretrained(path / "tokenizer")
    write_scheduler(path / "scheduler", "v_prediction" if second else "epsilon", {"_class_name": "PNDMScheduler", "skip_prk_steps": True})
    index = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "PNDMScheduler"}
    own = {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    entries = {name: ["diffusers", kind] for name, kind in index.items()}
    write_json(path / "model_index.json", {"_class_name": "StableDiffusionPipeline", **entries, **own})
    state = {f"model.diffusion_model.{_unet_name(key, layers, (True, False))}": value for key, value in unet.state_dict().items()}
    for key, value in vae.state_dict().items():
        linear = ".attentions." in key and value.ndim == 2  # a 1x1 convolution there
        state[f"first_stage_model.{_vae_name(key, 2)}"] = value[:, :, None, None] if linear else value
    words = {key.removeprefix("text_model."): value for key, value in encoder.state_dict().items()}
    state |= (
        _open_clip(words | last) if second else {f"cond_stage_model.transformer.text_model.{key}": value for key, value in words.items()}
    )
    file = path.with_suffix(".safetensors")
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return path, file


def _unet_name(key: str, layers: int, attends: tuple[bool, ...]) -> str:
    """diffusers -> original, for a UNet2DConditionModel."""
    plain = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0"}
    for new, old in {**plain, "conv_norm_out": "out.0", "conv_out": "out.2"}.items():
        if key.startswith(f"{new}."):
            return key.replace(new, old)
    block, *rest = key.split(".")
    if block == "mid_block":
        kind, number, *leaf = rest
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_resnet_name('.'.join(leaf))}"
    level, kind, number, *leaf = rest
    first, tail = int(level) * (layers + 1), _resnet_name(".".join(leaf))
    if block == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.op.{leaf[-1]}"
        return f"input_blocks.{first + 1 + int(number)}.{'1' if kind == 'attentions' else '0'}.{tail}"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if attends[::-1][int(level)] else 1}.conv.{leaf[-1]}"
    return f"output_blocks.{first + int(number)}.{'1' if kind == 'attentions' else '0'}.{tail}"


def _resnet_name(leaf: str) -> str:
    names = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
    names |= {"time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
    head, _, tail = leaf.partition(".")
    return f"{names[head]}.{tail}" if head in names else leaf


def _vae_name(key: str, levels: int) -> str:
    """diffusers -> original, for an AutoencoderKL."""
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    for new, old in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        key = key.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    for index in range(2):
        key = key.replace(f"mid_block.resnets.{index}", f"mid.block_{index + 1}")
    for level in range(levels):
        key = key.replace(f"down_blocks.{level}.", f"down.{level}.").replace(f"up_blocks.{level}.", f"up.{levels - 1 - level}.")
    key = key.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return key.replace(".resnets.", ".block.")


def _open_clip(words: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers -> OpenCLIP, whose attention keeps query, key and value in one matrix."""
    ends = {"token_embedding.weight": "embeddings.token_embedding.weight", "positional_embedding": "embeddings.position_embedding.weight"}
    ends |= {f"ln_final.{leaf}": f"final_layer_norm.{leaf}" for leaf in ("weight", "bias")}
    out = {old: words[new] for old, new in ends.items()}
    for layer in range(1 + max(int(key.split(".")[2]) for key in words if key.startswith("encoder."))):
        new, old = f"encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        for leaf in ("weight", "bias"):
            out[f"{old}.attn.in_proj_{leaf}"] = torch.cat([words[f"{new}.self_attn.{name}_proj.{leaf}"] for name in "qkv"])
            for theirs, ours in {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}.items():
                out[f"{old}.{theirs}.{leaf}"] = words[f"{new}.{ours}.{leaf}"]
            out[f"{old}.mlp.c_fc.{leaf}"], out[f"{old}.mlp.c_proj.{leaf}"] = (words[f"{new}.mlp.fc{n}.{leaf}"] for n in (1, 2))
    out["text_projection"], out["logit_scale"] = torch.eye(64), torch.tensor(1.0)
    return {f"cond_stage_model.model.{key}": value for key, value in out.items()}
