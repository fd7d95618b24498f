"""The examples of docs/certificates.md and docs/calibration.md run as they stand, with fewer draws and steps and smaller pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_pixel import tiny_pixel
from tests.training.toys import striped

from rediffuse.training.backbones import open_backbone

DOCS = Path(__file__).parents[2] / "docs"
CHEAPER = {"size=32": "size=16", "draws=1000": "draws=12", "steps=20, draws=8": "steps=1, draws=1", "len(test), 20": "len(test), 6",
           "len(test), 100": "len(test), 12"}  # fmt: skip


def examples(page: str) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for dear, cheap in CHEAPER.items():
        found = [text.replace(dear, cheap) for text in found]
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models and pictures where the pages look for them."""
    monkeypatch.chdir(tmp_path)
    tiny_pixel(tmp_path / "ddpm")
    for name, seed in (("test", 0), ("held-out", 1)):
        images = striped(3, seed=seed)
        for example in images:
            file = tmp_path / name / images.classes[example.label or 0] / Path(example.id).name
            file.parent.mkdir(parents=True, exist_ok=True)
            example.image.save(file)
    for seed, name in enumerate(("plain", "diffaug")):
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
