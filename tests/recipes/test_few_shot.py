"""The comparisons' recipes run from parquet shards to a result with every headline key, and write nothing half-done."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tests.tiny import tiny_stable
from tests.training.toys import resnet_folder, striped

from rediffuse.concepts.recipes import RECIPES
from rediffuse.data.types import ImageSet
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.recipes.asked import departures
from rediffuse.recipes.few_shot import DECIDING, FewShot, conclude, options, run

NAMES = ("compare_eurosat", "compare_flowers17", "compare_tiny_imagenet_novel", "compare_known20")
RECIPE = FewShot(name="toy", folder="stripes", flips=False, notes=("made of stripes",))


def write_shard(images: ImageSet, folder: Path, split: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for example in images:
        buffer = io.BytesIO()
        example.image.save(buffer, format="PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": example.label, "id": example.id})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(images.classes)}}
    table = pa.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few_shot")
    write_shard(striped(2, classes=2), root / "sets" / "stripes", "train")
    write_shard(striped(5, classes=2, seed=5, start=10), root / "sets" / "stripes", "test")
    tiny_stable(root / "model", prediction_type="v_prediction")
    resnet_folder(root / "forty")
    resnet_folder(root / "features", seed=1)
    return root


def arguments(place: Path, *more: str) -> list[str]:
    folders = {"data": "sets", "model": "model", "forty": "forty", "features": "features", "work": "work", "out": "results"}
    told = [word for name, folder in folders.items() for word in (f"--{name}", str(place / folder))]
    return [*told, "--shots", "1", "--seeds", "1", "--copies", "1", "--steps", "2", *more]


def test_a_recipe_ends_with_every_headline_key(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(RECIPES, "fast", replace(RECIPES["fast"], steps=2, start="the"))
    (place / "results").mkdir()
    (place / "results" / "compare_toy.json").write_text("of the whole run")
    assert run(RECIPE, "help", arguments(place)) == 0
    assert (place / "results" / "compare_toy.json").read_text() == "of the whole run"
    result = json.loads((place / "results" / "reduced_compare_toy.json").read_text())
    levels = ("scratch", "forty", "resnet64")
    assert set(result["headline"]) == {f"gain_over_{other}_{level}" for other in ("standard", "real_guidance") for level in levels}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in result["headline"].values())
    assert "made of stripes" in result["notes"]
    assert result["notes"][0].startswith("Not the recipe's run: shots 1 (the recipe's: 1 2 4 8); copies 1 (the recipe's: 10); steps 2")
    assert conclude(Comparison.load(place / "work"), RECIPE, place / "whole") == place / "whole" / "compare_toy.json"
    assert result["command"].startswith("python -m rediffuse.recipes.compare_toy --data sets --model model")
    assert {row["arm"] for row in result["rows"]} == {"standard", "real-guidance", "da-fusion"}
    assert "gain_over_standard_scratch" in capsys.readouterr().out
    cells = {file: file.stat().st_mtime_ns for file in (place / "work" / "cells").rglob("*.json")}
    assert run(RECIPE, "help", arguments(place)) == 0
    assert cells == {file: file.stat().st_mtime_ns for file in (place / "work" / "cells").rglob("*.json")}
    assert len(cells) == 9


@pytest.mark.parametrize(
    ("told", "departed"),
    [
        ("", []),
        ("--seeds 8 --hours 3 --device cpu --work there", []),
        ("--seeds 3", ["seeds 3 (the recipe's: 4)"]),
        ("--shots 1 2 --steps 10", ["shots 1 2 (the recipe's: 1 2 4 8)", "steps 10 (the recipe's: as set)"]),
        ("--model my/own", ["model own (the recipe's: tiny-imagenet-64)"]),
    ],
)
def test_what_is_not_the_recipes_run(told: str, departed: list[str]) -> None:
    parser = options(RECIPE, "help")
    assert departures(parser.parse_args(told.split()), parser, DECIDING, ("seeds",)) == departed


def test_a_dry_run_writes_nothing(place: Path) -> None:
    assert run(RECIPE, "help", arguments(place, "--dry-run", "--work", str(place / "dry"), "--out", str(place / "none"))) == 0
    assert not (place / "dry").exists()
    assert not (place / "none").exists()


def test_what_is_lacking_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(RECIPE, "help", arguments(place, "--forty", "nowhere/forty")) == 2
    assert "python -m rediffuse.recipes.forty --out nowhere/forty" in capsys.readouterr().err
    assert run(RECIPE, "help", arguments(place, "--hours", "0", "--work", str(place / "other"))) == 2
    assert "--hours allows 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_says_what_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"rediffuse.recipes.{name}")
    assert module.RECIPE.module == module.__name__
    for word in ("python -m rediffuse.recipes." + name, "Shows:", "Expected:", "Time and hardware:"):
        assert word in module.__doc__
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    assert "--forty" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_sets_are_what_the_recipes_say(name: str, shared_data: Path) -> None:
    photos, test = import_module(f"rediffuse.recipes.{name}").RECIPE.open(shared_data)
    assert photos.classes == test.classes
    assert photos.flips
    assert min(photos.counts()) >= 8
    assert not set(photos.digests) & set(test.digests)
