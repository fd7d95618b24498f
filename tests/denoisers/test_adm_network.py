"""Our module against the published program, and against the published sizes and costs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny_adm import CHECKOUT, NETWORKS, OUTPUTS, inputs, published_output, tiny_adm
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.denoisers.adm import PUBLISHED
from rediffuse.denoisers.adm_network import AdmNetwork, Architecture, Heads
from rediffuse.errors import ModelError

FULL_SIZE = ("256x256_diffusion_uncond", "64x64_diffusion", "cifar10_uncond_50M_500K")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_published_program_puts_out_the_same(name: str) -> None:
    architecture, heads = NETWORKS[name]
    x, t, labels = inputs(architecture)
    published = load_file(OUTPUTS)[name]
    with torch.no_grad():
        output = tiny_adm(architecture, heads)(x, t, labels)
        other = tiny_adm(architecture, replace(heads, new_order=not heads.new_order))(x, t, labels)
    assert (output - published).abs().max() < 1e-5
    if heads.of(architecture.widths[-1]) > 1:  # the order of heads is nowhere in the shapes
        assert (other - published).abs().max() > 0.01


@pytest.mark.parametrize("name", ["adm_uncond_like_256", "adm_classcond_like_64", "iddpm_like_cifar"])
def test_larger_published_numbers(name: str, root: Path) -> None:
    folder = root.parent / "shared" / "fixtures"
    if not (folder / "networks.json").is_file():
        pytest.skip("no ../shared/fixtures beside this checkout")  # 3 to 5 MB each: too large to carry
    flags, tensors = json.loads((folder / "networks.json").read_text())[name], load_file(folder / f"{name}.safetensors")
    architecture = Architecture(
        channels=flags["model_channels"],
        multipliers=tuple(flags["channel_mult"]),
        layers=flags["num_res_blocks"],
        attention=tuple(step.bit_length() - 1 for step in flags["attention_resolutions"]),
        classes=flags.get("num_classes"),
        outputs=flags["out_channels"],
        scale_shift=flags["use_scale_shift_norm"],
        residual_resampling=flags["resblock_updown"],
    )
    heads = Heads(number=flags.get("num_heads"), width=flags.get("num_head_channels"), new_order=flags["use_new_attention_order"])
    network = AdmNetwork(architecture, heads)
    weights = {key.removeprefix("state_dict."): value for key, value in tensors.items() if key.startswith("state_dict.")}
    network.load_state_dict(weights, strict=True)
    with torch.no_grad():
        output = network(tensors["x"], tensors["t"], tensors.get("y"))
    assert (output - tensors["output"]).abs().max() < 1e-5


@pytest.mark.skipif(CHECKOUT not in os.environ, reason=f"opt-in: {CHECKOUT} names a checkout of guided-diffusion")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_published_program_at_full_size(name: str) -> None:
    architecture, heads = PUBLISHED[name].architecture, PUBLISHED[name].settings.heads
    published = published_output(os.environ[CHECKOUT], architecture, heads, side=64)
    x, t, labels = inputs(architecture, side=64)
    with torch.no_grad():
        output = tiny_adm(architecture, heads)(x, t, labels)
    assert (output - published).abs().max() < 1e-4 * published.abs().max()


@lru_cache(maxsize=1)
def empty_network(name: str) -> AdmNetwork:
    with torch.device("meta"):
        return AdmNetwork(PUBLISHED[name].architecture, PUBLISHED[name].settings.heads)


@pytest.mark.parametrize(
    ("name", "side", "millions", "gigaflop"),
    [
        ("256x256_diffusion_uncond", 224, 552.8, 1713),
        ("256x256_diffusion_uncond", 256, 552.8, 2240),
        ("256x256_diffusion_uncond", 128, 552.8, 558),
        ("128x128_diffusion", 128, 421.5, 614),
        ("64x64_diffusion", 64, 295.9, 219),
        ("cifar10_uncond_50M_500K", 32, 52.5, 16.8),
    ],
)
def test_sizes_and_costs_are_those_of_the_published_networks(name: str, side: int, millions: float, gigaflop: float) -> None:
    """1 multiply-add = 2 FLOP."""
    network = empty_network(name)
    x, t = torch.empty(1, 3, side, side, device="meta"), torch.empty(1, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x, t, t)
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflop, abs=0.5 if gigaflop > 100 else 0.05)


def input_gradient(network: AdmNetwork) -> tuple[Tensor, int]:
    """d (sum of squares) / dx, and how many numbers were kept for it."""
    x, t, labels = inputs(network.architecture)
    x.requires_grad_(True)
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() if not value.requires_grad or value.grad_fn else 0
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        output = network(x, t, labels)
    (gradient,) = torch.autograd.grad(output.square().sum(), x)
    return gradient, sum(kept.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_the_input_of_a_frozen_network_with_and_without_checkpointing(name: str) -> None:
    network = tiny_adm(*NETWORKS[name]).eval().requires_grad_(False)
    plain, all_kept = input_gradient(network)
    network.checkpointing = True
    again, few_kept = input_gradient(network)
    assert plain.abs().max() > 0.01
    torch.testing.assert_close(again, plain)
    assert few_kept < all_kept / 2
    assert all(value.grad is None for value in network.parameters())


@pytest.mark.parametrize("name", ["like_64", "like_cifar10"])
def test_rows_do_not_see_each_other_and_sides_need_not_be_equal(name: str) -> None:
    architecture, heads = NETWORKS[name]
    network = tiny_adm(architecture, heads)
    x, t, labels = inputs(architecture)
    x = torch.cat([x, x], dim=3)[..., :24]
    with torch.no_grad():
        whole = network(x, t, labels)
        rows = torch.cat([network(x[i : i + 1], t[i : i + 1], None if labels is None else labels[i : i + 1]) for i in range(2)])
    assert whole.shape == (2, 6, 16, 24)
    torch.testing.assert_close(rows, whole, rtol=0, atol=1e-5)


def test_a_width_that_is_no_multiple_of_the_base_is_met() -> None:
    assert Architecture(channels=352, multipliers=(1, 480 / 352), layers=1, attention=()).widths == (352, 480)  # 352 * (480 / 352) < 480


def test_widths_and_heads_that_cannot_be() -> None:
    with pytest.raises(ModelError, match=r"multiples of 32.*\(32, 48\)"):
        Architecture(channels=32, multipliers=(1, 1.5), layers=1, attention=())
    for heads in (Heads(number=3), Heads(width=48)):
        with pytest.raises(ModelError, match="64 channels cannot be cut"):
            heads.of(64)
