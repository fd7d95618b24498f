"""Pipeline folders of every age; folders that lack something or bring code are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import Layout, tiny_stable, write_json
from torch import Tensor

from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.denoisers.stable_folder import needed_files
from rediffuse.errors import ModelError

PROMPTS = ["a photo of a cat", "", "Zebra dog"]
T = torch.tensor([5, 400, 990])


def opened(folder: Path) -> StableDenoiser:
    denoiser = load(folder, device="cpu", dtype="float32")
    assert isinstance(denoiser, StableDenoiser)
    return denoiser


def answers(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, belief and picture of a folder for one fixed input."""
    denoiser, images = opened(folder), torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = denoiser.encode(images)
    return x, denoiser(x, T, denoiser.embed(PROMPTS)), denoiser.decode(x)


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    write_json(file, change(json.loads(file.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor, Tensor]:
    return answers(tiny_stable(tmp_path_factory.mktemp("plain") / "model"))


@pytest.mark.parametrize(("layout", "tolerance"), [("old", 0.0), ("fp16", 0.01)])
def test_older_layouts_and_fp16_files_answer_alike(tmp_path: Path, layout: Layout, tolerance: float, plain: tuple[Tensor, ...]) -> None:
    for ours, wanted in zip(answers(tiny_stable(tmp_path / "model", layout=layout)), plain, strict=True):
        torch.testing.assert_close(ours, wanted, atol=tolerance, rtol=tolerance)


def test_old_names_of_the_attention_weights_are_read(tmp_path: Path, plain: tuple[Tensor, ...]) -> None:
    """The first repositories call them query, key, value and proj_attn."""
    folder = tiny_stable(tmp_path / "model")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in names.items():
        state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
    assert any(".proj_attn." in key for key in state)
    save_file(state, file, metadata={"format": "pt"})
    for ours, wanted in zip(answers(folder), plain, strict=True):
        assert torch.equal(ours, wanted)


def test_weights_in_shards_are_read(tmp_path: Path, plain: tuple[Tensor, ...]) -> None:
    folder = tiny_stable(tmp_path / "model")
    unet = opened(folder).unet
    unet.conv_out = torch.nn.Conv2d(16, 4, 3, padding=1).requires_grad_(False)  # as it was saved: a plain layer
    unet.conv_out.load_state_dict(opened(folder).unet.conv_out.state_dict())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="300KB")
    shards = sorted(file.name for file in (folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    for ours, wanted in zip(answers(folder), plain, strict=True):
        assert torch.equal(ours, wanted)
    assert {f"unet/{name}" for name in shards} <= set(needed_files(names_in(folder)))
    (folder / "unet" / shards[0]).unlink()
    with pytest.raises(ModelError, match=shards[0]):
        load(folder)


def names_in(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def test_full_precision_comes_before_fp16(tmp_path: Path, plain: tuple[Tensor, ...]) -> None:
    folder, half = tiny_stable(tmp_path / "model"), tiny_stable(tmp_path / "half", layout="fp16", seed=1)
    for file in half.glob("*/*.fp16.safetensors"):
        file.rename(folder / file.relative_to(half))
    for ours, wanted in zip(answers(folder), plain, strict=True):
        assert torch.equal(ours, wanted)
    assert not [name for name in needed_files(names_in(folder)) if ".fp16." in name]


def test_known_words(tmp_path: Path) -> None:
    folder = tiny_stable(tmp_path / "model")
    write_json(folder / "known_words.json", ["cat", "red bird"])
    assert opened(folder).known_words == ("cat", "red bird")
    write_json(folder / "known_words.json", {"cat": 1})
    with pytest.raises(ModelError, match="list of words"):
        load(folder)


def test_other_tokenizer_may_be_given(tmp_path: Path) -> None:
    folder, other = tiny_stable(tmp_path / "model"), tiny_stable(tmp_path / "other")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    denoiser = load(folder, device="cpu", dtype="float32", tokenizer=other / "tokenizer")
    assert len(denoiser.embed(["a cat"])) == 1


def remove(*parts: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for part in parts:
            (folder / part).rename(folder / (part.replace("/", "_") + ".away"))

    return damage


def index(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "model_index.json", lambda old: {**old, **changes})


def script(folder: Path) -> None:
    (folder / "unet" / "my_unet.py").write_text("raise SystemExit('run')")


def cut(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def forget(folder: Path) -> None:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["decoder.conv_out.bias"]
    save_file(state, file, metadata={"format": "pt"})


def forget_text(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state = {key: value for key, value in state.items() if not key.endswith("final_layer_norm.bias")}
    save_file(state, file, metadata={"format": "pt"})


def widen(folder: Path) -> None:
    edit(folder / "unet" / "config.json", lambda old: {**old, "block_out_channels": [16, 64]})


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove("model_index.json"), "lacks model_index.json"),
        (remove("unet"), "lacks its unet"),
        (remove("vae"), "lacks its vae"),
        (remove("text_encoder"), "lacks its text_encoder"),
        (remove("tokenizer"), "lacks its tokenizer"),
        (remove("scheduler"), "lacks its scheduler"),
        (remove("unet/config.json"), r"unet lacks config\.json"),
        (remove("vae/diffusion_pytorch_model.safetensors"), r"vae lacks diffusion_pytorch_model\.safetensors"),
        (remove("tokenizer/tokenizer.json"), r"vocab\.json"),
        (index(unet=None), "lacks its unet"),
        (index(_class_name="MyPipeline"), "'MyPipeline'"),
        (index(_class_name=["pipeline", "MyPipeline"]), "MyPipeline"),
        (index(_class_name="StableDiffusionXLPipeline"), "'StableDiffusionXLPipeline'"),
        (index(unet=["my_unet", "MyUNet"]), "MyUNet"),
        (index(safety_checker=["evil", "Code"]), "evil"),
        (index(vae=["diffusers", "AutoencoderTiny"]), "AutoencoderTiny"),
        (script, r"unet/my_unet\.py"),
        (cut, "UNet2DConditionModel"),
        (forget, r"decoder\.conv_out\.bias"),
        (forget_text, r"final_layer_norm\.bias"),
        (widen, "unet"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "JSON"),
        (lambda folder: write_json(folder / "scheduler" / "scheduler_config.json", {"beta_schedule": "odd"}), "odd"),
    ],
)
def test_folders_that_cannot_be_used_say_what_is_wrong(tmp_path: Path, damage: Callable[[Path], object], named: str) -> None:
    folder = tiny_stable(tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError, match=named):
        load(folder, device="cpu")


def test_pickles_are_refused_by_name_with_the_fix(tmp_path: Path) -> None:
    folder = tiny_stable(tmp_path / "model", layout="pickle")
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.bin.*never opened.*safe_serialization"):
        load(folder)
    with pytest.raises(ModelError, match=r"its unet holds only pickled weights"):
        needed_files(names_in(folder))
    with pytest.raises(ModelError, match=r"model_index\.json"):
        needed_files(["config.json", "model.safetensors"])


def test_nothing_is_said_while_reading(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_stable(tmp_path / "model", layout="old")
    capfd.readouterr()
    opened(folder)
    assert capfd.readouterr() == ("", "")
