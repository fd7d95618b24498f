"""The yardsticks of trained robust nets, in small: figures are those of the nets, goes on where it stopped, controls are there."""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.recipes.tiny_runs import write_pictures
from tests.tiny_pixel import tiny_pixel

from rediffuse.evaluation.ood.scoring import Scored, ScoredSet
from rediffuse.evaluation.test_time.dda import DDASettings
from rediffuse.recipes import calibration_cifar10, certified_cifar10, dda_guidance, ood_cifar10
from rediffuse.recipes.robust import trained
from rediffuse.recipes.robust.cells import Cell
from rediffuse.recipes.robust.nets import NETS, open_net

NAMES = ("cat", "dog", "ship")
ARMS = ("plain", "noise", "diffaug")
HIDDEN = 1 - 0.025 ** (1 / 12)
"""Share of unlike pictures that twelve alike may hide."""
NOTHING = {"value": 0.0, "low": pytest.approx(-HIDDEN), "high": pytest.approx(HIDDEN), "basis": "two training runs"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of noise, and a net for each of three arms and two seeds; DiffAug's are those of noise, so that their difference is 0."""
    home = tmp_path_factory.mktemp("robust")
    data = home / "data"
    for split, count in (("train", 42), ("test", 18)):
        write_pictures(data / "cifar10", split, count, size=32, names=NAMES)
    write_pictures(data / "tiny-imagenet-base", "validation", 10, names=("gondola", "goldfish", "police van"))
    write_pictures(data / "cifar100", "test", 42, size=32, names=NAMES)  # all of them are training pictures
    twice = pq.read_table(data / "cifar100" / "test-00000-of-00001.parquet").slice(0, 1)
    for count, (name, split) in enumerate((("cifar100", "test"), ("textures-64", "test"), ("eurosat", "test"), ("mnist-5k", "train"))):
        write_pictures(data / name, split, 11 + count, names=("a", "b"))  # a count is a seed: no two sets share pictures
    file = data / "cifar100" / "test-00000-of-00001.parquet"
    own = pq.read_table(file)
    extra = twice.set_column(twice.schema.get_field_index("id"), "id", [["twice"]]).cast(own.schema)
    pq.write_table(pa.concat_tables([own, extra]).replace_schema_metadata(own.schema.metadata), file)
    for arm, first in zip(ARMS, (0, 7, 7), strict=True):
        for seed in (0, 1):
            open_net(NETS[0], NAMES, first + seed).save(home / "work" / "nets" / Cell(net=NETS[0], arm=arm, seed=seed).name)
    tiny_pixel(home / "tiny", sample_size=32)
    return home


def asked(home: Path, *more: str) -> list[str]:
    return [
        "--data",
        str(home / "data"),
        "--work",
        str(home / "work"),
        "--out",
        str(home / "out"),
        "--seeds",
        "2",
        "--device",
        "cpu",
        *more,
    ]


def result(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "out" / f"reduced_{name}.json").read_text())
    return found


def test_certificates(home: Path) -> None:
    given = asked(home, "--images", "12", "--sigmas", "0.25", "0.5", "--selection", "4", "--draws", "12", "--denoiser", str(home / "tiny"))
    assert certified_cifar10.main(given) == 0
    first = result(home, "certified_cifar10")
    rows = [row for row in first["rows"] if row["table"] == "radii"]
    assert {(row["arm"], row["smoother"]) for row in rows} == {*((arm, "denoised") for arm in ARMS), ("noise", "no denoiser")}
    assert {row["sigma"] for row in rows} == {0.25, 0.5, "chosen"}
    beyond = [row for row in rows if row["radius"] > row["ceiling"]]
    assert beyond
    assert all(
        (row["certified_accuracy"], row["certified_accuracy_low"], row["certified_accuracy_high"]) == (0, None, None) for row in beyond
    )
    curves = [row for row in first["rows"] if row["table"] == "curve"]
    assert {(row["arm"], row["smoother"]) for row in curves} == {(row["arm"], row["smoother"]) for row in rows}
    for row in curves:
        assert (row["images"], row["draws"]) == (12, 12)
        assert row["ceiling"] == row["points"][-1][0] == next(own["ceiling"] for own in rows if own["sigma"] == row["sigma"])
    for radius in ("025", "050", "075", "100"):
        assert first["headline"][f"gain_over_noise_at_{radius}"] == NOTHING
        assert f"gain_at_{radius}" in first["headline"]
        bare = first["headline"][f"gain_over_noise_without_denoiser_at_{radius}"]["value"]
        of = {row["smoother"]: row for row in rows if (row["arm"], row["sigma"], row["radius"]) == ("noise", "chosen", int(radius) / 100)}
        less = of["denoised"]["certified_accuracy"] - of["no denoiser"]["certified_accuracy"]  # DiffAug's nets are those of noise here
        assert bare == pytest.approx(less)
    own = [row for row in rows if row["arm"] == "diffaug"]
    assert all(row["gain_over_noise"] == 0 and "gain_low" in row for row in own)
    assert any("two training runs of each way" in note for note in first["notes"])
    for row in rows:
        assert ("gain_over_denoised" in row) == (row["smoother"] == "no denoiser")
        if "gain_over_denoised" in row and row["radius"] <= row["ceiling"]:
            key = ("noise", "denoised", row["sigma"], row["radius"])
            (denoised,) = (each for each in rows if tuple(each[part] for part in ("arm", "smoother", "sigma", "radius")) == key)
            assert row["gain_over_denoised"] == pytest.approx(row["certified_accuracy"] - denoised["certified_accuracy"])
    assert certified_cifar10.main(given) == 0
    again = result(home, "certified_cifar10")
    assert again["rows"] == first["rows"]
    told = "goes on from what an earlier run of this command had kept; the time is that of all, on whatever machines"
    assert [told in each["notes"] for each in (first, again)] == [False, True]
    assert certified_cifar10.main([*given[:-1], str(home / "tiny"), "--seeds", "3"]) == 2  # no net has that seed


