"""Options of a command reach the functions that they are for; nothing is trained or judged here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ended, fill
from tests.training import toys

from rediffuse.cli import train as train_verb
from rediffuse.data import Mixed, folder, mixing, splits
from rediffuse.evaluation.few_shot import compare as comparing
from rediffuse.evaluation.suite.evaluate import Bench
from rediffuse.methods.bank import Bank
from rediffuse.training import backbones, fit, loop

Watch = Callable[..., dict[str, Any]]


class ArrivedError(Exception):
    """In place of the work."""


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """watch(owner, name): what that function is called with, by name; it ends the command, or with `works` does its work."""

    def watching(owner: object, name: str, works: bool = False) -> dict[str, Any]:
        real, found = getattr(owner, name), {}

        def instead(*given: Any, **options: Any) -> Any:
            found.update(inspect.signature(real).bind(*given, **options).arguments)
            if works:
                return real(*given, **options)
            raise ArrivedError

        monkeypatch.setattr(owner, name, instead)
        return found

    return watching


def of(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: found[name] for name in names}


def test_train(rediffuse: Callable[..., Ended], photos: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = toys.copies_of(folder(photos), 1)
    monkeypatch.setattr(train_verb, "open_photos", lambda *_, **__: copies)
    held, few = watch(splits, "holdout", works=True), watch(splits, "few_shot", works=True)
    mixed, fitted = watch(mixing, "Mixed", works=True), watch(fit, "fit_classifier")
    opened = watch(backbones, "open_backbone", works=True)
    words = ("--synthetic", "more", "--alpha", 0.3, "--seed", 7, "--holdout", 0.25, "--shots", 2)
    with pytest.raises(ArrivedError):
        rediffuse("train", photos, "net", *words, "--mode", "whole", "--steps", 5, "--size", 16, "--fit", "crop", "--no-flips")
    assert of(held, "fraction", "seed") == {"fraction": 0.25, "seed": 7}
    assert of(few, "n", "seed") == {"n": 2, "seed": 7}
    assert mixed["alpha"] == 0.3
    assert isinstance(fitted["train_set"], Mixed)
    assert (opened["level"], opened["seed"], opened["size"]) == ("scratch", 7, 16)
    assert of(fitted, "mode", "steps", "seed", "size", "fit", "flips", "device", "checkpoint") == {
        "mode": "whole", "steps": 5, "seed": 7, "size": 16, "fit": "crop", "flips": False, "device": "auto",
        "checkpoint": Path("net/.training.pt"),
    }  # fmt: skip


def test_a_long_training(rediffuse: Callable[..., Ended], photos: Path, watch: Watch) -> None:
    opened, fitted = watch(backbones, "open_backbone", works=True), watch(loop, "fit_network")
    words = ("--augment", "noise", "--bank-rate", 0.5, "--fraction", 0.75, "--seed", 7, "--steps", 5, "--batch", 4, "--size", 16)
    with pytest.raises(ArrivedError):
        rediffuse("train", photos, "net", *words, "--optimizer", "adamw", "--learning-rate", 0.02, "--ema", 0.5, "--dtype", "float32")
    assert opened["seed"] == fitted["seed"] == 7
    settings, procedure, (extra,) = fitted["settings"], fitted["procedure"], fitted["objective"].extras
    assert (settings.steps, settings.batch, settings.learning_rate) == (5, 4, 0.02)
    assert (procedure.optimizer, procedure.ema, procedure.dtype) == ("adamw", 0.5, "float32")
    assert of(fitted, "view_size", "checkpoint") == {"view_size": (16, 16), "checkpoint": Path("net/.training.pt")}
    assert isinstance(extra.method, Bank)
    assert (extra.share, extra.method.rate, extra.method._stream.initial_seed()) == (0.75, 0.5, 7)


def test_evaluate(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, watch: Watch) -> None:
    net = backbones.open_backbone("scratch", ("cat", "dog", "red bird"), size=16).save(tmp_path / "net")
    near, far = fill(tmp_path / "near", {"other": 2}), fill(tmp_path / "far", {"another": 2}, first=9)
    known = fill(tmp_path / "known", {"cat": 1, "dog": 1, "red bird": 1}, first=50)
    prepared = watch(Bench, "prepare")
    words = ("--denoiser", "none", "--near", near, "--far", far, "--train", known, "--out", "judged")
    with pytest.raises(ArrivedError):
        rediffuse("evaluate", net, photos, *words, "--seed", 7, "--images", 5, "--size", 12, "--fit", "crop", "--suite", "full")
    assert of(prepared, "suite", "size", "fit", "denoiser", "images", "seed", "keep") == {
        "suite": "full", "size": 12, "fit": "crop", "denoiser": None, "images": 5, "seed": 7, "keep": Path("judged/work"),
    }  # fmt: skip
    for name, (place,) in {"near": (near,), "far": (far,)}.items():
        assert [images.digests for images in prepared[name]] == [folder(place).digests]
    assert prepared["train"].digests == folder(known).digests


def test_compare(rediffuse: Callable[..., Ended], photos: Path, watch: Watch) -> None:
    compared = watch(comparing, "compare")
    words = ("--arms", "pixels", "standard", "--classifier", "scratch", "--shots", 1, 2, "--seeds", 2, "--copies", 3, "--hours", 2)
    more = ("--seed", 7, "--alpha", 0.3, "--train-steps", 5, "--view", 16, "--fit", "crop", "--dry-run", "--out", "there")
    with pytest.raises(ArrivedError):
        rediffuse("compare", photos, *words, *more)
    assert list(compared["seeds"]) == [7, 8]
    assert compared["making"].copies == compared["copies"] == 3
    assert of(compared, "arms", "levels", "shots", "alpha", "steps", "size", "fit", "hours", "dry_run", "out") == {
        "arms": ("pixels", "standard"), "levels": ("scratch",), "shots": (1, 2), "alpha": 0.3, "steps": 5, "size": 16, "fit": "crop",
        "hours": 2, "dry_run": True, "out": Path("there"),
    }  # fmt: skip
