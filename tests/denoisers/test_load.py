"""Names, paths and specs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_stable
from tests.tiny_pixel import tiny_pixel

from rediffuse.denoisers import load as loading
from rediffuse.denoisers.base import DenoiserSpec
from rediffuse.denoisers.load import FAMILIES, bundled, load, weights_hash
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.errors import ConfigError, ModelError
from rediffuse.generation.environment import identify
from rediffuse.sampling.guided import ClassifierFree


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable(tmp_path_factory.mktemp("load") / "model")


def test_a_spec_brings_the_same_denoiser_back(folder: Path) -> None:
    denoiser = load(str(folder), device="cpu", dtype="bfloat16")
    spec = denoiser.spec
    assert spec is not None
    assert (spec.name, spec.path, spec.revision, len(spec.weights_hash)) == (str(folder), str(folder), None, 64)
    assert dict(spec.options) == {"dtype": "bfloat16"}
    again = load(spec, device="cpu")
    assert again.spec == spec
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 700])
    ours = again(x, t, again.embed(["a cat", ""]))
    assert torch.equal(ours, denoiser(x, t, denoiser.embed(["a cat", ""])))
    assert dict(load(spec, device="cpu", dtype="float32").spec.options) == {"dtype": "float32"}  # type: ignore[union-attr]


def test_other_weights_under_the_same_path_are_refused(folder: Path) -> None:
    spec = load(folder, device="cpu", dtype="float32").spec
    assert spec is not None
    with pytest.raises(ModelError, match=r"other weights \(\w{12}\) than those asked for \(f{12}\)"):
        load(replace(spec, weights_hash="f" * 64), device="cpu")


def test_a_relative_path_is_kept_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    spec = load("model", device="cpu", dtype="float32").spec
    assert spec is not None
    monkeypatch.chdir("/")
    assert load(spec, device="cpu").spec == spec


def test_a_spec_without_its_path_falls_back_to_the_name(folder: Path) -> None:
    spec = DenoiserSpec(name=str(folder), path="/nowhere/at/all")
    assert load(spec, device="cpu", dtype="float32").spec.path == str(folder)  # type: ignore[union-attr]


def test_the_hash_is_of_the_content_and_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    copy, other = tiny_stable(tmp_path / "copy"), tiny_stable(tmp_path / "other", seed=1)
    hashes = [load(path, device="cpu", dtype="float32").spec.weights_hash for path in (folder, copy, other)]  # type: ignore[union-attr]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_changed_file_is_hashed_anew(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"a")
    before = weights_hash([file])
    assert weights_hash([file]) == before
    file.write_bytes(b"b")
    os.utime(file, ns=(1, 1))
    assert weights_hash([file]) != before
    assert weights_hash([file, file]) != weights_hash([file])


def test_bundled_names_come_first_and_are_listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "weights" / "features").mkdir(parents=True)
    tiny_stable(package / "weights" / "tiny-model", seed=3)
    monkeypatch.setattr(loading, "files", lambda _name: package)
    assert list(bundled()) == ["tiny-model"]
    monkeypatch.chdir(folder.parent)
    (folder.parent / "tiny-model").symlink_to(folder)
    spec, local = load("tiny-model", device="cpu").spec, load("./tiny-model", device="cpu").spec
    assert spec is not None
    assert local is not None
    assert spec.name == "tiny-model"
    assert spec.path == str(package / "weights" / "tiny-model")
    assert local.path == str(folder)
    assert local.weights_hash != spec.weights_hash
    for name in ("huge-model", "photos/huge/model", "../huge"):
        with pytest.raises(ModelError, match=rf"'{name}'.*tiny-model.*OWNER/NAME"):
            load(name)


def test_bundled_models_of_several_families_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    tiny_stable(package / "weights" / "words")
    tiny_pixel(package / "weights" / "pixels")
    monkeypatch.setattr(loading, "files", lambda _name: package)
    assert list(bundled()) == ["pixels", "words"]
    assert isinstance(load("pixels", device="cpu"), UNet2DDenoiser)
    assert isinstance(load("words", device="cpu"), StableDenoiser)


def test_the_bundled_models_of_this_package_open() -> None:
    names = bundled()
    if not names:
        pytest.skip("no bundled denoisers in this checkout")
    for name in names:
        denoiser = load(name, device="cpu")
        assert denoiser.spec is not None
        assert denoiser.spec.name == name


@pytest.mark.parametrize(
    ("name", "named"), [("model.ckpt", "pickle"), ("model.pt", "pickle"), ("model.txt", "not a model"), ("model.onnx", "not a model")]
)
def test_other_files_are_refused(tmp_path: Path, name: str, named: str) -> None:
    (tmp_path / name).write_bytes(b"never opened")
    with pytest.raises(ModelError, match=named):
        load(tmp_path / name)


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(ModelError, match=r"lacks model_index\.json and holds cat\.jpg"):
        load(tmp_path)


def test_a_classifier_is_named() -> None:
    with pytest.raises(ModelError, match="is a 'ResNetForImageClassification' of transformers, not a denoiser; give a diffusion model"):
        load(bundled()["cifar10-32"].parent / "resnet-64")


def test_devices_and_dtypes_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'tpu'"):
        load(folder, device="tpu")
    with pytest.raises(ConfigError, match="'int8'"):
        load(folder, device="cpu", dtype="int8")


def test_families_are_a_literal_list() -> None:
    stable, pixel = {"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"}, {"DDPMPipeline", "DDIMPipeline", "UNet2DModel"}
    assert set(FAMILIES) == stable | pixel


@pytest.mark.parametrize("part", ["tokenizer/tokenizer_config.json", "scheduler/scheduler_config.json"])
def test_another_vocabulary_or_schedule_is_another_model(tmp_path: Path, part: str) -> None:
    folder = tiny_stable(tmp_path / "model")
    before = load(folder, device="cpu").spec
    file = folder / part
    file.write_text(file.read_text() + " \n")
    after = load(folder, device="cpu").spec
    assert before is not None
    assert after is not None
    assert before.weights_hash != after.weights_hash
    with pytest.raises(ModelError, match="other weights"):
        load(before, device="cpu")


def test_a_model_that_was_trained_on_is_another_one(folder: Path) -> None:
    model = load(str(folder), device="cpu")
    assert model.spec is not None
    vouched = model.spec.weights_hash
    guided = ClassifierFree(model, 2.0)
    model.to(torch.float64).to(memory_format=torch.channels_last)
    assert model.fingerprint() == guided.fingerprint() == vouched
    model.to(torch.float32)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert model.fingerprint() == guided.fingerprint() == identify(model)["weights_hash"] != vouched
    other = load(model.spec, device="cpu")
    assert other.fingerprint() == vouched
    other.register_parameter("added", torch.nn.Parameter(torch.zeros(3)))
    assert other.fingerprint() != vouched


def test_weights_written_through_data_are_found_out(folder: Path) -> None:
    model = load(str(folder), device="cpu")
    assert model.spec is not None
    vouched, weights = model.spec.weights_hash, dict(model.named_parameters())
    largest = max(weights.values(), key=torch.Tensor.numel)
    before = largest.data.clone()
    largest.data += torch.randn(before.shape[0], 1).matmul(torch.randn(1, before[0].numel())).view(before.shape)  # as LoRA is fused
    assert model.fingerprint() != vouched
    largest.data = before
    assert model.fingerprint() == vouched
    model.half()
    assert model.fingerprint() == vouched
    next(model.parameters()).data = next(model.parameters()).data.to(torch.float8_e5m2)  # as layerwise casting keeps them
    assert model.fingerprint() == vouched
    model = load(str(folder), device="cpu")
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()}, assign=True)
    assert model.fingerprint() != vouched