def test_unknown_inputs(home: Path) -> None:
    assert ood_cifar10.main(asked(home, "--bank", "20", "--neighbours", "3", "--held", "6", "--arms", *ARMS)) == 0
    found = result(home, "ood_cifar10")
    scores = [row for row in found["rows"] if row["table"] == "scores"]
    sets = {(row["arm"], row["set"], row["score"]): row for row in found["rows"] if row["table"] == "sets"}
    assert {name for _, name, _ in sets} == {"cifar100", "tiny-imagenet", "textures-64", "eurosat", "mnist-5k"}
    far = [sets["plain", name, "headline"]["auroc"] for name in ("textures-64", "eurosat", "mnist-5k")]
    assert sets["diffaug", "mnist-5k", "headline"]["gain_over_noise"] == 0
    assert {row["group"] for row in scores} == {"near", "far"}
    by = {(row["arm"], row["group"], row["score"]): row for row in scores}
    assert by["plain", "far", "headline"]["auroc"] == pytest.approx(sum(far) / 3)
    for group in ("near", "far"):
        three = [by["plain", group, score]["auroc"] for score in ("msp", "energy", "knn")]
        assert by["plain", group, "headline"]["auroc"] == pytest.approx(sum(three) / 3)
        assert found["headline"][f"{group}_auroc_gain_over_noise"]["value"] == 0
        gain = by["diffaug", group, "headline"]["auroc"] - by["plain", group, "headline"]["auroc"]
        assert found["headline"][f"{group}_auroc_gain"]["value"] == pytest.approx(gain)
    assert "tiny-imagenet (near, 3)" in found["notes"][0]  # neither the gondola nor the police van
    assert "cifar100 (near, 11)" in found["notes"][0]  # the one that is among the training pictures is left out


def test_nets_that_part_all_pictures_are_no_certainty() -> None:
    values = torch.linspace(0, 1, 12, dtype=torch.float64)[None, :, None].expand(3, -1, -1)
    sets = ScoredSet(name="cifar10", group="known", values=values + 5), ScoredSet(name="mnist-5k", group="far", values=values)
    areas = ood_cifar10.Areas(Scored(models=("a", "b", "c"), scores=("msp",), sets=sets), resamples=20)
    mean, gain = areas.mean(["a", "b"], "far", "msp"), areas.mean(["a"], "mnist-5k", "msp", minus=["b"])
    assert (mean.value, mean.low, mean.high, mean.basis) == (1, pytest.approx(1 - HIDDEN), 1, "two training runs")
    assert (gain.value, gain.low, gain.high) == (0, pytest.approx(-HIDDEN), pytest.approx(HIDDEN))


