"""The one-step view in the hands of its users: inside other modules, in workers, from settings, with bad input."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tests.methods.test_diffaug import network, oracle, pictures, stream
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import ConfigError, DataError
from rediffuse.methods import find_method, from_settings
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.deepaugment import DeepAugment
from rediffuse.methods.diffaug import DiffAug, DiffAugDraw
from rediffuse.methods.noise_times import LogNormal, Range, Uniform


def test_forward_takes_batches_images_and_company():
    one, two = (DiffAug(network()).manual_seed(3) for _ in range(2))
    images, target = pictures(3), {"boxes": "any", "label": 2}
    views, same = one(images, target)
    assert same is target
    assert torch.equal(views, two(images))
    assert one(images[0]).shape == (3, 4, 4)
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1


def test_the_frozen_denoiser_is_no_part_of_a_model_that_holds_it():
    model = network()
    held = nn.Sequential(DiffAug(model), nn.Conv2d(3, 2, 1))
    assert set(held.state_dict()) == {"1.weight", "1.bias"}
    assert len(list(held.parameters())) == 2
    assert len(list(held.modules())) == 3
    held.train()
    assert not model.training
    held.load_state_dict(nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 1)).state_dict())
    held(pictures(2)).sum().backward()
    assert held[1].weight.grad is not None
    twin = pickle.loads(pickle.dumps(held))  # noqa: S301  (as a spawned worker gets it)
    assert torch.equal(twin[0].manual_seed(1)(pictures(2)), held[0].manual_seed(1)(pictures(2)))
    assert copy.deepcopy(held)[0].denoiser is not model


@pytest.mark.parametrize("method", [DiffAug(network()), AugMix(3), DeepAugment()])
def test_models_that_hold_one_are_initialised_as_others_are(method: nn.Module):
    seen: list[nn.Module] = []
    held = nn.Sequential(method, nn.Conv2d(3, 2, 1))
    assert held.apply(seen.append) is held
    assert seen == [method, held[1], held]  # the frozen denoiser is not among them
    with pytest.raises(TypeError, match="draw"):
        method.apply(pictures(2))


def test_the_denoiser_follows_to_a_device_and_keeps_its_numbers():
    model = network(torch.bfloat16)
    before = {name: value.dtype for name, value in model.named_parameters()}
    held = nn.Sequential(DiffAug(model)).half().to(torch.float64)
    assert {name: value.dtype for name, value in model.named_parameters()} == before
    assert set(before.values()) == {torch.bfloat16, torch.float32}
    held.to("meta")
    assert {value.device.type for value in model.parameters()} == {"meta"}


def test_pieces_of_the_bundled_model_are_the_whole_within_rounding():
    diffaug = DiffAug(load("cifar10-32", device="cpu", dtype="float32"), per_sample=True)
    t = torch.tensor([20, 300, 500, 764, 900, 984])
    images, draw = pictures(6, size=32), diffaug.draw_at(t, stream(4))
    whole = diffaug.apply(images, draw)
    apart = torch.cat([diffaug.apply(images[k : k + 1], draw.index([k])) for k in range(6)])
    worst = (whole - apart).abs().amax((1, 2, 3))
    assert (worst <= 5e-6 * (1 + diffaug.denoiser.schedule.ratio[t])).all(), worst


class Transformed(Dataset[Any]):
    def __init__(self, transform: nn.Module) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(torch.full((3, 4, 4), 0.5))


class Far(GaussianMixtureDenoiser):
    """Says that it is on an accelerator."""

    device = torch.device("cuda", 0)  # type: ignore[assignment]


def test_a_worker_cannot_use_an_accelerator_s_denoiser():
    near = oracle()
    far = Far(near.means, near.variances, torch.ones(3), near.schedule)
    with pytest.raises(ConfigError, match="DataLoader worker cannot use") as caught:
        list(DataLoader(Transformed(DiffAug(far)), num_workers=1))
    assert "for images, labels in loader:\n        views, labels = diffaug(images, labels)" in str(caught.value)
    views = torch.cat(list(DataLoader(Transformed(DiffAug(near).manual_seed(0)), num_workers=2)))
    assert len({float(view.sum()) for view in views}) == 4  # on the processor it works, and each worker draws for itself


@pytest.mark.gpu
def test_on_an_accelerator():
    images = pictures(8)
    method = DiffAug(network().to("cuda"), fraction=0.5, per_sample=True)
    draw = method.draw(8, stream(), size=4)
    torch.testing.assert_close(method.apply(images, draw).cpu(), DiffAug(network()).apply(images, draw), atol=1e-4, rtol=0)
    batch = DiffAug(network().to("cuda"))
    draw = batch.draw(8, stream(), size=4)
    torch.testing.assert_close(batch.apply(images[2:5], draw.index(slice(2, 5))), batch.apply(images, draw)[2:5], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="DataLoader worker cannot use"):
        list(DataLoader(Transformed(batch), num_workers=1))


def test_settings_make_the_method_again():
    import json

    method = DiffAug(oracle(), LogNormal(mean=-1, stratified=True), 0.5, None, per_sample=True)
    again = from_settings(oracle(), json.loads(json.dumps(method.settings())))
    assert isinstance(again, DiffAug)
    assert again.settings() == method.settings()
    assert "log_normal" in repr(method)
    assert find_method("diffaug") is DiffAug
    images = pictures(6)
    draw = method.draw(6, stream(1))
    assert torch.equal(again.apply(images, draw), method.apply(images, draw))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (2 * pictures(2) - 1, r"lie in \[0, 1\], got values from -0\.9"),
        ((255 * pictures(2)).to(torch.uint8), r"float in \[0, 1\], got torch.uint8"),
        (torch.full((1, 3, 4, 4), float("nan")), "from nan to nan"),
        (pictures(2)[:, :1], r"3 channels .*, got shape \(2, 1, 4, 4\); for grey"),
        (pictures(2, size=6), "multiples of 4 for this model, got 6 x 6"),
    ],
)
def test_wrong_images_are_named(images: Tensor, words: str):
    with pytest.raises(DataError, match=words):
        DiffAug(network(multiple_of=4))(images)


def test_wrong_settings_are_named(mixture: GaussianMixtureDenoiser):
    with pytest.raises(ConfigError, match="unconditional RGB model in pixel space, got a conditional GaussianMixtureDenoiser"):
        DiffAug(mixture)
    latent = oracle()
    latent.factor = 2
    with pytest.raises(ConfigError, match="got a latent"):
        DiffAug(latent)
    with pytest.raises(ConfigError, match=r"in \[0, 1\], got 1\.5"):
        DiffAug(oracle(), fraction=1.5)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        DiffAug(oracle(), chunk=0)
    with pytest.raises(ConfigError, match="noise times 0 to 999, got 4000"):
        DiffAug(oracle(), Range(low=0, high=4000))
    with pytest.raises(ConfigError, match="say at which size"):
        DiffAug(network(), Uniform()).draw(2, stream())
    with pytest.raises(DataError, match="takes tensors"):
        DiffAug(oracle())([1, 2])
    method = DiffAug(oracle())
    with pytest.raises(ConfigError, match="3 images for 2 draws"):
        method.apply(pictures(3), method.draw(2, stream()))
    with pytest.raises(ConfigError, match="noise time 1000 is outside"):
        method.apply(pictures(1), method.draw_at(torch.tensor([1000]), stream()))
    ones = torch.ones(1, dtype=torch.int64)
    with pytest.raises(ConfigError, match="places below among"):
        DiffAugDraw(t=ones, seed=ones, among=ones, place=ones)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cifar10-32",), r"DiffAug takes a denoiser as rediffuse\.load gives it, .* got 'cifar10-32'"),
        ((oracle(), "uniform"), r"times is a law of rediffuse\.methods\.noise_times, .* got 'uniform'"),
    ],
)
def test_names_in_the_place_of_things(arguments: tuple[Any, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        DiffAug(*arguments)
