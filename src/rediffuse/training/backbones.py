"""Image classifiers: small networks from random weights, the bundled features, any transformers image classifier by folder or hub name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rediffuse.errors import ConfigError, DataError
from rediffuse.training.augment import generator_of
from rediffuse.training.classifier import Classifier, pretrained, seeded
from rediffuse.training.model_folders import model_folder, read_config
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.trained_on import read_learned

SCRATCH = "scratch"
SCRATCH_WIDTHS = (32, 64, 128, 256)
"""Channels of the stages of the network that starts from random weights: 20 million multiplications a 64-pixel picture."""
CIFAR_RESNET, CIFAR_VIT = "cifar-resnet", "cifar-vit"
FROM_RANDOM = (SCRATCH, CIFAR_RESNET, CIFAR_VIT)
"""Levels that know nothing; all others bring weights."""
CIFAR_RESNET_SHAPE: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [3, 3, 3]}
"""20 layers, 1.1 million weights, 45 million multiplications a 32-pixel picture."""
CIFAR_ENLARGED = 2
"""The first layers of transformers' ResNet halve a picture twice; a small one is enlarged first, so that its first stage sees 16x16."""
CIFAR_VIT_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
"""1.2 million weights, 80 million multiplications a 32-pixel picture."""
CIFAR_PATCHES = 8
"""Patches along a side."""


def open_backbone(level: str, classes: Sequence[str], *, seed: int = 0, size: int = 64) -> Classifier:
    """A classifier of these classes that has not learned them yet.

    Args:
        level: from random weights: "scratch" (a small ResNet for a handful of photos), "cifar-resnet" (20 layers) or "cifar-vit" (6
            layers), both for tens of thousands of small ones; a bundled name ("resnet-64"), a transformers folder, or a hub name (NAME
            or NAME@REVISION) such as microsoft/resnet-50, google/vit-base-patch16-224 or facebook/deit-base-patch16-224.
        classes: names, in label order.
        seed: of the random weights: all of them from scratch, else the head's.
        size: side of the pictures in pixels; the input of a network from scratch.
    Raises:
        ModelError: a name or folder that is no image classifier in safetensors.
    """
    if len(classes) < 2:
        raise DataError(f"a classifier needs at least two classes, got {len(classes)}: {', '.join(map(repr, classes)) or 'none'}")
    if level in FROM_RANDOM:
        return _from_random(level, classes, seed, size)
    folder = model_folder(level)
    config = read_config(folder)
    classifier = Classifier(pretrained(folder, classes), Preprocessing.read(folder, config), classes)
    classifier.learned = read_learned(folder)
    start_head(classifier.head, seed)
    return classifier


def start_head(head: nn.Linear, seed: int) -> None:
    """Small random weights that are a function of the seed."""
    generator = generator_of("head", seed)
    with torch.no_grad():
        head.weight.copy_(0.01 * torch.randn(head.weight.shape, generator=generator))
        if head.bias is not None:
            head.bias.zero_()


def _from_random(level: str, classes: Sequence[str], seed: int, size: int) -> Classifier:
    """Own configurations of transformers' classes, so that `AutoModelForImageClassification` reads what is saved."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    names: dict[str, Any] = {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: index for index, name in enumerate(classes)},
    }
    side = size
    with seeded(level, seed):
        if level == CIFAR_VIT:
            patch = max(1, size // CIFAR_PATCHES)
            side = patch * CIFAR_PATCHES
            model = ViTForImageClassification(ViTConfig(**CIFAR_VIT_SHAPE, image_size=side, patch_size=patch, **names))
        elif level == CIFAR_RESNET:
            side = CIFAR_ENLARGED * size
            model = ResNetForImageClassification(ResNetConfig(**CIFAR_RESNET_SHAPE, layer_type="basic", **names))
        else:
            shape: dict[str, Any] = {"embedding_size": SCRATCH_WIDTHS[0], "hidden_sizes": list(SCRATCH_WIDTHS)}
            shape["depths"] = [1] * len(SCRATCH_WIDTHS)
            model = ResNetForImageClassification(ResNetConfig(**shape, layer_type="basic", **names))
    classifier = Classifier(model, Preprocessing(height=side, width=side), classes)
    classifier.knows_nothing = True
    return classifier


def parse_level(text: str) -> tuple[str, str]:
    """Its name in tables and where its weights lie: "forty=runs/forty" to ("forty", "runs/forty"), a bare word to itself twice."""
    name, sign, where = text.partition("=")
    if not name or (sign and not where):
        raise ConfigError(f"a level is NAME or NAME=FOLDER, got {text!r}")
    return name, where or name
