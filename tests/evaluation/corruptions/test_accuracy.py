"""Models beside each other under corruptions: the same as by hand, whatever the batch, and after being killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.corruptions.toys import network, pictures

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import ALEXNET_ERRORS, COMMON
from rediffuse.evaluation.corruptions.frost import photo_folder
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.corruptions.sources import Live
from rediffuse.evaluation.results import read_result

NAMES = list("abcd")
PIXELS = pictures(24)
IMAGES = ImageSet.of(
    [Example(id=str(row), image=Image.fromarray(image.permute(1, 2, 0).numpy()), label=row % 4) for row, image in enumerate(PIXELS)],
    classes=NAMES,
    name="blocks",
)
MODELS = [network(NAMES, 0), network(NAMES[::-1], 1), network(["more", *NAMES], 2)]
FEW = ("gaussian_noise", "fog", "contrast")


def test_all_models_judge_the_same_pictures() -> None:
    found = corruption_accuracy(MODELS, IMAGES, corruptions=FEW, severities=(1, 5), batch=7)
    assert found.right.shape == (3, 3, 2, 24)
    for row, model in enumerate(MODELS):
        truth = torch.tensor([model.classes.index(NAMES[place % 4]) for place in range(24)])
        assert (found.clean[row] == (model.logits(PIXELS / 255).argmax(1) == truth).numpy()).all()
        for place, name in enumerate(FEW):
            made = corrupt(PIXELS, name, 5).float() / 255
            assert (found.right[row, place, 1] == (model.logits(made).argmax(1) == truth).numpy()).all()
    again = corruption_accuracy(MODELS, IMAGES, corruptions=FEW, severities=(1, 5), batch=24)
    assert (again.right == found.right).all()


class _KilledError(Exception):
    pass


def test_kill_and_resume_give_the_same_numbers(tmp_path: Path) -> None:
    whole = corruption_accuracy(MODELS[:2], IMAGES, corruptions=FEW, severities=(3, 5), batch=8)
    seen = []

    def kill(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 24 * 4:
            raise _KilledError

    for _ in range(2):
        with pytest.raises(_KilledError):
            corruption_accuracy(MODELS[:2], IMAGES, corruptions=FEW, severities=(3, 5), batch=8, keep=tmp_path / "kept", progress=kill)
    assert seen[-1] == (96, 24 * 7)
    asked: list[tuple[str, int]] = []

    class Watched(Live):
        def under(self, corruption, severity, batch):  # type: ignore[no-untyped-def]
            asked.append((corruption, severity))
            return super().under(corruption, severity, batch)

    resumed = corruption_accuracy(MODELS[:2], Watched(IMAGES), corruptions=FEW, severities=(3, 5), batch=5, keep=tmp_path / "kept")
    assert asked[0] == ("fog", 5) or asked[0] == ("fog", 3)
    assert ("gaussian_noise", 3) not in asked
    assert (resumed.right == whole.right).all()
    assert (resumed.clean == whole.clean).all()
    turned = corruption_accuracy(MODELS[1::-1], IMAGES, corruptions=FEW, severities=(3, 5), keep=tmp_path / "kept")
    assert (turned.right == whole.right[::-1]).all()
    with pytest.raises(ConfigError, match="belongs to another call"):
        corruption_accuracy(MODELS[1:], IMAGES, corruptions=FEW, severities=(3, 5), keep=tmp_path / "kept")
    relabelled = ImageSet.of((replace(each, label=0) for each in IMAGES), classes=IMAGES.classes, name=IMAGES.name)
    with pytest.raises(ConfigError, match="belongs to another call"):  # the same pictures, but other ones are right
        corruption_accuracy(MODELS[:2], relabelled, corruptions=FEW, severities=(3, 5), keep=tmp_path / "kept")


def _result(right: np.ndarray, names: tuple[str, ...], severities: tuple[int, ...] = (1, 5), **more: object) -> CorruptionResult:
    models = tuple("xyz"[: len(right)])
    return CorruptionResult(
        name="made", models=models, corruptions=names, severities=severities, right=right, comparable=(True,) * len(names), **more
    )


def test_figures_are_means_of_what_they_name() -> None:
    names = ("gaussian_noise", "fog", "contrast", "saturate")
    right = np.random.default_rng(0).random((2, 4, 2, 500)) < np.array([0.8, 0.6])[:, None, None, None]
    found = _result(right, names)
    assert np.allclose(found.table("x"), right[0].mean(-1))
    assert found.mean("y").value == pytest.approx(right[1, :3].mean())  # the extra four never count unless they are named
    assert found.mean("y", severities=(5,)).value == pytest.approx(right[1, :3, 1].mean())
    assert found.group("without_noise", "x").value == pytest.approx(right[0, 1:3].mean())
    assert found.group("extra", "x").value == pytest.approx(right[0, 3].mean())
    assert found.groups() == ("noise", "weather", "digital", "extra", "without_noise")
    gain = found.difference("x", "y")
    each = (right[0, :3].astype(float) - right[1, :3]).mean((0, 1))
    assert gain.value == pytest.approx(each.mean())
    half = 1.96 * each.std() / np.sqrt(500)
    assert gain.low == pytest.approx(each.mean() - half, abs=0.1 * half)
    assert gain.high == pytest.approx(each.mean() + half, abs=0.1 * half)
    for call in (
        lambda: found.mean(),
        lambda: found.mean("w"),
        lambda: found.mean("x", severities=(2,)),
        lambda: found.group("blurr", "x"),
    ):
        with pytest.raises(ConfigError):
            call()


def test_mce_is_relative_to_the_reference() -> None:
    right = np.zeros((2, 2, 2, 10), dtype=bool)
    right[0, 0, :, :8] = right[0, 1, :, :6] = True  # errors .2 and .4
    right[1, 0, :, :6] = right[1, 1, :, :2] = True  # errors .4 and .8
    found = _result(right, ("fog", "contrast"))
    assert found.mce(found, "x", reference_model="y") == pytest.approx(0.5)
    assert found.mce(found, "y", reference_model="y") == pytest.approx(1)
    assert found.mce({"fog": 0.1, "contrast": 0.8}, "x") == pytest.approx((2 + 0.5) / 2)
    with pytest.raises(ConfigError, match="lacks contrast"):
        found.mce({"fog": 0.1}, "x")
    with pytest.raises(ConfigError, match="no error under fog"):
        found.mce({"fog": 0.0, "contrast": 1.0}, "x")
    assert tuple(ALEXNET_ERRORS) == COMMON


def test_alexnets_errors_want_all_that_they_are_of() -> None:
    right = np.random.default_rng(0).random((1, 15, 5, 10)) < 0.6
    found = _result(right, COMMON, (1, 2, 3, 4, 5), side=224)
    errors = 1 - right[0].mean((1, 2))
    assert found.mce(ALEXNET_ERRORS) == pytest.approx(
        np.mean([own / ALEXNET_ERRORS[name] for name, own in zip(COMMON, errors, strict=True)])
    )
    assert replace(found, side=0).mce(ALEXNET_ERRORS) == found.mce(ALEXNET_ERRORS)
    for part, said in (
        (_result(right[:, :, 4:], COMMON, (5,), side=224), "made lacks severity 1, severity 2, severity 3, severity 4; measure"),
        (_result(right[:, 2:], COMMON[2:], (1, 2, 3, 4, 5), side=224), "made lacks gaussian_noise, shot_noise; measure"),
        (replace(found, side=64), r"made lacks a side of 224 px \(it is 64\)"),
    ):
        with pytest.raises(ConfigError, match=said):
            part.mce(ALEXNET_ERRORS)
        with pytest.raises(ConfigError, match=said):
            part.mce(dict(ALEXNET_ERRORS), "x")
        assert part.mce(part) == pytest.approx(1)


def test_the_result_saves_itself(tmp_path: Path) -> None:
    found = corruption_accuracy(MODELS[:2], IMAGES, corruptions=("fog", "frost", "gaussian_noise"), severities=(5,))
    there = read_result(found.save("corrupted", tmp_path, command="test"))
    assert {"net 0_clean", "net 0_mean", "net 1_mean5", "net 0_weather", "net 0_mean5_without_noise", "gain_over_net 1"} <= set(
        there.headline
    )
    assert len(there.rows) == 2 * (3 + 1)
    assert {row["comparable"] for row in there.rows if row["corruption"] == "frost"} == {photo_folder() is not None}
    assert any("frost is drawn" in note for note in there.notes) == (photo_folder() is None)
    assert found.to_json()["images"] == 24


def test_pictures_that_do_not_fit_are_refused() -> None:
    def one(width: int, height: int, label: int | None = 0) -> ImageSet:
        return ImageSet.of([Example(id="p", image=Image.new("RGB", (width, height)), label=label)], classes=NAMES, name="set")

    for images, match in (
        (one(40, 32), "p of set is 40 x 32 px and corruptions want squares; give the size"),
        (one(31, 31), "31 px are too small"),
        (one(32, 32, None), "has no label"),
        (IMAGES.subset([]), "holds no images"),
        (ImageSet.of([*IMAGES, *one(64, 64)], classes=NAMES), "32 and of 64 px"),
    ):
        with pytest.raises(DataError, match=match):
            corruption_accuracy(MODELS[0], images)
    with pytest.raises(DataError, match="does not know"):
        corruption_accuracy(network(["a", "b", "x"]), IMAGES)
    assert (
        corruption_accuracy(MODELS[0], one(50, 40), corruptions=["snow"], severities=[2], size=48).notes[0].startswith("pictures of 48 px")
    )


def test_settings_that_do_not_fit_are_refused() -> None:
    for more, match in (
        ({"corruptions": ["rain"]}, r"no corruption is called 'rain'\. There are gaussian_noise"),
        ({"severities": [6]}, "severity must be"),
        ({"severities": []}, "at least one"),
        ({"corruptions": ["fog", "fog"]}, "each once"),
        ({"batch": 0}, "batch must be"),
    ):
        with pytest.raises(ConfigError, match=match):
            corruption_accuracy(MODELS[0], IMAGES, **more)
    with pytest.raises(ConfigError, match="different names"):
        corruption_accuracy([MODELS[0], MODELS[0]], IMAGES)
    with pytest.raises(ConfigError, match="size belongs to clean pictures"):
        corruption_accuracy(MODELS[0], Live(IMAGES), size=32)


def test_a_set_too_large_to_hold_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held = corruption_accuracy(MODELS[0], IMAGES, corruptions=FEW[:2], severities=(5,))
    monkeypatch.setattr("rediffuse.evaluation.corruptions.sources.HELD", 0)
    assert (corruption_accuracy(MODELS[0], IMAGES, corruptions=FEW[:2], severities=(5,)).right == held.right).all()


def test_of_a_result_made_by_hand_nothing_is_comparable(tmp_path: Path) -> None:
    given: dict[str, Any] = {"name": "made", "models": ("a",), "corruptions": ("fog", "snow"), "severities": (1,)}
    right = np.zeros((1, 2, 1, 12), dtype=bool)
    found = CorruptionResult(**given, right=right)
    assert [row["comparable"] for row in found.rows() if row["corruption"] in given["corruptions"]] == [False, False]
    assert found.save("made", tmp_path, command="test").is_file()
    with pytest.raises(ConfigError, match="comparable must hold one of 2 corruptions, got 1"):
        CorruptionResult(**given, right=right, comparable=(True,))
