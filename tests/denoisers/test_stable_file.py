"""Single-file checkpoints answer as the pipeline folder of the same weights does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_original import tiny_original
from torch import Tensor

from rediffuse.denoisers import stable_file
from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.denoisers.stable_folder import open_folder
from rediffuse.errors import ConfigError, ModelError

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny_original(tmp_path_factory.mktemp("first") / "model", version=1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny_original(tmp_path_factory.mktemp("second") / "model", version=2)


def answers(denoiser: StableDenoiser) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images, condition = torch.rand(3, 3, 16, 16, generator=generator), denoiser.embed(["a photo of a cat", "", "zebra"])
    x = denoiser.encode(images)
    assert condition.embedding is not None
    return condition.embedding, x, denoiser(x, torch.tensor([5, 400, 990]), condition), denoiser.decode(x)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_answers_as_its_folder(version: int, request: pytest.FixtureRequest) -> None:
    folder, file = request.getfixturevalue("first" if version == 1 else "second")
    kind = None if version == 1 else "v_prediction"
    single = load(file, device="cpu", dtype="float32", tokenizer=folder / "tokenizer", prediction=kind)  # type: ignore[arg-type]
    assert isinstance(single, StableDenoiser)
    for ours, wanted in zip(answers(single), answers(open_folder(folder)), strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-5)
    assert single.scheduler_config["steps_offset"] == 1
    assert single.spec is not None
    assert dict(single.spec.options).get("prediction") == kind
    again = load(single.spec, device="cpu")
    assert again.spec == single.spec


def test_second_generation_prompts_are_padded_as_diffusers_pads_them(second: Pair) -> None:
    from diffusers import StableDiffusionPipeline

    prompts = ["a photo of a cat", ""]
    pipeline = StableDiffusionPipeline.from_pretrained(second[0], local_files_only=True, safety_checker=None, feature_extractor=None)
    theirs = pipeline.encode_prompt(prompts, torch.device("cpu"), 1, False)[0]
    ours = open_folder(second[0]).embed(prompts).embedding
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-5, rtol=0)


def test_half_precision_files_are_read(first: Pair, tmp_path: Path) -> None:
    folder, file = first
    half = tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in load_file(file).items()}, half)
    for ours, wanted in zip(
        answers(stable_file.open_file(half, tokenizer=folder / "tokenizer")), answers(open_folder(folder)), strict=True
    ):
        torch.testing.assert_close(ours, wanted, atol=0.02, rtol=0.02)


def test_what_a_second_generation_file_predicts_is_looked_up_or_asked_for(second: Pair, tmp_path: Path) -> None:
    folder, file = second
    words, state = folder / "tokenizer", load_file(file)
    with pytest.raises(ModelError, match=r"--prediction, or prediction= in Python, .* as model\.yaml"):
        stable_file.open_file(file, tokenizer=words)
    told = {"prediction": "epsilon"}
    assert stable_file.open_file(file, tokenizer=words, **told).prediction == "epsilon"  # type: ignore[arg-type]
    beside = tmp_path / "beside.safetensors"
    save_file(state, beside)
    beside.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert stable_file.open_file(beside, tokenizer=words).prediction == "v_prediction"
    beside.with_suffix(".yaml").write_text("model:\n  params:\n    linear_start: 0.00085\n")
    with pytest.raises(ModelError, match="nothing says"):
        stable_file.open_file(beside, tokenizer=words)
    noted = tmp_path / "noted.safetensors"
    save_file(state, noted, metadata={"modelspec.prediction_type": "epsilon"})
    assert stable_file.open_file(noted, tokenizer=words).prediction == "epsilon"
    marked = tmp_path / "marked.safetensors"
    save_file({**state, "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, marked)
    zero = stable_file.open_file(marked, tokenizer=words)
    assert zero.prediction == "v_prediction"
    assert float(zero.schedule.alpha[-1]) == 0
    assert zero.size == 2 * 96


def test_the_tokenizer_comes_from_the_cache_or_is_asked_for(first: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = first
    with pytest.raises(ModelError, match=r"--tokenizer FOLDER, or tokenizer= in Python"):
        stable_file.open_file(file)
    words = write_vocabulary(tmp_path / "words")
    import huggingface_hub

    asked: list[str] = []

    def cached(repository: str, name: str) -> str:
        asked.append(repository)
        return str(words / name)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    for ours, wanted in zip(answers(stable_file.open_file(file)), answers(open_folder(folder)), strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-5)
    assert set(asked) == {"openai/clip-vit-large-patch14"}


def write_vocabulary(folder: Path) -> Path:
    """vocab.json and merges.txt alone, as in a hub cache."""
    from tests.tiny import tiny_stable

    return tiny_stable(folder, layout="old") / "tokenizer"


def without(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefix)}


def test_files_that_cannot_be_used_say_what_is_wrong(first: Pair, tmp_path: Path) -> None:
    folder, file = first
    state = load_file(file)
    unet = "model.diffusion_model."
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "xl": ({**state, "conditioner.embedders.0.x": torch.ones(1)}, "Stable Diffusion XL"),
        "lora": ({"unet.down_blocks.0.attentions.0.transformer_blocks.0.lora_A.weight": torch.ones(1)}, "LoRA"),
        "other": ({"backbone.weight": torch.ones(1)}, "something unknown .*backbone"),
        "unet alone": ({"down_blocks.0.resnets.0.conv1.weight": torch.ones(1)}, "a diffusers network; give the folder"),
        "classifier": ({"resnet.embedder.embedder.convolution.weight": torch.ones(1)}, "a ResNet classifier, not a denoiser"),
        "vae alone": ({"decoder.up_blocks.0.x": torch.ones(1), "encoder.down_blocks.0.x": torch.ones(1)}, "an autoencoder alone"),
        "no vae": (without("first_stage_model.", state), "lacks its vae"),
        "no text": (without("cond_stage_model.", state), "lacks its text_encoder"),
        "torn unet": (without(f"{unet}out.2.weight", state), "not those of Stable Diffusion"),
        "torn middle": (without(f"{unet}middle_block.0.in_layers.2.weight", state), "UNet2DConditionModel"),
        "torn vae": (without("first_stage_model.decoder.conv_in.bias", state), "AutoencoderKL"),
        "torn text": (without("cond_stage_model.transformer.text_model.final_layer_norm.bias", state), "CLIPTextModel"),
    }
    for name, (weights, named) in cases.items():
        damaged = tmp_path / f"{name}.safetensors"
        save_file(weights, damaged)
        with pytest.raises(ModelError, match=named):
            load(damaged, device="cpu", tokenizer=folder / "tokenizer")
    damaged.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="download it again"):
        load(damaged, device="cpu", tokenizer=folder / "tokenizer")


def test_a_prediction_for_a_folder_or_of_another_kind_is_refused(first: Pair) -> None:
    folder, file = first
    with pytest.raises(ConfigError, match="single files"):
        load(folder, prediction="epsilon")
    with pytest.raises(ConfigError, match="'noise'"):
        load(file, prediction="noise")  # type: ignore[arg-type]


def test_a_tokenizer_folder_is_kept_whole_and_only_its_files_count(first: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, file = first
    wanted = load(file, device="cpu", tokenizer=folder / "tokenizer").spec
    assert wanted is not None
    shutil.copytree(folder / "tokenizer", tmp_path / "words")
    (tmp_path / "words" / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = load(file, device="cpu", tokenizer="words").spec
    assert spec is not None
    assert spec.weights_hash == wanted.weights_hash
    monkeypatch.chdir("/")
    assert load(spec, device="cpu").spec == spec
    with pytest.raises(ModelError, match=r"model holds no tokenizer; .*tokenizer does"):
        load(file, device="cpu", tokenizer=folder)
    with pytest.raises(ModelError, match=r"nowhere holds no tokenizer: it needs tokenizer\.json, or vocab\.json and merges\.txt"):
        load(file, device="cpu", tokenizer="nowhere")


def test_another_configuration_beside_a_file_is_another_model(second: Pair, tmp_path: Path) -> None:
    folder, file = second
    moved, told = tmp_path / "moved.safetensors", {"device": "cpu", "tokenizer": folder / "tokenizer"}
    shutil.copy(file, moved)
    specs = []
    for kind in ("v", "eps"):
        moved.with_suffix(".yaml").write_text(f"model:\n  params:\n    parameterization: {kind}\n")
        specs.append(load(moved, **told).spec)  # type: ignore[arg-type]
    one, other = specs
    assert one is not None
    assert other is not None
    assert one.weights_hash != other.weights_hash
    with pytest.raises(ModelError, match="other weights"):
        load(one, device="cpu")
    said = load(moved, **told, prediction="epsilon").spec  # type: ignore[arg-type]
    moved.with_suffix(".yaml").unlink()
    assert said == load(moved, **told, prediction="epsilon").spec  # type: ignore[arg-type]
