"""Every example of docs/diffaug.md runs as it stands on the page, in at most five lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.training.toys import striped
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import rediffuse as rd
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.deepaugment import DeepAugment
from rediffuse.methods.noise_times import levels
from rediffuse.training import objectives
from rediffuse.training.objectives import Extra

PAGE = (Path(__file__).parents[2] / "docs" / "diffaug.md").read_text()
SECTIONS = dict(re.findall(r"^##? ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
EXAMPLES = {title: match[1] for title, body in SECTIONS.items() if (match := re.search(r"```python\n(.*?)```", body, flags=re.DOTALL))}
FIRST = next(iter(EXAMPLES))
RUN_BELOW = {
    FIRST, "In a loop", "In a collate function", "With torchvision", "With kornia", "Training with views", "At test time", "How much noise",
    "Less of it", "The same again",
}  # fmt: skip


def names() -> dict[str, Any]:
    """What the examples take for given."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand((2, 3, 32, 32), generator=generator) - 0.5
    denoiser = GaussianMixtureDenoiser(means, torch.full((2,), 0.1), torch.ones(2), NoiseSchedule.from_betas(linear_betas()))
    images, labels = torch.rand((16, 3, 32, 32), generator=generator), torch.arange(16) % 10
    given = {"rd": rd, "torch": torch, "F": F, "denoiser": denoiser, "diffaug": rd.DiffAug(denoiser), "images": images, "labels": labels}
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    picture = Image.new("RGB", (32, 32), (200, 100, 50))
    dataset = TensorDataset(images, labels)
    given |= {"photos": striped(2, size=32)}
    return given | {"classifier": classifier, "dataset": dataset, "picture": picture, "loader": [(images, labels), (images, labels)]}


def run(title: str) -> dict[str, Any]:
    space = names()
    exec(EXAMPLES[title], space)
    return space


def test_no_example_is_left_out() -> None:
    assert set(EXAMPLES) == RUN_BELOW
    assert PAGE.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_have_at_most_five_lines(title: str) -> None:
    lines = [line for line in EXAMPLES[title].splitlines() if line.strip()]
    assert 1 <= len(lines) <= 5


def test_set_up() -> None:
    space = run(FIRST)
    views = space["diffaug"](space["images"])
    assert views.shape == space["images"].shape


def test_in_a_loop() -> None:
    space = run("In a loop")
    assert space["views"].shape == space["images"].shape
    assert not torch.equal(space["views"], space["images"])
    assert space["classifier"][1].weight.grad.abs().sum() > 0


def test_in_a_collate_function() -> None:
    space = run("In a collate function")
    batches = list(space["loader"])
    assert [len(views) for views, _ in batches] == [8, 8]
    assert torch.equal(torch.cat([labels for _, labels in batches]), space["labels"])
    assert not torch.equal(batches[0][0], space["images"][:8])


def test_with_torchvision() -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # a build for another torch raises RuntimeError
        pytest.skip(f"torchvision cannot be imported: {error}")
    space = run("With torchvision")
    assert space["view"].shape == (3, 32, 32)
    assert space["label"] == 3
    assert 0 <= float(space["view"].min()) <= float(space["view"].max()) <= 1


def test_with_kornia() -> None:
    pytest.importorskip("kornia")
    space = run("With kornia")
    views, images = space["views"], space["images"]
    assert views.shape == images.shape
    changed = [(views - same).abs().amax((1, 2, 3)) for same in (images, images.flip(3))]  # the flip alone makes one of the two
    assert float(torch.minimum(*changed).max()) > 0.1  # not each: a noise time may be near 0


def test_training_with_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = run("Training with views")
    assert space["robust"].classes == space["photos"].classes
    assert (tmp_path / "training.pt").exists()
    calls = re.findall(r"^\| `(.*?)`", SECTIONS["Training with views"], flags=re.MULTILINE)
    assert len(calls) == 6
    for call in calls:
        name, given = call.split("(", 1)
        made = {"Extra": Extra, "AugMix": AugMix, "DeepAugment": DeepAugment, "diffaug": space["diffaug"], name: getattr(objectives, name)}
        if given != "...)":
            exec(f"found = {call}", made)
            assert isinstance(made["found"], objectives.Objective)


def test_at_test_time() -> None:
    space = run("At test time")
    assert len(space["gained"]) == len(space["ensemble"].members) == 10
    assert space["said"].predicted.shape == space["labels"].shape


def test_how_much_noise() -> None:
    space = run("How much noise")
    assert space["near"].draw(64, size=224).t.max() <= 500
    for size in (224, 32):
        found = re.search(rf"^\| sigma at {size} px \| raw \|(.*)\|$", SECTIONS["How much noise"], flags=re.MULTILINE)
        assert found is not None
        wanted = levels(space["denoiser"].schedule, range(50, 500, 50), size).sigma
        assert [float(cell) for cell in found[1].split("|")] == [round(sigma, 3) for sigma in wanted.tolist()]


def test_less_of_it() -> None:
    space = run("Less of it")
    assert space["views"].shape == space["images"].shape
    assert space["own"].shape == space["labels"].shape
    assert space["bank"].held == 16


def test_the_same_again() -> None:
    space = run("The same again")
    torch.testing.assert_close(space["first"], space["views"][:3], atol=1e-5, rtol=0)
