"""Figures that flatter are said to: photos that taught the classifier."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Ended

from rediffuse.data import folder
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
