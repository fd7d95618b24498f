"""Figures that flatter: photos that taught the classifier are told, generated pictures in the place of photos are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended, fill
from tests.cli.test_bad_input import refused

from rediffuse.cli.pair import NO_JUDGE, check_real
from rediffuse.data import folder, open_images
from rediffuse.errors import ConfigError
from rediffuse.training.backbones import open_backbone
from rediffuse.training.trained_on import write_learned


def test_predict_says_which_photos_taught_the_classifier(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    """Where labels are known; without them no accuracy is said, and none flatters."""
    net = open_backbone("scratch", ("cat", "dog", "red bird"), size=16).save(tmp_path / "net")
    assert "photos taught" not in rediffuse("predict", net, photos, "--out", "fair.csv").err
    write_learned(net, folder(photos).digests[:5])
    ended = rediffuse("predict", net, photos, "--quiet")
    assert ended.status == 0, ended.err
    assert "5 of these 12 photos taught net; its accuracy and all that follows are too good" in ended.err
    flat = tmp_path / "flat"
    flat.mkdir()
    for place, file in enumerate(sorted(photos.rglob("*.png"))):
        shutil.copy(file, flat / f"{place}.png")
    bare = rediffuse("predict", net, flat, "--out", "flat.csv")
    assert bare.status == 0, bare.err
    assert "photos taught" not in bare.err


def test_a_run_is_no_photos(rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path) -> None:
    """Whether it is named by its folder or by that of its images; in Python it opens as ever."""
    made = rediffuse("augment", photos, "more", "--model", model, "--method", "real-guidance", "--steps", 2, "--copies", 1)
    assert made.status == 0, made.err
    for place in ("more", "more/images", "more/"):
        refused(rediffuse("train", place, "net"), "generated, not real", f"--synthetic {place}")
        refused(rediffuse("train", photos, "net", "--test", place), "nothing to judge by")
        refused(rediffuse("compare", place), "nothing to judge by")
        refused(rediffuse("compare", photos, "--test", place), "nothing to judge by")
        refused(rediffuse("evaluate", "resnet-64", place), "nothing to judge by")
    assert not Path("net").exists()
    assert not Path("comparison").exists()
    assert len(open_images("more")) == 12


def test_a_split_that_is_a_run_is_refused_too(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", {"cat": 1, "dog": 1})
    (data / "more" / "images").mkdir(parents=True)
    (data / "more" / "run.json").touch()
    check_real(str(data), NO_JUDGE)
    check_real(str(data), NO_JUDGE, "cat")
    with pytest.raises(ConfigError, match="more holds the images of a run"):
        check_real(str(data), NO_JUDGE, "more")
