from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rediffuse.concepts.recipes import RECIPES, InversionRecipe, find_recipe
from rediffuse.errors import ConfigError

SMALL = InversionRecipe(steps=10, batch_per_class=2, learning_rate=0.1)


def test_the_published_recipes_with_effective_rates() -> None:
    agnostic, full = RECIPES["paper_agnostic"], RECIPES["paper_full"]
    assert (agnostic.steps, agnostic.batch_per_class, agnostic.vectors, agnostic.start) == (1000, 4, 1, "the")
    assert (full.steps, full.batch_per_class, full.vectors, full.start) == (2000, 8, 4, "name")
    for recipe in (agnostic, full):
        assert recipe.learning_rate == pytest.approx(5e-4 * recipe.batch_per_class)  # --scale_lr
        assert (recipe.betas, recipe.weight_decay, recipe.epsilon, recipe.fit) == ((0.9, 0.999), 1e-2, 1e-8, "squash")
        assert {recipe.rate(step) for step in (0, 7, recipe.steps - 1)} == {recipe.learning_rate}


def test_ten_classes_of_the_demo_fit_its_budget() -> None:
    assert 10 * RECIPES["fast"].samples_per_class <= 6000


def test_cosine_goes_from_the_rate_to_nearly_nothing() -> None:
    recipe = replace(SMALL, decay="cosine", steps=100)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.05)
    assert 0 < rates[-1] < 1e-3
    assert rates == sorted(rates, reverse=True)


def test_settings_are_json_and_say_everything() -> None:
    settings = SMALL.to_settings()
    assert json.loads(json.dumps(settings)) == settings
    again = {**settings, "templates": tuple(settings["templates"]), "betas": tuple(settings["betas"])}
    assert InversionRecipe(**again) == SMALL


def test_a_budget_in_samples() -> None:
    assert SMALL.with_samples(101).steps == 50
    assert SMALL.with_samples(1).steps == 1


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"batch_per_class": 0},
        {"vectors": -1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"epsilon": 0.0},
        {"betas": (0.9, 1.0)},
        {"start": " "},
        {"start_rows": "first"},
        {"decay": "linear"},
        {"times": "all"},
        {"fit": "stretch"},
        {"templates": ("a photo",)},
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change)).split("_")[0]):
        replace(SMALL, **change)  # type: ignore[arg-type]


def test_recipes_by_name() -> None:
    assert find_recipe("fast") is RECIPES["fast"]
    assert find_recipe(SMALL) is SMALL
    with pytest.raises(ConfigError, match="fast, paper_agnostic, paper_full"):
        find_recipe("slow")
