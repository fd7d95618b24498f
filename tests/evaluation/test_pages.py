"""The examples of docs/certificates.md, calibration.md and ood.md run as they stand, with fewer draws and steps and smaller pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.ood.toys import noise
from tests.tiny_pixel import tiny_pixel
from tests.training.toys import striped

from rediffuse.data.types import ImageSet
from rediffuse.training.backbones import open_backbone

DOCS = Path(__file__).parents[2] / "docs"
CHEAPER = {"size=32": "size=16", "draws=1000": "draws=12", "steps=20, draws=8": "steps=1, draws=1", "len(test), 20": "len(test), 6",
           "len(test), 100": "len(test), 12"}  # fmt: skip


def examples(page: str) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for dear, cheap in CHEAPER.items():
        found = [text.replace(dear, cheap) for text in found]
    return found


def lay(folder: Path, images: ImageSet) -> None:
    """Class folders of a set; one without classes lies in one folder."""
    for example in images:
        file = folder / (images.classes[example.label] if example.label is not None else "all") / f"{Path(example.id).stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        example.image.save(file)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models and pictures where the pages look for them."""
    monkeypatch.chdir(tmp_path)
    tiny_pixel(tmp_path / "ddpm")
    for name, seed in (("test", 0), ("held-out", 1)):
        lay(tmp_path / name, striped(3, seed=seed))
    for seed, name in enumerate(("plain", "diffaug", "robust")):
        open_backbone("scratch", striped(1).classes, seed=seed, size=16).save(tmp_path / name)
    return tmp_path


def test_certificates(here: Path) -> None:
    (example,) = examples("certificates.md")
    space: dict[str, Any] = {}
    exec(example, space)
    assert space["found"].images == 2
    assert len(list((here / "certificates").glob("*.tsv"))) == 6
    assert (here / "results" / "certified.json").exists()


def test_calibration(here: Path) -> None:
    space: dict[str, Any] = {}
    first, second, third = examples("calibration.md")
    exec(first, space)
    assert [row["model"] for row in space["found"].table()] == ["diffaug", "plain"]
    exec(second, space)
    assert len(space["curve"].times) == 28
    exec(third, space)
    assert [row["victim"] for row in space["found"].table()] == ["diffaug", "diffaug behind t=150", "diffaug ensemble"]


def test_unknown_inputs(here: Path) -> None:
    """CIFAR-100 shares pictures with CIFAR-10, and so do the sets here."""
    known = striped(3, seed=0)
    lay(here / "cifar10" / "test", known)
    lay(here / "cifar10" / "train", striped(13, seed=1))
    lay(here / "cifar100" / "test", noise(100, seed=2, size=16))
    known[4].image.save(here / "cifar100" / "test" / "all" / "bus.png")
    lay(here / "textures", noise(10, seed=3, size=16, high=90))
    lay(here / "mnist" / "train", noise(10, seed=4, size=16, low=150))
    (example,) = examples("ood.md")
    space: dict[str, Any] = {}
    exec(example, space)
    assert [(part.name, part.group, len(part)) for part in space["scored"].sets[1:]] == [
        ("cifar100", "near", 100), ("textures", "far", 10), ("mnist", "far", 10),
    ]  # fmt: skip
    saved = json.loads((here / "results" / "ood_cifar10.json").read_text(encoding="utf-8"))
    assert "1 of 101 images of the unknown set 'cifar100' is also among the classifier's own" in str(saved)
    assert "all/bus" in str(saved)
