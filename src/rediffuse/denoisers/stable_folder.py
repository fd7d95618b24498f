"""Stable Diffusion pipeline folders, read part by part through a fixed list of classes.

`model_index.json` is data: nothing that it names is imported or run, and weights come from safetensors alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.errors import ModelError
from rediffuse.quiet import quiet

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
VARIANTS = ("", ".fp16", ".bf16")  # in the order in which they are taken
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", None)
CONVERT = "load it once where you trust it and write it with save_pretrained(..., safe_serialization=True), or take a safetensors revision"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a folder must hold under one name. classes: names that model_index.json may give it; stem: of its weight files."""

    library: str
    classes: tuple[str, ...]
    stem: str = ""


PARTS: Mapping[str, Part] = {
    "unet": Part(library="diffusers", classes=("UNet2DConditionModel",), stem="diffusion_pytorch_model"),
    "vae": Part(library="diffusers", classes=("AutoencoderKL",), stem="diffusion_pytorch_model"),
    "text_encoder": Part(library="transformers", classes=("CLIPTextModel",), stem="model"),
    "tokenizer": Part(library="transformers", classes=("CLIPTokenizer", "CLIPTokenizerFast")),
}
SCHEDULER = "scheduler"  # read as numbers; its class is never made


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises ModelError if it is missing or broken."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{file.parent} lacks {file.name}; a model folder must be complete: copy or download it again") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not readable JSON ({error}); copy or download it again") from error


def refuse_code(folder: Path, index: Mapping[str, Any]) -> None:
    """Raises ModelError for a folder that brings Python files or asks for classes of its own."""
    scripts = sorted(str(file.relative_to(folder)) for pattern in ("*.py", "*/*.py") for file in folder.glob(pattern))
    if scripts:
        raise ModelError(
            f"{folder} brings code of its own ({', '.join(scripts)}), which is never run; remove it if the parts are the usual ones"
        )
    for name, entry in index.items():
        if isinstance(entry, list) and (len(entry) != 2 or entry[0] not in LIBRARIES):
            raise ModelError(
                f"model_index.json asks for the class {entry} as {name}: custom classes are never loaded; use a plain pipeline folder"
            )


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Refuse custom code by name and name the part that is missing. Raises ModelError."""
    refuse_code(folder, index)
    for name, part in PARTS.items():
        entry = index.get(name)
        if entry in (None, [None, None]) or not (folder / name).is_dir():
            raise ModelError(f"{folder} lacks its {name}; a Stable Diffusion folder holds {', '.join((*PARTS, SCHEDULER))}")
        if entry[0] != part.library or entry[1] not in part.classes:
            raise ModelError(f"model_index.json gives {entry} as {name}; supported: {' or '.join(part.classes)} of {part.library}")
    if not (folder / SCHEDULER / "scheduler_config.json").is_file():
        raise ModelError(f"{folder} lacks its scheduler (scheduler/scheduler_config.json), which says how much noise a step holds")


def choose_weights(where: str, files: Collection[str], stem: str) -> tuple[str, list[str]]:
    """Variant and names of one part's safetensors files among `files`, the index of shards first. Raises ModelError if there are none."""
    for variant in VARIANTS:
        if f"{stem}{variant}.safetensors" in files:
            return variant, [f"{stem}{variant}.safetensors"]
        index = f"{stem}.safetensors.index{variant}.json"
        if index in files:
            shard = re.compile(rf"{stem}({re.escape(variant)})?-\d+-of-\d+({re.escape(variant)})?\.safetensors")
            shards = sorted(name for name in files if shard.fullmatch(name) and (not variant or variant in name))
            return variant, [index, *shards]
    pickles = sorted(name for name in files if name.endswith(PICKLES))
    if pickles:
        raise ModelError(f"{where} holds only pickled weights ({', '.join(pickles)}), which can run code and are never opened; {CONVERT}")
    raise ModelError(f"{where} lacks {stem}.safetensors; it holds {', '.join(sorted(files)) or 'nothing'}")


