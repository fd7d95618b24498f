"""AugMix against its own definition in Pillow, one picture at a time, and its laws against theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.methods.test_picture_operations import PILLOW, from_pillow, pictures, to_pillow
from torch import Tensor

from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.base import SeedDraw
from rediffuse.methods.picture_operations import ALL_OPERATIONS

IMAGES = pictures(20, 20) / 255


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(method: AugMix, image: Tensor, chains: object, row: int) -> Tensor:
    """Algorithm 1 of the paper for one picture, its operations in Pillow."""
    names = list(ALL_OPERATIONS)
    mixture = torch.zeros_like(image, dtype=torch.float64)
    for chain in range(method.width):
        picture = to_pillow(image * 255)
        for place, operation in enumerate(chains.operation[row, chain].tolist()):  # type: ignore[attr-defined]
            if operation >= 0:
                level, sign = (float(part[row, chain, place]) for part in (chains.level, chains.sign))  # type: ignore[attr-defined]
                picture = PILLOW[names[operation]](picture, level, int(sign))
        mixture += chains.weight[row, chain] * from_pillow(picture).double() / 255  # type: ignore[attr-defined]
    share = chains.share[row]  # type: ignore[attr-defined]
    return (1 - share) * image.double() + share * mixture


@pytest.mark.parametrize("options", [{}, {"severity": 1.0, "width": 2, "depth": 2}, {"severity": 9.0, "all_ops": True, "alpha": 0.4}])
def test_a_view_is_algorithm_1_in_pillow(options: dict[str, object]) -> None:
    method = AugMix(**options)  # type: ignore[arg-type]
    draw = method.draw(len(IMAGES), stream(3))
    chains = method.chains(draw)
    views = method.apply(IMAGES, draw)
    for row, image in enumerate(IMAGES):
        error = (views[row].double() - by_hand(method, image, chains, row)).abs()
        assert float(error.mean()) < 2e-4, row  # single pixels may differ by a rounding, which later operations enlarge
    assert float((views - IMAGES).abs().mean()) > 0.01
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_the_laws_are_those_of_the_paper() -> None:
    method = AugMix(severity=3.0, alpha=0.7)
    chains = method.chains(method.draw(4000, stream()))
    flat = chains.operation.flatten()
    drawn = flat[flat >= 0]
    assert stats.chisquare(torch.bincount(drawn, minlength=9).numpy()).pvalue > 1e-4
    lengths = (chains.operation >= 0).sum(2).flatten()
    assert stats.chisquare(torch.bincount(lengths, minlength=4)[1:].numpy()).pvalue > 1e-4
    assert bool((chains.operation[:, :, 0] >= 0).all())
    assert stats.kstest(chains.level.flatten().numpy(), stats.uniform(0.1, 2.9).cdf).pvalue > 1e-4
    assert stats.kstest(chains.share.numpy(), stats.beta(0.7, 0.7).cdf).pvalue > 1e-4
    assert stats.kstest(chains.weight[:, 1].numpy(), stats.beta(0.7, 1.4).cdf).pvalue > 1e-4  # a part of a Dirichlet(.7, .7, .7)
    assert torch.allclose(chains.weight.sum(1), torch.ones(4000, dtype=torch.float64))
    assert abs(float(chains.sign.mean())) < 5 / np.sqrt(36000)
    assert len(AugMix(all_ops=True).operations) == 13
    least = AugMix(alpha=0.01)
    assert bool(least.chains(least.draw(20_000, stream())).weight.isfinite().all())


def test_a_view_is_a_function_of_its_seed_however_a_batch_is_cut() -> None:
    method = AugMix()
    draw = method.draw(len(IMAGES), stream(1))
    whole = method.apply(IMAGES, draw)
    order = [4, 0, 5, 0]
    assert torch.equal(method.apply(IMAGES[order], draw.index(order)), whole[order])
    again = SeedDraw.from_rows(draw.to_rows())
    assert torch.equal(AugMix().apply(IMAGES, again), whole)
    assert not torch.equal(method.apply(IMAGES, method.draw(len(IMAGES), stream(2))), whole)
    assert method.apply(IMAGES[:0], draw.index([])).shape == (0, 3, 20, 20)


def test_the_call_leaves_torch_and_labels_alone() -> None:
    before = torch.get_rng_state()
    labels = torch.arange(len(IMAGES))
    views, same = AugMix().manual_seed(0)(IMAGES, labels)
    assert same is labels
    assert views.shape == IMAGES.shape
    assert torch.equal(AugMix().manual_seed(0)(IMAGES), views)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_caller_s_autocast_changes_nothing() -> None:
    method = AugMix(all_ops=True)
    draw = method.draw(len(IMAGES), stream())
    assert bool((method.chains(draw).operation == list(ALL_OPERATIONS).index("sharpness")).any())  # the one with a convolution
    with torch.autocast("cpu", torch.bfloat16):
        inside = method.apply(IMAGES, draw)
    assert torch.equal(inside, method.apply(IMAGES, draw))


def test_mistakes_are_named() -> None:
    for options, said in (
        ({"severity": 10.0}, r"severity must be in \[0.1, 10\), got 10"),
        ({"width": 0}, "width and depth must be at least 1, got 0"),
        ({"depth": 0}, "depth None draws it"),
        ({"alpha": 0.001}, r"alpha must be a number of at least 0\.01, got 0\.001"),
    ):
        with pytest.raises(ConfigError, match=said):
            AugMix(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed must not be negative, got -1"):
        SeedDraw(seed=torch.tensor([-1]))
    method = AugMix()
    with pytest.raises(ConfigError, match="6 images for 2 draws"):
        method.apply(IMAGES, method.draw(2))
    with pytest.raises(DataError, match=r"from \[-1, 1\] use"):
        method.apply(IMAGES - 1, method.draw(6))
