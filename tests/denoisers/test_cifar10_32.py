"""The bundled pixel model: in the package, within its size, and worth more than the best filter on photos it has never seen."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.load import bundled, load
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.methods.diffaug import DiffAug

FOLDER = Path(str(files("rediffuse"))) / "weights" / "cifar10-32"


@pytest.fixture(scope="module")
def model() -> PixelDenoiser:
    found = load("cifar10-32", device="cpu", dtype="float32")
    assert isinstance(found, PixelDenoiser)
    return found


@pytest.fixture(scope="module")
def squares() -> Tensor:
    """Pieces of scikit-learn's two photos at an eighth of their size, (N, 3, 32, 32) uint8."""
    from sklearn.datasets import load_sample_images

    found = []
    for photo in load_sample_images().images:
        small = torch.nn.functional.avg_pool2d(torch.tensor(photo).permute(2, 0, 1).float()[None], 4)[0]
        found.append(small.unfold(1, 32, 16).unfold(2, 32, 16).permute(1, 2, 0, 3, 4).flatten(0, 1))
    return torch.cat(found).round().to(torch.uint8)


def test_it_is_in_the_package_and_small() -> None:
    assert "cifar10-32" in bundled()
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 16 * 2**20
    assert {file.suffix for file in FOLDER.rglob("*") if file.is_file()} <= {".json", ".safetensors", ".md"}
    assert "held-out" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_bundled_folder_is_small() -> None:
    for folder in (child for child in FOLDER.parent.iterdir() if child.is_dir()):
        assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 16 * 2**20, folder.name


def test_its_schedule_and_size(model: PixelDenoiser) -> None:
    bar = np.cumprod(1 - np.asarray(linear_betas(), dtype=np.float64))
    assert np.allclose(model.schedule.alpha.double().numpy() ** 2, bar, atol=1e-6)
    assert (model.size, model.channels, model.conditional, model.prediction) == (32, 3, False, "epsilon")
    assert sum(value.numel() for value in model.parameters()) <= 8_000_000


@pytest.mark.parametrize("sigma", [0.075, 0.177, 0.377])
def test_it_beats_the_filter_fitted_to_the_very_photos(model: PixelDenoiser, squares: Tensor, sigma: float) -> None:
    x0 = squares.float() / 127.5 - 1
    t = torch.full((len(x0),), int((model.schedule.ratio - sigma).abs().argmin()))
    x_t = model.schedule.add_noise(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)), t)
    wiener = WienerDenoiser.fit(squares, model.schedule)
    with torch.no_grad():
        ours, filtered = (float((of(x_t, t) - x0).square().mean()) for of in (model, wiener))
    assert ours < 0.9 * filtered


def test_its_views_are_pictures(model: PixelDenoiser, squares: Tensor) -> None:
    images = squares[:8].float() / 255
    method = DiffAug(model)
    views = method.apply(images, method.draw(8, torch.Generator().manual_seed(0)))
    assert views.shape == images.shape
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    assert 1e-4 < float((views - images).square().mean()) < 0.1


def test_its_facts_are_those_of_these_weights(model: PixelDenoiser) -> None:
    facts = json.loads((FOLDER / "rediffuse.json").read_text(encoding="utf-8"))
    assert model.spec is not None
    assert facts["weights_hash"] == model.spec.weights_hash
    assert all(row["model"] > row["noisy"] for row in facts["levels"])
