"""Classifiers as folders: saved, read by transformers itself, opened again; and the folders that are refused."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.training import toys
from torch import nn

from rediffuse.data.geometry import Fit
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.training.backbones import open_backbone, parse_level
from rediffuse.training.classifier import Classifier, evaluating
from rediffuse.training.preprocessing import Preprocessing

IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NAMES = ["cat", "dog <b>", "ünï"]


def test_a_saved_classifier_is_a_transformers_folder(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    ours = open_backbone("scratch", NAMES, seed=3, size=16).eval()
    ours.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    assert theirs.config.id2label == dict(enumerate(NAMES))
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    bytes_ = IMAGES.mul(255).round().to(torch.uint8)
    inputs = processor([Image.fromarray(image.permute(1, 2, 0).numpy()) for image in bytes_], return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(theirs(**inputs).logits, ours.predict(bytes_), atol=1e-5)
    again = Classifier.load(tmp_path / "model")
    assert again.classes == tuple(NAMES)
    assert torch.equal(again.predict(IMAGES), ours.predict(IMAGES))


def test_scratch_is_a_function_of_its_seed_and_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (open_backbone("scratch", NAMES, seed=seed, size=16).predict(IMAGES) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_folder_keeps_its_features_and_gets_a_new_head(tmp_path: Path) -> None:
    folder = toys.resnet_folder(tmp_path / "net", classes=7)
    before = Classifier.load(folder)
    opened = open_backbone(str(folder), NAMES, seed=0)
    assert opened.predict(IMAGES).shape == (5, 3)
    assert torch.equal(opened.features(IMAGES), before.features(IMAGES))
    assert opened.features(IMAGES).shape == (5, 16)
    by_hand = opened.head(opened.features(IMAGES))
    assert torch.allclose(by_hand, opened.predict(IMAGES), atol=1e-6)
    heads = [open_backbone(str(folder), NAMES, seed=seed).head.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_head_of_the_same_width_is_new_as_well(tmp_path: Path) -> None:
    folder = toys.resnet_folder(tmp_path / "net", classes=3)
    assert not torch.allclose(open_backbone(str(folder), NAMES).head.weight, Classifier.load(folder).head.weight)


def test_other_families_work_by_the_same_door(tmp_path: Path) -> None:
    from transformers import ConvNextConfig, ConvNextForImageClassification, ViTConfig, ViTForImageClassification

    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 16,
        "patch_size": 8,
    }
    nets: dict[str, nn.Module] = {
        "vit": ViTForImageClassification(ViTConfig(**small)),
        "convnext": ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=16)),
    }
    for name, net in nets.items():
        net.save_pretrained(tmp_path / name)  # type: ignore[operator]
        opened = open_backbone(str(tmp_path / name), NAMES)
        assert opened.preprocessing.size == (16, 16)  # from the configuration: there is no preprocessor file
        assert torch.allclose(opened.head(opened.features(IMAGES)), opened.predict(IMAGES), atol=1e-5)


def test_evaluation_leaves_batchnorm_and_mode_alone(tmp_path: Path) -> None:
    opened = open_backbone(str(toys.resnet_folder(tmp_path / "net")), NAMES).train()
    before = {name: value.clone() for name, value in opened.state_dict().items()}
    opened.features(IMAGES)
    assert opened.training
    assert all(torch.equal(value, before[name]) for name, value in opened.state_dict().items())


def test_a_frozen_part_stays_frozen_after_evaluation() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3).eval(), nn.Dropout()).train()
    module[0].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, False, True]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"size": 32}, (32, 32)),
        ({"size": {"height": 20, "width": 24}}, (20, 24)),
        ({"size": {"shortest_edge": 40}}, (40, 40)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, (32, 32)),
        ({}, (16, 16)),
    ],
)
def test_sizes_of_every_age(values: dict[str, object], expected: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    assert Preprocessing.read(tmp_path, {"image_size": 16}).size == expected


@pytest.mark.parametrize(
    ("values", "fit", "near"),
    [
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}, "crop:0.875", True),  # ResNet of the hub
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.9}, "crop:0.9", True),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "crop_pct": 1.0}, "squash", True),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224},
            "crop:0.875",
            True,
        ),
        (  # DeiT's file squashes first; its figures were made with the aspect kept
            {"image_processor_type": "DeiTImageProcessor", "size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224},
            "crop:0.875",
            False,
        ),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}, None, True),
    ],
)
def test_the_crop_of_a_published_network_is_taken(values: dict[str, object], fit: str | None, near: bool, tmp_path: Path) -> None:
    """Against transformers' own processor on a photo of another shape; only the filter of the resizing differs."""
    from sklearn.datasets import load_sample_image
    from transformers import AutoImageProcessor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values | {"do_normalize": False, "resample": 3}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    read = Preprocessing.read(tmp_path, {"model_type": "resnet"})
    assert read.fit == fit
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((640, 424))  # where transformers and torchvision cut alike
    theirs = torch.as_tensor(AutoImageProcessor.from_pretrained(tmp_path)(photo, return_tensors="pt")["pixel_values"])[0]

    def apart(mode: str) -> float:
        return 255 * float((Fit(mode=mode, size=read.side).to_model(photo)[0] - theirs).abs().mean())

    assert theirs.shape[-1] == read.side
    assert (apart(fit or "squash") < 4) == near
    assert apart("pad") > 20


