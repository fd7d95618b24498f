"""Small real things that the tests of this room and of the evaluation share: pictures with a rule in them, networks with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from rediffuse.data.types import Example, ImageSet


def striped(per_class: int, *, classes: int = 4, size: int = 16, seed: int = 0, random_labels: bool = False, start: int = 0) -> ImageSet:
    """Stripes whose direction is the class, with noise; with `random_labels` the labels mean nothing."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    examples = []
    for label in range(classes):
        angle = np.pi * label / classes
        for number in range(start, start + per_class):
            phase = generator.uniform(0, 2 * np.pi)
            wave = np.sin(2 * np.pi * 3 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            pixels = 128 + 80 * wave[..., None] + generator.normal(0, 12, (size, size, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            own = int(generator.integers(classes)) if random_labels else label
            examples.append(Example(id=f"{label}/{number:03d}.png", image=picture, label=own))
    names = [f"stripes {label}" for label in range(classes)]
    return ImageSet.of(examples, classes=names, name="stripes", flips=False)


def copies_of(images: ImageSet, copies: int, *, noise: float = 6.0, seed: int = 1) -> ImageSet:
    """Noisy copies, each naming its source."""
    generator = np.random.default_rng(seed)
    examples = []
    for example in images:
        for copy in range(copies):
            pixels = np.asarray(example.image, dtype=np.float64) + generator.normal(0, noise, (*example.image.size[::-1], 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            examples.append(Example(id=f"{example.id}#{copy}", image=picture, label=example.label, source=example.id, copy=copy))
    return ImageSet.of(examples, classes=images.classes, name="copies", flips=images.flips)


def resnet_folder(folder: Path, *, classes: int = 7, size: int = 16, seed: int = 0) -> Path:
    """A transformers ResNet with random weights, as a folder."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    from rediffuse.training.preprocessing import Preprocessing

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ResNetForImageClassification(config).save_pretrained(folder)
    Preprocessing(height=size, width=size).save(folder)
    return folder
