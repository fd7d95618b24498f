"""The examples of docs/corruptions.md and fidelity.md run as they stand, with smaller pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.corruptions.test_sources import LABELS, PIXELS, cifar_c, write
from tests.evaluation.corruptions.toys import network
from tests.evaluation.fidelity.test_published import REAL, StandIn, stand_in
from tests.evaluation.test_pages import examples, lay
from tests.training.toys import striped

from rediffuse.evaluation.corruptions.constants import COMMON
from rediffuse.evaluation.corruptions.imagenet import imagenet_d, known_subset, wnids
from rediffuse.evaluation.corruptions.published import CIFAR10
from rediffuse.training.backbones import open_backbone

__all__ = ["stand_in"]  # a fixture


def test_corruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "test", striped(2))
    for seed, name in enumerate(("plain", "robust")):
        open_backbone("scratch", striped(1).classes, seed=seed, size=16).save(tmp_path / name)
    space: dict[str, Any] = {}
    drawn, published, some, folders = (
        text.replace("size=64", "size=32").replace("size=224", "size=32") for text in examples("corruptions.md")
    )
    exec(drawn, space)
    assert space["found"].models == ("robust", "plain")
    assert (tmp_path / "results" / "corruptions_photos.json").exists()

    cifar_c(tmp_path / "CIFAR-10-C", COMMON)
    for name in COMMON:
        for severity in range(1, 6):
            write(tmp_path / "ImageNet-C" / name / str(severity), PIXELS[:2], [wnids()[3]])
    first, second, third = published.strip().split("\n\n")[0], *published.strip().split("\n\n")[1].splitlines()
    exec(first, space)
    for line, classes, pictures in ((second, list(CIFAR10), len(LABELS)), (third, list(wnids()), 2)):
        space["models"] = [network(classes)]
        exec(f"found = {line}", space)
        assert space["found"].right.shape == (1, 15, 5, pictures)

    write(tmp_path / "imagenet-r", PIXELS[:4], list(known_subset("imagenet-r")[5:7]))
    write(tmp_path / "ImageNet-D" / "background", PIXELS[:4], list(imagenet_d())[:2])
    for text, among in ((some, 200), (folders, 1000)):
        setup, call = text.strip().split("\n\n")
        exec(setup, space)
        exec(f"found = {call}", space)
        assert space["found"].classes == among


def test_fidelity(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "photos" / "test", REAL)
    lay(tmp_path / "photos" / "train", striped(4, size=8, seed=3))
    lay(tmp_path / "out" / "images", REAL)
    torch.manual_seed(0)
    torch.save(torch.nn.ModuleDict({"fc": torch.nn.Linear(3, 5)}).state_dict(), "weights-inception-2015-12-05-6726825d.pth")
    measured, inception, search = examples("fidelity.md")
    space: dict[str, Any] = {}
    exec(measured, space)
    assert space["found"].headline()["precision"] == 1
    assert (tmp_path / "results" / "fidelity_photos.json").exists()
    space |= {"real": REAL, "made": striped(4, size=8, seed=2)}
    exec(inception, space)
    assert isinstance(space["network"].network, StandIn)
    assert space["found"].extractor == "PublishedInception"
    exec(search, space)
    assert space["pairs"].share().value == 1
    assert (tmp_path / "results" / "duplicates_photos.json").exists()