def test_a_file_without_a_size_asks_for_no_crop(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ConvNextImageProcessor"}))
    assert Preprocessing.read(tmp_path, {"image_size": 16}).fit is None


def test_the_side_of_the_training_goes_through_the_file(tmp_path: Path) -> None:
    rule = Preprocessing(height=32, width=32)
    assert (rule.side, replace(rule, seen=16).side) == (32, 16)
    replace(rule, seen=16).save(tmp_path)
    assert Preprocessing.read(tmp_path, {}).side == 16
    assert repr(Preprocessing.read(tmp_path, {})) == repr(rule)  # a checkpoint's key does not change with it
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "rediffuse_seen_size": "small"}))
    with pytest.raises(ModelError, match="rediffuse_seen_size is 'small', no number of pixels"):
        Preprocessing.read(tmp_path, {})


def test_preprocessing_is_resize_then_normalise() -> None:
    rule = Preprocessing(height=8, width=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    found = rule(torch.full((1, 3, 16, 16), 0.6))
    assert found.shape == (1, 3, 8, 8)
    assert torch.allclose(found[0, :, 0, 0], torch.tensor([1.0, 1.6, 0.3]))


@pytest.mark.parametrize(
    "values",
    [
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": True, "do_normalize": True},
        {"image_processor_type": "EfficientNetImageProcessor"},  # include_top is its default
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": True, "do_normalize": False},
        {"image_processor_type": "EfficientNetImageProcessor", "include_top": False},
        {"feature_extractor_type": "MobileViTFeatureExtractor", "do_flip_channel_order": False, "do_center_crop": False},
        {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
        {"image_processor_type": "ViTImageProcessor", "do_normalize": False, "image_mean": None, "image_std": None},
    ],
)
def test_values_are_those_of_transformers_processor(values: dict[str, object], tmp_path: Path) -> None:
    """One picture of the input's own size, so that nothing but the values is compared."""
    from transformers import AutoImageProcessor

    shape = {"size": {"height": 16, "width": 16}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.479, 0.473, 0.474]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(shape | values))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    picture = IMAGES[:1].mul(255).round().to(torch.uint8)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(list(picture), return_tensors="pt", input_data_format="channels_first")
    ours = Preprocessing.read(tmp_path, {})(picture / 255)
    assert torch.allclose(ours, torch.as_tensor(theirs["pixel_values"]).float(), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"do_flip_channel_order": True}, r"do_flip_channel_order \(blue, green, red\).* or choose another network"),
        ({"image_processor_type": "MobileViTImageProcessor"}, "do_flip_channel_order"),  # its default
        ({"do_rescale": False, "image_mean": [103.5, 116.3, 123.7]}, r"asks for do_rescale false.*image_mean and image_std on \[0, 1\]"),
        ({"rescale_factor": 1 / 127.5}, r"asks for rescale_factor 0\.0078.*rescale_factor 1/255"),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, "asks for rescale_offset true"),
    ],
)
def test_values_that_no_normalisation_makes_are_refused(values: dict[str, object], says: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 16} | values))
    with pytest.raises(ModelError, match=says):
        Preprocessing.read(tmp_path, {})


