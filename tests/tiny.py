"""Complete Stable Diffusion folders of a few hundred kilobytes with random weights, for the tests of every room.

A folder is a function of its arguments alone. The words of VOCABULARY are one token each; any other text is spelled in letters.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

VOCABULARY = ("a", "photo", "of", "cat", "dog", "the", "thing", "red", "bird", "one", "two")
TEXT_WIDTH = 32

Layout = Literal["diffusers", "fp16", "old", "pickle"]
"""diffusers: as written today. fp16: `*.fp16.safetensors` alone. old: as in the first repositories (text encoder keys under
`text_model.` with position_ids, no tokenizer.json, CLIPFeatureExtractor, safety_checker null). pickle: `.bin` weights alone."""


def tiny_stable(
    path: str | Path,
    *,
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
    layout: Layout = "diffusers",
    seed: int = 0,
    image_size: int = 16,
    vae_factor: int = 2,
    scheduler: dict[str, Any] | None = None,
) -> Path:
    """Write a whole pipeline folder and return its path.

    Images of `image_size` become 4 channels of `image_size / vae_factor`. `scheduler` replaces or adds entries of scheduler_config.json.
    """
    path = Path(path)
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _build_parts(tokenizer, image_size, vae_factor)
    for name, part in parts.items():
        part.save_pretrained(path / name, safe_serialization=True)
    tokenizer.save_pretrained(path / "tokenizer")
    write_scheduler(path / "scheduler", prediction_type, scheduler or {})
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.39.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(path / "model_index.json", index)
    if layout == "old":
        _age(path, index)
    elif layout != "diffusers":
        _rename_weights(path, layout)
    return path


def tiny_tokenizer() -> Any:
    """A CLIPTokenizer of 77 tokens: every byte, the words of VOCABULARY, the two ends."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in VOCABULARY:
        letters = [*word[:-1], word[-1] + "</w>"]
        merges += [("".join(letters[:end]), letters[end]) for end in range(1, len(letters))]
    merges = list(dict.fromkeys(merges))
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _build_parts(tokenizer: Any, image_size: int, vae_factor: int) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=image_size // vae_factor,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,  # the number of heads in this class
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,
    )
    levels = vae_factor.bit_length()
    vae = AutoencoderKL(
        sample_size=image_size,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8, 16, 16, 16)[:levels],
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.18215,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    torch.nn.init.normal_(text.get_input_embeddings().weight, std=0.5)  # words that differ enough to be told apart
    return {"unet": unet, "vae": vae, "text_encoder": text}


def write_scheduler(folder: Path, prediction_type: str, changes: dict[str, Any]) -> None:
    """Stable Diffusion 1.x's facts."""
    config: dict[str, Any] = {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.39.0",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "trained_betas": None,
    }
    write_json(folder / "scheduler_config.json", {**config, **changes})


def _age(path: Path, index: dict[str, Any]) -> None:
    index = {**index, "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "safety_checker": None}
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    del index["requires_safety_checker"]
    write_json(path / "model_index.json", index)
    file = path / "text_encoder" / "model.safetensors"
    state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(file).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    save_file(state, file, metadata={"format": "pt"})
    tokenizer = json.loads((path / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    shutil.rmtree(path / "tokenizer")
    write_json(path / "tokenizer" / "vocab.json", tokenizer["vocab"])
    merges = "\n".join(" ".join(merge) for merge in tokenizer["merges"])
    (path / "tokenizer" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    write_json(path / "tokenizer" / "tokenizer_config.json", {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"})
    scheduler = json.loads((path / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    del scheduler["clip_sample"]
    write_json(path / "scheduler" / "scheduler_config.json", {**scheduler, "_class_name": "PNDMScheduler", "skip_prk_steps": True})


def _rename_weights(path: Path, layout: Layout) -> None:
    for file in path.glob("*/*.safetensors"):
        state = load_file(file)
        file.unlink()
        if layout == "fp16":
            halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
            save_file(halves, file.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
        else:
            name = "pytorch_model.bin" if file.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
            torch.save(state, file.with_name(name))
