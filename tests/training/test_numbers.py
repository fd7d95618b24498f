"""Gradients in half precision are those of float32, or half precision is refused."""

from __future__ import annotations

import pytest
import torch
from tests.training import robust_run
from torch import Tensor
from torch.nn import functional as F

from rediffuse.denoisers.precision import trunk_region
from rediffuse.errors import ConfigError
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.numbers import forward_numbers, wrong_in_bfloat16
from rediffuse.training.procedure import Procedure

NAMES = ("a", "b", "c")
CPU = torch.device("cpu")


def gradients(level: str, size: int, numbers: torch.dtype) -> list[Tensor]:
    net = open_backbone(level, NAMES, size=size).train()
    net.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(12, 3, size, size, generator=torch.Generator().manual_seed(0))
    with trunk_region(CPU, numbers):
        logits = net(images).float()
    F.cross_entropy(logits, torch.arange(12) % 3).backward()
    return [value.grad for value in net.parameters() if value.grad is not None]


@pytest.mark.parametrize(("level", "size"), [("scratch", 32), ("cifar-resnet", 16), ("cifar-vit", 16)])
def test_networks_that_are_let_through_have_right_gradients(level: str, size: int) -> None:
    assert forward_numbers(Procedure(dtype="bfloat16"), open_backbone(level, NAMES, size=size)) is torch.bfloat16
    exact, rough, again = (gradients(level, size, numbers) for numbers in (torch.float32, torch.bfloat16, torch.bfloat16))
    for one, other, third in zip(exact, rough, again, strict=True):
        assert float((one - other).norm()) < 0.5 * float(one.norm()) + 1e-3  # the same direction
        assert torch.equal(other, third)  # bit for bit, or no training could be continued


def test_maps_of_one_pixel_are_found() -> None:
    small, large = (open_backbone("scratch", NAMES, size=size) for size in (16, 32))
    assert wrong_in_bfloat16(large) is None
    name = wrong_in_bfloat16(small)
    assert name is not None
    assert small.get_submodule(name).stride == (2, 2)  # type: ignore[union-attr]
    assert forward_numbers(Procedure(dtype="auto"), small) is torch.float32
    assert forward_numbers(Procedure(), small) is torch.float32
    with pytest.raises(ConfigError, match=r"strides over maps of one pixel.*give larger pictures, or dtype float32"):
        forward_numbers(Procedure(dtype="bfloat16"), small)


def test_looking_changes_nothing() -> None:
    net: Classifier = open_backbone("scratch", NAMES, size=16).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    wrong_in_bfloat16(net)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in net.modules())
    assert wrong_in_bfloat16(robust_run.steady_net()) is None
