"""DeepAugment on the fly: an identity until something is wrong with it, and what each thing that goes wrong does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rediffuse.errors import ConfigError, DataError
from rediffuse.methods import deepaugment
from rediffuse.methods.base import SeedDraw
from rediffuse.methods.deepaugment import ACTIVATIONS, FILTERS, FLAT, WEIGHTS, DeepAugment, Distortion, bases, draw_layers, run_layer

COUNT = 10
NEVER_TOUCH_THE_MEAN = {"drop_filters", "negate_filters", "swap_filters", "shrink", "shift"}


def waves(height: int = 16, width: int = 20) -> Tensor:
    """Smooth pictures with some noise, (COUNT, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(height).view(-1, 1) / 5, torch.arange(width) / 4
    phase = torch.rand(COUNT, 3, 1, 1, generator=generator) * 6
    return (
        0.5 + 0.3 * torch.sin(x + phase) * torch.cos(y + phase) + 0.05 * torch.randn(COUNT, 3, height, width, generator=generator)
    ).clamp(0, 1)


def draw(seed: int = 0) -> SeedDraw:
    return SeedDraw.of(COUNT, torch.Generator().manual_seed(seed))


def layer(seed: int = 0) -> tuple[Tensor, Distortion]:
    return draw_layers(draw(seed), 1)[0]


def test_bases_are_orthonormal_and_begin_with_the_mean_colours() -> None:
    found, _ = layer()
    assert found.shape == (COUNT, FILTERS, FILTERS)
    assert torch.allclose(found @ found.mT, torch.eye(FILTERS).expand(COUNT, -1, -1), atol=1e-5)
    red = torch.zeros(FILTERS)
    red[: FILTERS // 3] = 1 / 3
    assert torch.allclose(found[:, 0], red.expand(COUNT, -1), atol=1e-6)
    assert not torch.allclose(found[0, FLAT:], found[1, FLAT:], atol=0.1)


@pytest.mark.parametrize("size", [(16, 20), (3, 3), (32, 5)])
def test_the_undistorted_network_is_the_identity(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepaugment, "WEIGHTS", [lambda filters, chance, strength: filters] * len(WEIGHTS))
    monkeypatch.setattr(deepaugment, "ACTIVATIONS", [lambda maps, chance, strength: maps] * len(ACTIVATIONS))
    x = torch.randn(COUNT, 3, *size, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(run_layer(x, *layer(), 1.0), x, atol=2e-5)


@pytest.mark.parametrize("kind", [*WEIGHTS, *ACTIVATIONS], ids=lambda kind: kind.__name__)
def test_what_each_distortion_touches(kind: deepaugment.Distort) -> None:
    """A picture of one colour has nothing but mean colours; those are never dropped, negated, swapped, cut or moved."""
    basis, chance = layer(3)
    colours = torch.rand(COUNT, 3, 1, generator=torch.Generator().manual_seed(2))
    patches = colours.repeat_interleave(FILTERS // 3, 1)  # (N, P, 1)
    if kind in WEIGHTS:
        back = basis.mT @ kind(basis, chance, 1.0) @ patches
    else:
        maps = (basis @ patches).view(COUNT, FILTERS, 1, 1).expand(-1, -1, 6, 6)
        back = (basis.mT @ kind(maps, chance, 1.0).flatten(2))[:, :, :1]
    if kind.__name__ in NEVER_TOUCH_THE_MEAN:
        assert torch.allclose(back, patches, atol=1e-5)
    texture = torch.randn(COUNT, FILTERS, 6, 6, generator=torch.Generator().manual_seed(4))
    if kind in WEIGHTS:
        assert not torch.allclose(kind(basis, chance, 1.0), basis, atol=0.05)
    else:
        assert not torch.allclose(kind(texture, chance, 1.0), texture, atol=0.05)


def test_a_view_is_a_function_of_its_seed_however_a_batch_is_cut() -> None:
    images, method = waves(), DeepAugment()
    whole = method.apply(images, draw())
    order = [7, 2, 2, 0]
    assert torch.allclose(method.apply(images[order], draw().index(order)), whole[order], atol=1e-5)
    assert torch.equal(DeepAugment().apply(images, SeedDraw.from_rows(draw().to_rows())), whole)
    assert not torch.allclose(method.apply(images, draw(1)), whole, atol=0.05)
    assert method.apply(images[:0], draw().index([])).shape == (0, 3, 16, 20)


def test_views_are_pictures_and_stay_near_theirs() -> None:
    images = waves(32, 32)
    views = DeepAugment()(images)
    assert views.dtype == images.dtype
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    distances = [float((DeepAugment(strength).apply(images, draw()) - images).square().mean()) for strength in (0.1, 0.5, 1.0)]
    assert 0 < distances[0] < distances[1] < distances[2]
    own = torch.stack([torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(images, views, strict=True)])
    assert float(own.median()) > 0.7  # what the picture shows is still there


def test_the_call_leaves_torch_and_labels_alone() -> None:
    before = torch.get_rng_state()
    labels = torch.arange(COUNT)
    views, same = DeepAugment(layers=1).manual_seed(0)(waves(), labels)
    assert same is labels
    assert torch.equal(DeepAugment(layers=1).manual_seed(0)(waves()), views)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_caller_s_autocast_changes_nothing() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = DeepAugment().apply(waves(), draw())
    assert torch.equal(inside, DeepAugment().apply(waves(), draw()))


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\], got 1.5"):
        DeepAugment(1.5)
    with pytest.raises(ConfigError, match="layers must be at least 1, got 0"):
        DeepAugment(layers=0)
    with pytest.raises(DataError, match="at least 3 pixels"):
        DeepAugment().apply(torch.rand(COUNT, 3, 2, 8), draw())
    with pytest.raises(ConfigError, match="4 images for 10 draws"):
        DeepAugment().apply(waves()[:4], draw())
    assert bases(torch.randn(0, FILTERS, FILTERS)).shape == (0, FILTERS, FILTERS)
