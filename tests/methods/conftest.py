"""A denoiser that is exactly right, and one that is a network."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_stable

from rediffuse.denoisers.base import Denoiser, NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import scaled_linear_betas

CLASSES = ("cat", "dog", "red bird")


@pytest.fixture
def mixture() -> GaussianMixtureDenoiser:
    """One component a class of CLASSES, by the class's name, by "a photo" (the first) and by learned words."""
    means = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompts = {f"a photo of a {name}": place for place, name in enumerate(CLASSES)} | {"a photo": 0}
    prompts |= {f"a photo of a <{name.replace(' ', '_')}>": place for place, name in enumerate(CLASSES)}
    schedule = NoiseSchedule.from_betas(scaled_linear_betas())
    return GaussianMixtureDenoiser(means, torch.tensor([0.05, 0.1, 0.2]), torch.ones(3), schedule, prompts)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    """A whole Stable Diffusion of a few hundred kilobytes, images of 16 pixels."""
    from rediffuse.denoisers.load import load

    return load(tiny_stable(tmp_path_factory.mktemp("tiny") / "model"), device="cpu", dtype="float32")


@pytest.fixture
def images() -> torch.Tensor:
    """(32, 3, 16, 16) in [0, 1]."""
    return torch.rand((32, 3, 16, 16), generator=torch.Generator().manual_seed(1))
