"""Guidance is a denoiser around a denoiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.sampling.curved import SHAPE, Curved, curved, job, stable_schedule

from rediffuse.denoisers.base import Condition, DenoiserSpec, clean_from_output
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.errors import ConfigError
from rediffuse.sampling.guided import ClassifierFree
from rediffuse.sampling.sampler import run_jobs, sample_one
from rediffuse.sampling.solvers import trajectory

ROWS = 5
X = torch.randn(ROWS, *SHAPE, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0, 10, 300, 700, 999])
PROMPTS = ["a", "ab", "abc", "abcd", "abcde"]


def test_scale_1_is_the_model_itself() -> None:
    model = Curved(conditional=True)
    condition = model.embed(PROMPTS)
    assert torch.equal(ClassifierFree(model, 1.0)(X, T, condition), model(X, T, condition))
    assert model.batches == [ROWS, ROWS]


def test_scale_0_is_the_model_without_a_prompt() -> None:
    model = Curved(conditional=True)
    guided = ClassifierFree(model, 0.0)
    assert torch.equal(guided(X, T, model.embed(PROMPTS)), model(X, T, model.embed([""] * ROWS)))
    assert model.batches == [ROWS, ROWS]


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
def test_it_is_guidance_on_the_noise_in_one_doubled_batch(scale: float) -> None:
    model = Curved(conditional=True)
    condition = model.embed(PROMPTS)
    assert condition.labels is not None
    made = ClassifierFree(model, scale)(X, T, condition)
    assert model.batches == [2 * ROWS]
    without, told = curved(X, T), curved(X, T, condition.labels.float().view(-1, 1, 1, 1))
    alpha, sigma = model.schedule.at(T, X)
    expected = clean_from_output(without + scale * (told - without), X, alpha, sigma, "epsilon")
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_a_negative_prompt_and_a_condition_in_its_place() -> None:
    model = Curved(conditional=True)
    condition = model.embed(PROMPTS)
    by_word, by_condition = ClassifierFree(model, 3.0, empty="worse"), ClassifierFree(model, 3.0, empty=model.embed(["worse"]))
    assert torch.equal(by_word(X, T, condition), by_condition(X, T, condition))
    assert not torch.allclose(by_word(X, T, condition), ClassifierFree(model, 3.0)(X, T, condition))


class Counting(Curved):
    embedded = 0

    def embed(self, prompts: Any, words: object = None) -> Condition:
        self.embedded += len(prompts)
        return super().embed(prompts, words)


def test_the_empty_prompt_is_embedded_once() -> None:
    model = Counting(conditional=True)
    guided = ClassifierFree(model, 2.0)
    assert model.embedded == 1
    condition = model.embed(["a"])
    jobs = [job(trajectory(model.schedule, "dpm++2m", 8, 0.5), n, condition) for n in range(6)]
    run_jobs(guided, jobs, batch=4)
    assert model.embedded == 2


def test_it_delegates_everything_else() -> None:
    model = Curved(conditional=True)
    model.size, model.factor, model.multiple_of, model.spec = 64, 2, 16, DenoiserSpec(name="x", path="y")
    guided = ClassifierFree(model, 2.0)
    for name in ("schedule", "channels", "size", "factor", "multiple_of", "spec", "conditional", "device"):
        assert getattr(guided, name) == getattr(model, name)
    images, noise, condition = (
        torch.rand(ROWS, *SHAPE),
        torch.randn(X.shape, generator=torch.Generator().manual_seed(1)),
        model.embed(PROMPTS),
    )
    assert torch.equal(guided.encode(images), model.encode(images))
    assert torch.equal(guided.decode(X), model.decode(X))
    assert torch.equal(guided.loss(X, T, noise, condition), model.loss(X, T, noise, condition))
    assert guided.embed(["abc"]).labels == model.embed(["abc"]).labels
    assert not guided.state_dict()  # the empty prompt is no weight


def test_gradients_pass_through_in_training_code() -> None:
    """Also after it has sampled: nothing that it keeps is of inference mode."""
    model = Curved(conditional=True)
    guided = ClassifierFree(model, 2.0)
    sample_one(guided, job(trajectory(model.schedule, "ddim", 4, 1.0), 0, model.embed(["a"])))
    x = X.clone().requires_grad_()
    guided(x, T, model.embed(PROMPTS)).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_guidance_leads_to_the_component_that_is_named() -> None:
    means = torch.stack([torch.full((1, 2, 2), value) for value in (-1.0, 1.0)])
    model = GaussianMixtureDenoiser(means, torch.full((2,), 0.05), torch.ones(2), stable_schedule(), {"low": 0, "high": 1})
    table = trajectory(model.schedule, "dpm++2m", 20, 0.75)
    low = model.sample(16, torch.Generator().manual_seed(0), labels=torch.zeros(16, dtype=torch.long))
    high = model.embed(["high"])
    jobs = [job(table, n, high) for n in range(16)]
    jobs = [type(each)(source=low[n], table=table, condition=high, seed=n) for n, each in enumerate(jobs)]
    free, told = (run_jobs(ClassifierFree(model, scale), jobs, batch=16).mean((1, 2, 3)) for scale in (0.0, 1.5))
    assert (told > 0.5).all()
    assert (free < 0).sum() >= 8  # most stay where they came from


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1.0}, "guidance scale must be a number of at least 0, got -1.0; 1 is no guidance"),
        ({"scale": float("nan")}, "got nan"),
        ({"scale": float("inf")}, "got inf"),
        ({"scale": 2.0, "empty": Condition(labels=torch.tensor([0, 0]))}, "the empty condition is one row, got 2"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassifierFree(Curved(conditional=True), **arguments)


def test_a_call_without_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a condition"):
        ClassifierFree(Curved(conditional=True), 2.0)(X, T)
