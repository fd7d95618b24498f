"""Pictures from noise: of the class that was asked for, whatever stands in the source's place."""

from __future__ import annotations

import pytest
import torch

from rediffuse.concepts.concepts import Concepts
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import scaled_linear_betas
from rediffuse.errors import ConfigError, ModelError
from rediffuse.methods import from_settings
from rediffuse.methods.from_noise import FromNoise

CLASSES = ("cat", "dog", "red bird")


def words() -> Concepts:
    return Concepts(words={name: torch.zeros(1, 32) for name in CLASSES})


def test_nothing_of_the_source_is_left(mixture):
    method = FromNoise(mixture, CLASSES, steps=4)
    draw = method.draw(6, torch.Generator().manual_seed(0), labels=torch.tensor([0, 0, 1, 1, 2, 2]))
    assert draw.strength.tolist() == [1.0] * 6
    made = method.apply(torch.zeros(6, 3, 8, 8), draw)
    assert torch.equal(made, method.apply(torch.rand((6, 3, 8, 8), generator=torch.Generator().manual_seed(1)), draw))
    assert len({tuple(image.flatten().tolist()) for image in made}) == 6
    assert {len(table) for table in method.tables(draw)} == {4}
    assert {table.start for table in method.tables(draw)} == {None}


def test_samples_are_those_of_the_class():
    """Of one Gaussian a class, N(m, .2²): the deterministic path from noise ends at its mean and variance."""
    means = torch.tensor([-0.4, 0.5]).view(2, 1, 1, 1).expand(2, 3, 8, 8).clone()
    prompts = {"a photo of a cat": 0, "a photo of a dog": 1}
    schedule = NoiseSchedule.from_betas(scaled_linear_betas())
    model = GaussianMixtureDenoiser(means, torch.full((2,), 0.04), torch.ones(2), schedule, prompts)
    method = FromNoise(model, ("cat", "dog"), guidance_scale=1.0, steps=200)
    draw = method.draw(64, torch.Generator().manual_seed(0), labels=torch.arange(64) % 2)
    made = method.apply(torch.zeros(64, 3, 8, 8), draw) * 2 - 1
    for label, mean in enumerate((-0.4, 0.5)):
        values = made[label::2].flatten()  # 6,144 numbers
        assert abs(float(values.mean()) - mean) < 0.02
        assert abs(float(values.std()) - 0.2) < 0.02


def test_prompts_by_name_by_word_and_given(mixture):
    assert FromNoise(mixture, CLASSES).prompts(torch.tensor([0, 2])) == ["a photo of a cat", "a photo of a red bird"]
    assert FromNoise(mixture, ("<x> y",)).prompts(torch.tensor([0])) == ["a photo of a x y"]
    assert FromNoise(mixture, CLASSES, prompt="photo").prompt(1) == "a photo"
    assert FromNoise(mixture, CLASSES, prompt="my {}").prompt(1) == "my dog"
    learned = FromNoise(mixture, words=words())
    assert learned.classes == CLASSES
    assert learned.prompt(2) == "a photo of a <red_bird>"
    assert learned.concept_hash == words().hash
    assert FromNoise(mixture, ("dog",), words()).prompt(0) == "a photo of a <dog>"


def test_mistakes_are_named(mixture):
    with pytest.raises(ConfigError, match="no classes to draw"):
        FromNoise(mixture)
    with pytest.raises(ModelError, match="'horse'"):
        FromNoise(mixture, ("horse",), words())
    with pytest.raises(ConfigError, match="needs the words"):
        from_settings(mixture, FromNoise(mixture, words=words()).settings())
    assert from_settings(mixture, FromNoise(mixture, CLASSES).settings(), words()).concept_hash == ""
