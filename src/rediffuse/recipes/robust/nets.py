"""The classifiers of the DiffAug experiment, by name and size of the purse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rediffuse.denoisers.precision import Float32Linear, trunk_region
from rediffuse.training.backbones import CIFAR_RESNET, CIFAR_VIT, open_backbone
from rediffuse.training.classifier import Classifier, seeded
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.presets import usual
from rediffuse.training.procedure import Procedure, steps_of
from rediffuse.training.settings import TrainSettings

SMALL = "resnet-14"
NETS = (SMALL, CIFAR_RESNET, CIFAR_VIT)
NETS_FOLDER = "nets"
SMALL_SHAPE = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [2, 2, 2]}
"""14 layers, 0.7 million weights, 62 MFLOP a picture: 1,000 training samples a second of one core with AVX512-BF16, three times what
`cifar-resnet` makes. Chosen by speed alone."""
ENLARGED = 2
"""The first layers of transformers' ResNet halve a picture twice."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """settings: how long and how fast; procedure: by which means."""

    settings: TrainSettings
    procedure: Procedure


class Lowered(nn.Module):
    """A trained net that computes its trunk in the numbers that it was trained in, and its head in float32; it is only asked from then on.

    Args:
        classifier: (B, 3, H, W) in [0, 1] -> logits.
        numbers: of the trunk.
    """

    def __init__(self, classifier: Classifier, numbers: torch.dtype) -> None:
        super().__init__()
        lower_head(classifier)
        fold_norms(classifier)
        self.classifier, self.numbers = classifier, numbers
        self.register_buffer("told", torch.zeros(0, dtype=numbers))  # what is kept of a net is told apart by its state

    def forward(self, images: Tensor) -> Tensor:
        with trunk_region(images.device, self.numbers):
            logits: Tensor = self.classifier(images)
        return logits.float()


def lower_head(classifier: Classifier) -> None:
    """Let the head stay in float32 inside a half precision region, so that no two classes tie by rounding."""
    for module in classifier.modules():
        for name, child in module.named_children():
            if child is classifier.head:
                exact = Float32Linear(child.in_features, child.out_features, child.bias is not None)
                exact.load_state_dict(child.state_dict())
                setattr(module, name, exact.to(classifier.device))
                return


def fold_norms(classifier: Classifier) -> None:
    """Let convolutions of transformers' ResNet do the work of the batch norms behind them, in place: 1.3 times as many pictures a second.

    What it says stays within rounding, in evaluation mode. Other nets stay as they are.
    """
    for layer in classifier.modules():
        convolution, norm = getattr(layer, "convolution", None), getattr(layer, "normalization", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layer.convolution = fuse_conv_bn_eval(convolution.eval(), norm.eval())
            layer.normalization = nn.Identity()


def open_net(name: str, classes: Sequence[str], seed: int, size: int = 32) -> Classifier:
    """A network with random weights that are a function of the seed."""
    if name != SMALL:
        return open_backbone(name, classes, seed=seed, size=size)
    from transformers import ResNetConfig, ResNetForImageClassification

    names = {"id2label": dict(enumerate(classes)), "label2id": {label: index for index, label in enumerate(classes)}}
    side = ENLARGED * size
    with seeded(SMALL, seed):
        model = ResNetForImageClassification(ResNetConfig(**SMALL_SHAPE, layer_type="basic", **names))
    classifier = Classifier(model, Preprocessing(height=side, width=side), classes)
    classifier.knows_nothing = True
    return classifier


def budget_of(name: str, epochs: float, pictures: int) -> Budget:
    """The usual means of a network from random weights; the same steps for every arm."""
    settings, procedure = usual(CIFAR_RESNET if name == SMALL else name)
    return Budget(settings=replace(settings, steps=steps_of(epochs, pictures, settings.batch)), procedure=procedure)