def needed_files(files: Sequence[str]) -> list[str]:
    """Which files of a repository make a pipeline folder. Raises ModelError, before any download, if a part has no safetensors."""
    if "model_index.json" not in files:
        raise ModelError("it has no model_index.json, so it is no pipeline folder")
    needed = [name for name in files if name.count("/") <= 1 and (name.endswith(".json") or name == "tokenizer/merges.txt")]
    for name, part in PARTS.items():
        if part.stem:
            inside = [file.removeprefix(f"{name}/") for file in files if file.startswith(f"{name}/")]
            needed += [f"{name}/{file}" for file in choose_weights(f"its {name}", inside, part.stem)[1]]
    return sorted(set(needed))


def weight_files(folder: Path, stem: str) -> tuple[str, list[Path]]:
    """Variant and safetensors files of one part of a folder, shards included, all of them there."""
    variant, names = choose_weights(str(folder), [file.name for file in folder.iterdir() if file.is_file()], stem)
    if names[0].endswith(".json"):
        index = read_json(folder / names[0])
        wanted = sorted(set(index["weight_map"].values())) if isinstance(index, dict) and "weight_map" in index else []
        missing = [name for name in wanted if name not in names]
        if missing or not wanted:
            raise ModelError(f"{folder} lacks the weight files {', '.join(missing) or names[0]}; copy or download it again")
        names = wanted
    return variant, [folder / name for name in names]


def all_weight_files(folder: Path) -> list[Path]:
    """Every weight file that `open_folder` reads, in a fixed order."""
    check_index(folder, read_json(folder / "model_index.json"))
    return [file for name, part in PARTS.items() if part.stem for file in weight_files(folder / name, part.stem)[1]]


def open_folder(folder: Path, *, dtype: torch.dtype = torch.float32, tokenizer: Path | None = None) -> StableDenoiser:
    """A Stable Diffusion 1.x / 2.x pipeline folder. tokenizer: a folder to take it from in place of the folder's own."""
    check_index(folder, read_json(folder / "model_index.json"))
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    config = read_json(folder / SCHEDULER / "scheduler_config.json")
    return StableDenoiser(
        load_part(UNet2DConditionModel, folder / "unet", PARTS["unet"]),
        load_part(AutoencoderKL, folder / "vae", PARTS["vae"]),
        load_part(CLIPTextModel, folder / "text_encoder", PARTS["text_encoder"]),
        open_tokenizer(tokenizer or folder / "tokenizer"),
        config,
        dtype=dtype,
        known_words=_known_words(folder),
    )


def check_tokenizer(folder: Path) -> None:
    """Raises ModelError for a folder that lacks the files of a tokenizer."""

    def complete(place: Path) -> bool:
        return (place / "tokenizer.json").is_file() or all((place / name).is_file() for name in ("vocab.json", "merges.txt"))

    if not complete(folder):
        inner = folder / "tokenizer"
        hint = f"; {inner} does" if complete(inner) else ": it needs tokenizer.json, or vocab.json and merges.txt"
        raise ModelError(f"{folder} holds no tokenizer{hint}")


def open_tokenizer(folder: Path, **changes: Any) -> Any:
    """A CLIPTokenizer of a folder with tokenizer.json, or with vocab.json and merges.txt."""
    from transformers import CLIPTokenizer

    check_tokenizer(folder)
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, **changes)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the tokenizer in {folder} cannot be read ({error}); copy or download it again") from error


def load_part(kind: Any, folder: Path, part: Part) -> Any:
    """A part of a folder as this class of diffusers or transformers, from safetensors, every weight there. Raises ModelError."""
    from safetensors import SafetensorError

    variant, _ = weight_files(folder, part.stem)
    read_json(folder / "config.json")
    try:
        with quiet():
            module, info = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, variant=variant.removeprefix(".") or None, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder} cannot be read as {kind.__name__}: {error}") from error
    missing = [*info["missing_keys"], *info.get("mismatched_keys", ())]
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} weights of {kind.__name__}, first {missing[0]}; copy or download it again")
    return module


def _known_words(folder: Path) -> tuple[str, ...]:
    file = folder / "known_words.json"
    if not file.is_file():
        return ()
    words = read_json(file)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelError(f"{file} must be a list of words")
    return tuple(words)
