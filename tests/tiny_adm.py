"""Small networks of guided diffusion's kind with random weights, and what the published program makes of them.

`OUTPUTS` holds that program's numbers. To make them again from a checkout of it:
REDIFFUSE_GUIDED_DIFFUSION=CHECKOUT PYTHONPATH=src:. python -m tests.tiny_adm
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rediffuse.denoisers.adm_network import AdmNetwork, Architecture, Heads

CHECKOUT = "REDIFFUSE_GUIDED_DIFFUSION"
OUTPUTS = Path(__file__).parent / "denoisers" / "fixtures" / "adm_outputs.safetensors"
SMALL = {"channels": 32, "multipliers": (1, 2), "layers": 1, "attention": (1,)}
# One for each way in which the published networks differ: head order, classes, resampling, how the embedding enters, the variance.
NETWORKS: Mapping[str, tuple[Architecture, Heads]] = {
    "like_256_uncond": (Architecture(**SMALL), Heads(width=16)),
    "like_64": (Architecture(**SMALL | {"layers": 2, "classes": 10}), Heads(width=32, new_order=True)),
    "like_cifar10": (Architecture(**SMALL | {"multipliers": (1, 2, 2), "residual_resampling": False}), Heads(number=4)),
    "like_lsun": (Architecture(**SMALL | {"residual_resampling": False, "scale_shift": False, "outputs": 3}), Heads(number=1)),
}


def uniform(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """In [-1, 1): the same on every machine, which normal numbers are not."""
    return 2 * torch.rand(shape, generator=generator) - 1


def random_weights(shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, Tensor]:
    """Weights under which every layer matters and numbers keep their size; a function of names and shapes alone."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in sorted(shapes.items()):
        value = uniform(shape, generator)
        if len(shape) > 1:
            weights[name] = value * (3 / prod(shape[1:])) ** 0.5
        else:
            weights[name] = value * 0.2 + float(name.endswith(("0.weight", "norm.weight")))
    return weights


def shapes_of(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def tiny_adm(architecture: Architecture, heads: Heads) -> AdmNetwork:
    """In float32, its weights a function of the architecture."""
    with torch.device("meta"):
        network = AdmNetwork(architecture, heads)
    network.load_state_dict(random_weights(shapes_of(network)), assign=True)
    return network


def inputs(architecture: Architecture, side: int = 16) -> tuple[Tensor, Tensor, Tensor | None]:
    """x (2, 3, side, side), t (2,) one whole and one not, labels."""
    x = 2 * uniform((2, 3, side, side), torch.Generator().manual_seed(1))
    labels = torch.tensor([3, 9]) if architecture.classes else None
    return x, torch.tensor([3.0, 871.25]), labels


def published_network(checkout: str, architecture: Architecture, heads: Heads) -> Any:
    """The published class, from a checkout of the published program."""
    sys.path.insert(0, checkout)
    try:
        module = importlib.import_module("guided_diffusion.unet")
    finally:
        sys.path.remove(checkout)
    return module.UNetModel(
        image_size=64,
        in_channels=3,
        model_channels=architecture.channels,
        out_channels=architecture.outputs,
        num_res_blocks=architecture.layers,
        attention_resolutions=tuple(2**level for level in architecture.attention),
        channel_mult=architecture.multipliers,
        num_classes=architecture.classes,
        num_heads=heads.number or -1,
        num_head_channels=heads.width or -1,
        use_scale_shift_norm=architecture.scale_shift,
        resblock_updown=architecture.residual_resampling,
        use_new_attention_order=heads.new_order,
    ).eval()


def published_output(checkout: str, architecture: Architecture, heads: Heads, side: int = 16) -> Tensor:
    """What the published program puts out for `random_weights` and `inputs`."""
    network = published_network(checkout, architecture, heads)
    network.load_state_dict(random_weights(shapes_of(network)), assign=True)
    x, t, labels = inputs(architecture, side)
    with torch.no_grad():
        output: Tensor = network(x, t, labels)
    return output


if __name__ == "__main__":
    OUTPUTS.parent.mkdir(exist_ok=True)
    save_file({name: published_output(os.environ[CHECKOUT], *parts) for name, parts in NETWORKS.items()}, OUTPUTS)
