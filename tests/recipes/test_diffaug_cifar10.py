"""The DiffAug experiment in small: arms are equal in what they see, cells stay done, figures follow from what was right."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tests.recipes.tiny_runs import write_pictures
from tests.tiny_pixel import tiny_pixel

from rediffuse.data.open import open_images
from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import ALL, COMMON
from rediffuse.evaluation.test_time.dda import DDASettings
from rediffuse.recipes import diffaug_cifar10
from rediffuse.recipes.diffaug_cifar10 import asked_net, main, unlike
from rediffuse.recipes.robust.arms import ARMS
from rediffuse.recipes.robust.bench import cells_of, claimed, missing_of, named, options, run_cells
from rediffuse.recipes.robust.cells import Cell, CellStore, Diary, Judgement, keys_of
from rediffuse.recipes.robust.corrupted import make_corrupted, read_corrupted
from rediffuse.recipes.robust.nets import NETS, Lowered, lower_head, open_net
from rediffuse.recipes.robust.sets import SHIFTED, UNCLEAR, natural_images, shift_of
from rediffuse.recipes.robust.table import MEASURES, corruption_rows, gain_rows, headline_of, rows_of, too_weak
from rediffuse.recipes.robust.trained import opened
from rediffuse.training.classifier import Classifier

CLASSES = [str(k) for k in range(10)]


def test_corrupted_copies_are_made_once_and_read_as_published(tmp_path: Path) -> None:
    images = torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    make_corrupted(tmp_path, images, ["contrast", "gaussian_noise"])
    assert np.load(tmp_path / "contrast.npy").shape == (15, 32, 32, 3)
    stamp = (tmp_path / "contrast.npy").stat().st_mtime_ns
    make_corrupted(tmp_path, images, ["contrast", "gaussian_noise"])
    assert (tmp_path / "contrast.npy").stat().st_mtime_ns == stamp
    for name in ("contrast", "gaussian_noise"):
        assert torch.equal(read_corrupted(tmp_path, name, 4, 3), corrupt(images, name, 4))


def judgement(arm: str, seed: int, share: float, count: int = 200) -> Judgement:
    """One that is right of the first `share` of all copies."""
    right = {key: np.arange(count) < share * count for key in ("clean", *keys_of(ALL))}
    return Judgement(cell=Cell(net="resnet-14", arm=arm, seed=seed), right=right, held=0.5, facts={"seconds": 1.0})


def test_gains_are_paired_with_each_control(tmp_path: Path) -> None:
    labels = {"test": [k % 2 for k in range(200)]}
    runs = [judgement(arm, seed, share) for seed in range(3) for arm, share in (("plain", 0.5), ("noise", 0.6), ("diffaug", 0.7))]
    rows = {row["arm"]: row for row in rows_of(runs, labels)}
    assert rows["plain"]["clean"] == pytest.approx(0.5)
    gains = {(row["arm"], row["over"]): row for row in gain_rows(runs, labels)}
    assert set(gains) == {("noise", "plain"), ("diffaug", "noise"), ("diffaug", "plain")}
    assert gains["diffaug", "noise"]["corrupted"] == pytest.approx(0.1)
    assert gains["diffaug", "plain"]["corrupted"] == pytest.approx(0.2)
    assert gains["diffaug", "noise"]["corrupted_low"] > 0
    assert gains["diffaug", "noise"]["clean_seeds"] == pytest.approx([0.1] * 3)
    unequal = gain_rows([*runs[:-1], judgement("diffaug", 2, 0.85)], labels)[-1]
    assert unequal["clean_seeds"] == pytest.approx([0.2, 0.2, 0.35])
    assert unequal["clean"] == pytest.approx(0.25)
    assert too_weak(list(rows.values())) == ["resnet-14"]
    assert headline_of(runs, labels) == {}  # of nets whose plain one is right of half no figure is quoted
    strong = [judgement(arm, seed, share) for seed in range(3) for arm, share in (("plain", 0.87), ("noise", 0.9), ("diffaug", 0.95))]
    weak = [replace(run, cell=replace(run.cell, net="cifar-vit")) for run in runs]
    quoted = headline_of([*strong, *weak], labels)
    assert set(quoted) == {
        "corruption5_gain", "gain_over_noise_only", "gain5_over_noise_only", "gain_without_noise_group",
        "gain_over_plain_without_noise_group", "clean_change",
    }  # fmt: skip
    assert quoted["corruption5_gain"].value == pytest.approx(0.08)
    assert quoted["gain_over_noise_only"].value == pytest.approx(0.05)
    assert set(MEASURES) - set(rows["noise"]) == {"natural"}
    store = CellStore(tmp_path / "cells", {"a": 1})
    store.write(runs[0])
    back = CellStore(tmp_path / "cells", {"a": 1}).read(runs[0].cell)
    assert back is not None
    assert all(np.array_equal(back.right[key], value) for key, value in runs[0].right.items())
    assert back.facts == runs[0].facts
    assert CellStore(tmp_path / "cells", {"a": 1}).cells() == [runs[0].cell]


def test_each_corruption_has_the_gains_over_control_and_plain() -> None:
    labels = {"test": [k % 2 for k in range(200)]}
    shares = (("plain", 0.5), ("noise", 0.6), ("diffaug", 0.7), ("augmix-diffaug", 0.7))
    runs = [judgement(arm, seed, share) for seed in range(2) for arm, share in shares]
    runs[2].right["snow-5"][:] = np.arange(200) < 100  # diffaug, seed 0: no better than plain there
    rows = {(row["arm"], row["corruption"], row["severity"]): row for row in corruption_rows(runs[:-1], labels)}
    assert len(rows) == 4 * len(ALL) * 5
    fog, snow = rows["diffaug", "fog", 5], rows["diffaug", "snow", 5]
    assert [fog[f"gain_over_{other}"] for other in ("noise", "plain")] == pytest.approx([0.1, 0.2])
    assert 0 < fog["gain_over_noise_low"] < 0.1 < fog["gain_over_noise_high"]
    assert fog["gain_over_plain_runs"] == 2
    assert snow["accuracy"] == pytest.approx(0.6)
    assert [snow[f"gain_over_{other}"] for other in ("noise", "plain")] == pytest.approx([0, 0.1])
    assert snow["gain_over_noise_low"] < 0 < snow["gain_over_noise_high"]
    whole = [run for run in gain_rows(runs, labels) if (run["arm"], run["over"]) == ("diffaug", "plain")]
    over = [row["gain_over_plain"] for (arm, name, _), row in rows.items() if arm == "diffaug" and name in COMMON]
    assert np.mean(over) == pytest.approx(whole[0]["corrupted"])
    assert not [key for arm in ("plain", "augmix-diffaug") for key in rows[arm, "fog", 5] if "gain" in key]  # augmix has no cells
    assert "gain_over_noise" not in rows["noise", "fog", 5]


def test_cells_of_other_means_are_told(tmp_path: Path) -> None:
    runs = [replace(judgement("plain", seed, 0.9), facts={"batch": 128, "numbers": "bfloat16", "steps": seed}) for seed in range(2)]
    assert unlike(runs) == []
    other = replace(runs[0], facts={"batch": 64, "numbers": "float32", "steps": 9})
    assert unlike([*runs, other]) == [
        "cells of resnet-14 differ in batch: 128, 64",
        "cells of resnet-14 differ in numbers: bfloat16, float32",
    ]
    views = [
        replace(judgement(arm, seed, 0.9), facts=facts)
        for seed, (arm, facts) in enumerate(
            [("plain", {}), ("noise", {}), ("noise", {"views of noise": "ab"}), ("diffaug", {"views of diffaug": "cd"})]
        )
    ]
    assert unlike(views) == ["cells of resnet-14 differ in views of noise: not noted, ab"]
    assert unlike(views[2:]) == []


def test_nets_have_seeds_of_their_own_and_results_names_of_their_own() -> None:
    parser = options("diffaug_cifar10", "", ARMS)
    given = parser.parse_args(["--net", "resnet-14", "cifar-vit:1", "--seeds", "2", "--arms", "plain"])
    assert [(cell.net, cell.seed) for cell in cells_of(given)] == [("resnet-14", 0), ("resnet-14", 1), ("cifar-vit", 0)]
    assert named("x", given) == "reduced_x"
    assert named("x", parser.parse_args([])) == "x"
    assert named("x", parser.parse_args(["--denoiser", "other.pt"])) == "reduced_x"
    parser.add_argument("--dda-pictures", type=int, default=100)
    assert named("x", parser.parse_args(["--dda-pictures", "200"])) == "x"
    assert named("x", parser.parse_args(["--dda-pictures", "0"])) == "reduced_x"
    assert named("x", parser.parse_args(["--seeds", "5", "--net", "resnet-14", "cifar-vit:1"])) == "x"
    assert named("x", parser.parse_args(["--net", "cifar-vit:1", "--pictures", "9"])) == "reduced_x_cifar-vit"
    for wrong in ("resnet-15", "resnet-14:0", "resnet-14:two"):
        with pytest.raises(ConfigError, match=r"NET:SEEDS such as cifar-vit:1, got 'resnet-1"):
            cells_of(parser.parse_args(["--net", wrong]))


def test_a_weak_plain_net_ends_the_experiment_at_once() -> None:
    class Store:
        def __init__(self, held: float) -> None:
            self.held = held

        def read(self, cell: Cell) -> Judgement:
            return replace(judgement(cell.arm, cell.seed, 0.9), held=self.held)

    bench: Any = SimpleNamespace(gated=True)
    store: Any = Store(0.84)
    cells = [Cell(net="resnet-14", arm=arm, seed=0) for arm in ("plain", "noise")]
    assert len(run_cells(bench, cast(Any, Store(0.86)), cells, None)) == 2
    with pytest.raises(ConfigError, match=r"plain resnet-14 names fewer than 85% of the held-out pictures rightly"):
        run_cells(bench, store, cells, None)
    assert len(run_cells(cast(Any, SimpleNamespace(gated=False)), store, cells, None)) == 2


def test_a_weak_net_is_given_up_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Store:
        def read(self, cell: Cell) -> Judgement:
            assert (cell.net, cell.arm) != ("cifar-vit", "noise")
            return replace(judgement(cell.arm, cell.seed, 0.9), cell=cell, held=0.9 if cell.net == "resnet-14" else 0.6)

    bench: Any = SimpleNamespace(gated=True)
    cells = [Cell(net=net, arm=arm, seed=0) for net in ("resnet-14", "cifar-vit") for arm in ("plain", "noise")]
    found = run_cells(bench, cast(Any, Store()), cells, None)
    assert [run.cell for run in found] == cells[:3]
    assert missing_of(bench, cells, found) == []
    assert missing_of(bench, cells, found[:1]) == cells[1:]
    swapped = [replace(cell, net={"resnet-14": "cifar-vit", "cifar-vit": "resnet-14"}[cell.net]) for cell in cells]
    given = options("diffaug_cifar10", "", ARMS).parse_args(["--net", "cifar-vit", "resnet-14", "--seeds", "1"])
    assert asked_net(given, run_cells(bench, cast(Any, Store()), swapped, None), ["noise"]) == ("resnet-14", [0])
    assert asked_net(given, found[2:], ["noise"]) is None
    assert "plain cifar-vit names fewer" in capsys.readouterr().err


def test_ensembles_ask_every_seed_of_which_all_their_arms_are_there() -> None:
    there = [judgement("plain", seed, 0.9) for seed in (2, 0, 1)] + [judgement("diffaug", seed, 0.9) for seed in (0, 2)]
    given = options("diffaug_cifar10", "", ARMS).parse_args(["--seeds", "1"])
    assert asked_net(given, there, ["plain", "diffaug"]) == ("resnet-14", [0, 2])
    assert asked_net(given, there, ["plain", "diffaug", "noise"]) is None
    assert asked_net(given, there, []) is None


def test_hours_are_held_against_what_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    class Store:
        def read(self, cell: Cell) -> Judgement | None:
            return replace(judgement(cell.arm, 0, 0.9), facts={"seconds": 1800.0}) if cell.arm == "plain" else None

    bench: Any = SimpleNamespace(gated=False)
    cells = [Cell(net="resnet-14", arm=arm, seed=0) for arm in ("noise", "plain")]
    assert [run.cell.arm for run in run_cells(bench, cast(Any, Store()), cells, 0.4)] == ["plain"]
    assert "resnet-14_noise_0: left for another call, it would take about 30 min" in capsys.readouterr().err


def test_two_processes_share_the_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [Cell(net="resnet-14", arm=arm, seed=0) for arm in ("plain", "noise", "diffaug")]
    runs: list[str] = []

    class Bench:
        gated, work = False, tmp_path

        def run(self, cell: Cell) -> Judgement:
            runs.append(cell.arm)
            if cell.arm == "diffaug":
                with claimed(tmp_path / "banks" / "diffaug.lock"):  # as another process, whose views are not yet there, would
                    raise AssertionError
            if len(runs) == 1:  # while this one is at plain, the other does what is left
                assert [run.cell.arm for run in run_cells(cast(Any, Bench()), store, cells, None)] == ["noise"]
            return judgement(cell.arm, 0, 0.9)

        def forget(self, cell: Cell) -> None:
            pass

    store = CellStore(tmp_path / "judged", {})
    with claimed(tmp_path / "banks" / "diffaug.lock"):
        assert [run.cell.arm for run in run_cells(cast(Any, Bench()), store, cells, None)] == ["plain", "noise"]
    assert runs == ["plain", "noise", "diffaug", "diffaug"]
    said = capsys.readouterr().err
    assert "resnet-14_plain_0: left to another process" in said
    assert "resnet-14_diffaug_0: left to another process" in said
    assert not list((tmp_path / "cells").iterdir())


def test_a_diary_survives_a_kill(tmp_path: Path) -> None:
    first = Diary(tmp_path / "cell.json")
    for step in (300, 600):
        first.note(step, {"loss": 1 / step})
    again = Diary(tmp_path / "cell.json")
    assert again.losses == [(300, 0.0033), (600, 0.0017)]
    again.note(600, {"loss": 0.5})  # the checkpoint was that of step 300
    assert Diary(tmp_path / "cell.json").losses == [(300, 0.0033), (600, 0.5)]
    assert again.seconds >= again.before >= 0


def test_a_lowered_net_says_what_it_says_in_float32(tmp_path: Path) -> None:
    net = open_net(NETS[0], CLASSES, seed=0)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = net.eval()(images)
        for numbers, near in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
            found = Lowered(open_net(NETS[0], CLASSES, seed=0).eval(), numbers)(images)
            assert found.dtype is torch.float32
            assert torch.allclose(found, exact, atol=near * float(exact.abs().max()))
            assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in Lowered(open_net(NETS[0], CLASSES, 0), numbers).modules())
    net.save(tmp_path / "before")
    lower_head(net)
    net.save(tmp_path / "after")
    assert (tmp_path / "before" / "model.safetensors").read_bytes() == (tmp_path / "after" / "model.safetensors").read_bytes()
    assert opened(tmp_path / "after", torch.device("cpu"), "a").head.out_features == 10


def test_natural_shift_counts_only_the_classes_that_it_shows(tmp_path: Path) -> None:
    write_pictures(tmp_path / "tiny-imagenet-base", "train", 12, names=("gondola", "goldfish", "tabby"))
    images = natural_images(tmp_path)
    assert images is not None
    assert len(images) == 8
    assert {images.classes[label] for label in images.labels if label is not None} == {"cat", "ship"}
    shift = shift_of(images, ("airplane", "cat", "ship"))
    assert shift.images.shape == (8, 3, 32, 32)
    assert shift.shown.tolist() == [1, 2]
    assert shift.labels.tolist() == [2, 1] * 4
    assert natural_images(tmp_path / "nowhere") is None


def test_the_mapped_classes_are_those_of_the_set(shared_data: Path) -> None:
    names = open_images(shared_data / "tiny-imagenet-base", split="validation").classes
    mapped = [term for terms in SHIFTED.values() for term in terms]
    assert len(mapped) == len(set(mapped)) == 18
    assert {*mapped, *UNCLEAR} <= set(names)


def test_a_trial_from_pictures_to_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffaug_cifar10, "DDASettings", partial(DDASettings, steps=1))
    for split in ("train", "test"):
        write_pictures(tmp_path / "data" / "cifar10", split, 42, size=32, names=("cat", "dog", "ship"))
    write_pictures(tmp_path / "data" / "tiny-imagenet-base", "train", 9, names=("gondola", "goldfish", "tabby"))
    denoiser = tiny_pixel(tmp_path / "tiny", sample_size=32)
    asked = [
        "--data", str(tmp_path / "data"), "--denoiser", str(denoiser), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"),
        "--arms", "plain", "noise", "diffaug", "augmix-diffaug", "--seeds", "1", "--epochs", "1", "--draws", "1", "--pictures", "24",
        "--held", "6", "--ensemble-pictures", "6", "--dda-pictures", "5", "--device", "cpu",
    ]  # fmt: skip
    assert main([*asked, "--hours", "0"]) == 1
    assert main([*asked[:-2], "--net", "resnet-15"]) == 2
    assert main(asked) == 0
    first = json.loads((tmp_path / "out" / "reduced_diffaug_cifar10.json").read_text())
    rows = {table: [row for row in first["rows"] if row["table"] == table] for table in ("arms", "ensemble", "corruptions")}
    assert len(rows["corruptions"]) == 4 * 19 * 5
    by = [row["accuracy"] for row in rows["corruptions"] if row["arm"] == "plain" and row["corruption"] in COMMON]
    means = [row["corrupted"] for row in rows["arms"] if row["arm"] == "plain"]  # over classes of equal size
    assert np.mean(by) == pytest.approx(means[0])
    assert sum("gain_over_noise_low" in row for row in rows["corruptions"]) == 19 * 5
    assert [row["arm"] for row in rows["arms"]] == ["plain", "noise", "diffaug", "augmix-diffaug"]
    assert [row["arm"] for row in rows["ensemble"]] == ["plain", "noise", "diffaug"]
    assert all(0 <= row["natural"] <= 1 for row in rows["arms"])
    row = rows["ensemble"][-1]
    assert row["ensemble_gain_corrupted_5"] == pytest.approx(row["ensemble_corrupted_5"] - row["corrupted_5"])
    dda = {kind: [row for row in first["rows"] if row["table"] == kind] for kind in ("dda", "dda_se")}
    assert [row["arm"] for row in dda["dda"]] == [row["arm"] for row in dda["dda_se"]] == ["plain", "noise", "diffaug"]
    for kind, (row, *_) in dda.items():
        assert row["pictures"] == 5
        assert row[f"{kind}_gain_clean"] == pytest.approx(row[f"{kind}_clean"] - row["clean"])
        assert f"{kind}_over_ensemble_corrupted_5_low" in row
    assert first["headline"] == {}
    assert any("not to be quoted, and none is" in note for note in first["notes"])
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "work" / "judged").glob("*.kept")}
    assert len(stamps) == 4
    assert not list((tmp_path / "work" / "cells").iterdir())
    assert main(asked) == 0
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    again = json.loads((tmp_path / "out" / "reduced_diffaug_cifar10.json").read_text())
    assert again["rows"] == first["rows"]
    assert main([*asked, "--draws", "2"]) == 2
    assert "belongs to another call" in capsys.readouterr().err


def test_finished_cells_go_on_at_another_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write_pictures(tmp_path / "data" / "cifar10", split, 42, size=32, names=("cat", "dog", "ship"))
    denoiser = tiny_pixel(tmp_path / "tiny", sample_size=32)
    asked = [
        "--data", str(tmp_path / "data"), "--denoiser", str(denoiser), "--out", str(tmp_path / "out"), "--arms", "plain", "--seeds", "1",
        "--epochs", "1", "--draws", "1", "--pictures", "24", "--held", "6", "--ensemble-pictures", "0", "--dda-pictures", "0",
        "--device", "cpu",
    ]  # fmt: skip
    first, second = (["--work", str(tmp_path / machine), "--store", str(tmp_path / place)] for machine, place in ("aA", "bB"))
    assert main([*asked, *first]) == 0
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    capsys.readouterr()
    assert main([*asked, *second]) == 0
    assert "training resnet-14" not in capsys.readouterr().err
    made = json.loads((tmp_path / "out" / "reduced_diffaug_cifar10.json").read_text())
    assert sum("1 cell trained on" in note for note in made["notes"]) == 1
    net = Classifier.load(tmp_path / "B" / "nets" / "resnet-14_plain_0")
    assert all(torch.equal(value, value.half().float()) for value in net.model.state_dict().values() if value.is_floating_point())
    (tmp_path / "B" / "nets" / "resnet-14_plain_0" / "config.json").unlink()
    assert main([*asked, *second, "--ensemble-pictures", "6"]) == 2
    assert "bring the net along" in capsys.readouterr().err