def test_calibration(home: Path) -> None:
    given = asked(home, "--entropy-images", "12", "--held", "6", "--denoiser", str(home / "tiny"), "--arms", *ARMS)
    assert calibration_cifar10.main(given) == 0
    found = result(home, "calibration_cifar10")
    rows = {row["arm"]: row for row in found["rows"] if row["table"] == "calibration"}
    assert found["headline"]["ece_gain"]["value"] == pytest.approx(rows["diffaug"]["ece"] - rows["plain"]["ece"])
    assert found["headline"]["nll_scaled_gain_over_noise"] == {**NOTHING, "low": 0.0, "high": 0.0}  # the same nets on the same draws
    assert sum(next(row["counts"] for row in found["rows"] if row["table"] == "diagram")) == 18
    curve = [row for row in found["rows"] if row["table"] == "entropy" and row["arm"] == "plain"]
    assert [row["t"] for row in curve][:2] == [0, 37]
    assert all(0 <= row["share"] <= 1 + 1e-6 for row in curve)
    assert [row["entropy_high"] for row in curve] == pytest.approx([math.log(3) * row["share_high"] for row in curve])
    last = {row["arm"]: row for row in found["rows"] if row["table"] == "entropy" and row["t"] == 999}
    for arm in ARMS:
        for key, column in (("last_entropy", "share"), ("last_accuracy", "accuracy")):
            figure = found["headline"][f"{arm}_{key}"]
            assert [figure["value"], figure["low"], figure["high"]] == [last[arm][f"{column}{end}"] for end in ("", "_low", "_high")]
            assert figure["low"] < figure["value"] < figure["high"]
    over = found["headline"]["last_entropy_over_plain"]
    assert over["value"] == pytest.approx(last["diffaug"]["share"] - last["plain"]["share"])
    assert over["low"] < over["value"] < over["high"]
    assert found["headline"]["last_entropy_over_noise"] == NOTHING
    assert "share_over_noise_low" in last["diffaug"]
    assert "share_over_noise" not in last["plain"]
    assert any("one answer for all names up to 0." in note for note in found["notes"])
    assert calibration_cifar10.main(given) == 0
    again = result(home, "calibration_cifar10")
    assert again["headline"] == found["headline"]
    told = "goes on from what an earlier run of this command had kept; the time is that of the rest"
    assert [told in each["notes"] for each in (found, again)] == [False, True]


def test_the_guidance_of_dda_is_chosen_where_no_table_looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dda_guidance, "DDASettings", partial(DDASettings, steps=2))
    given = asked(home, "--images", "6", "--held", "6", "--denoiser", str(home / "tiny"), "--guidance", "0", "3", "--factors", "4", "1")
    assert dda_guidance.main(given) == 0
    found = result(home, "dda_guidance")
    rows = {(row["guidance"], row["factor"]): row for row in found["rows"]}
    assert list(rows) == [("no DDA", None), (0.0, 4), (3.0, 4), (3.0, 1)]
    row = rows[3.0, 1]
    assert row["gain_corrupted"] == pytest.approx(row["corrupted"] - rows["no DDA", None]["corrupted"])
    best = tuple(found["headline"][key]["value"] for key in ("best_guidance", "best_factor"))
    assert rows[best]["corrupted"] == max(row["corrupted"] for (weight, _), row in rows.items() if weight != "no DDA")


def test_what_an_interval_leaves_out_is_said() -> None:
    assert trained.conditions_of([4, 9]) == []
    assert "(1 to 3 training runs of each way)" in trained.conditions_of([3, 1, 3])[0]
    assert "(one training run of each way)" in trained.conditions_of([1, 1])[0]


def test_nets_that_are_not_there_are_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ood_cifar10.main(asked(home, "--arms", "augmix")) == 2
    assert "python -m rediffuse.recipes.diffaug_cifar10 --net resnet-14 --arms augmix --seeds 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "more", "less"),
    [
        ("cpu", [], False),
        ("cpu", ["--draws", "10000", "--images", "800", "--seeds", "9", "--sigmas", "0.12", "0.25", "0.5", "1.0"], False),
        ("cpu", ["--draws", "999"], True),
        ("cpu", ["--images", "499"], True),
        ("cpu", ["--sigmas", "0.25", "0.5"], True),
        ("cpu", ["--arms", "plain"], True),
        ("cpu", ["--denoiser", "elsewhere"], True),
        ("meta", [], False),
        ("meta", ["--draws", "1000"], True),
    ],
)
def test_only_less_or_other_than_the_recipe_has_a_name_of_its_own(
    device: str, more: list[str], less: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[argparse.Namespace] = []

    def work(given: argparse.Namespace, _: object) -> Path:
        found.append(given)
        return tmp_path

    monkeypatch.setattr(trained, "resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr(trained.Trained, "open", lambda *_: None)
    monkeypatch.setattr(certified_cifar10, "work", work)
    assert certified_cifar10.main(["--data", str(tmp_path), *more]) == 0
    assert found[0].name == ("reduced_certified_cifar10" if less else "certified_cifar10")
    assert "--draws" in more or found[0].draws == {"cpu": 1000, "meta": 10_000}[device]


def test_a_device_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert certified_cifar10.main(["--data", str(tmp_path), "--device", "cuda:99"]) == 2
    assert "cuda:99" in capsys.readouterr().err
