"""Trials do not overwrite what is quoted."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

import pytest

from rediffuse.recipes.asked import departures, named, notes_of

RESULTS = Path(__file__).parents[2] / "results"


def test_a_trial_has_a_name_of_its_own_and_says_why() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 12])
    parser.add_argument("--model", default="the/usual")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", default="results")

    def asked(*told: str) -> list[str]:
        return departures(parser.parse_args(told), parser, ("steps", "model"), ("seeds",))

    assert asked("--seeds", "9", "--out", "there") == []
    assert (named("budget", []), notes_of([])) == ("budget", ())
    departed = asked("--steps", "2", "--model", "a/path/of/mine", "--seeds", "1")
    assert departed == ["steps 2 (the recipe's: 8 12)", "model mine (the recipe's: usual)", "seeds 1 (the recipe's: 4)"]
    assert named("budget", departed) == "reduced_budget"
    assert notes_of(departed) == (f"Not the recipe's run: {'; '.join(departed)}.",)


@pytest.mark.parametrize("name", ["learning_budget", "sampling_steps"])
def test_what_is_quoted_is_the_recipes_run(name: str) -> None:
    recipe, parser = import_module(f"rediffuse.recipes.{name}"), import_module(f"rediffuse.recipes.{name}").options()
    told = json.loads((RESULTS / f"{name}.json").read_text())["command"].split(f"rediffuse.recipes.{name}", 1)[1].split()
    assert departures(parser.parse_args(told), parser, recipe.DECIDING) == []