def test_folders_that_are_refused(tmp_path: Path) -> None:
    folder = toys.resnet_folder(tmp_path / "net")
    with pytest.raises(ModelError, match="there is no such folder"):
        open_backbone(str(tmp_path / "gone"), NAMES)
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_backbone(str(tmp_path), NAMES)
    weights = (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin; only safetensors"):
        open_backbone(str(folder), NAMES)
    weights.rename(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(ModelError, match="code of its own"):
        open_backbone(str(folder), NAMES)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "clap"}))
    with pytest.raises(ModelError, match="cannot be read as a transformers image classifier"):
        open_backbone(str(folder), NAMES)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        open_backbone(str(folder), NAMES)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"config.json of .* holds a list.*save_pretrained"):
        Classifier.load(folder)


def test_one_class_is_no_classifier() -> None:
    with pytest.raises(DataError, match="at least two classes, got 1: 'cat'"):
        open_backbone("scratch", ["cat"])


def test_a_name_that_the_hub_cannot_give() -> None:
    with pytest.raises(ModelError, match="no classifier 'nobody/nothing'"):
        open_backbone("nobody/nothing", NAMES)


def test_levels_are_named() -> None:
    assert parse_level("forty=runs/forty") == ("forty", "runs/forty")
    assert parse_level("resnet-64") == ("resnet-64", "resnet-64")
    for text in ("", "=x", "forty="):
        with pytest.raises(ConfigError, match="NAME=FOLDER"):
            parse_level(text)


@pytest.mark.parametrize(("level", "input_side"), [("cifar-resnet", 64), ("cifar-vit", 32)])
def test_networks_for_small_pictures_are_transformers_own(level: str, input_side: int, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    opened = open_backbone(level, NAMES, seed=1, size=32)
    assert opened.knows_nothing
    assert opened.preprocessing.size == (input_side, input_side)
    first, again, other = (open_backbone(level, NAMES, seed=seed, size=32).predict(images) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    opened.save(tmp_path / "model")
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "model")(
        list(images.mul(255).round().to(torch.uint8)), return_tensors="pt", input_data_format="channels_first"
    )
    with torch.no_grad():
        assert torch.allclose(theirs(**pixels).logits, opened.predict(images.mul(255).round() / 255), atol=2e-2)
    again_opened = Classifier.load(tmp_path / "model")
    assert torch.equal(again_opened.predict(images), opened.predict(images))
    assert not again_opened.knows_nothing


def test_the_small_resnet_sees_a_quarter_of_the_places_first() -> None:
    """What its first stage works on: 16x16 of a 32-pixel picture, enlarged first and halved twice."""
    opened = open_backbone("cifar-resnet", NAMES, size=32)
    sides: list[tuple[int, ...]] = []
    stages = opened.model.resnet.encoder.stages  # type: ignore[union-attr]
    for stage in stages:  # type: ignore[union-attr]
        stage.register_forward_hook(lambda _module, _inputs, output: sides.append(tuple(output.shape[1:])))
    opened.predict(torch.zeros(1, 3, 32, 32))
    assert sides == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]
    layers = [module for module in opened.modules() if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1)]
    assert len(layers) + 1 == 20


def test_random_weights_are_no_features() -> None:
    from rediffuse.training.linear import FeatureBank
    from rediffuse.training.pool import PixelBank

    with pytest.raises(ConfigError, match="features of random weights say nothing"):
        FeatureBank(open_backbone("cifar-vit", NAMES, size=16), PixelBank(16), flips=False)


def test_a_saved_classifier_is_on_the_disk_before_its_configuration_vouches_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = os.replace

    def replace(old: Path, new: Path) -> None:
        steps.append(new.name)
        real(old, new)

    def fsync(handle: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    open_backbone("scratch", ("a", "b"), size=16).save(tmp_path / "net")
    assert steps[1::3] == ["model.safetensors", "preprocessor_config.json", "config.json"]
    assert (steps[::3], steps[2::3]) == (["file"] * 3, ["folder"] * 3)
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == sorted(steps[1::3])
