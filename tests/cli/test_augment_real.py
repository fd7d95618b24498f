"""The main job on real photos: class folders in, a folder out that every reader of class folders takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended
from tests.tiny import tiny_stable

from rediffuse.data import few_shot, open_images
from rediffuse.data.folder import folder
from rediffuse.generation.store import Run

LIKE_SPLITS = {"forest": "test", "highway": "train", "river": "val_x"}


@pytest.mark.parametrize(
    ("bundled", "count", "copies"), [(False, 1, 2), pytest.param(True, 3, 10, marks=pytest.mark.slow)], ids=["tiny model", "bundled model"]
)
@pytest.mark.filterwarnings("ignore")
def test_eurosat_as_class_folders(
    rediffuse: Callable[..., Ended], shared_data: Path, tmp_path: Path, bundled: bool, count: int, copies: int
) -> None:
    datasets = pytest.importorskip("datasets")
    images = few_shot(open_images(str(shared_data / "eurosat"), split="train"), count, 0)
    names = [LIKE_SPLITS.get(name, name) for name in images.classes]
    assert set(LIKE_SPLITS.values()) <= set(names)
    for place, example in enumerate(images):
        assert example.label is not None
        home = Path("photos") / names[example.label]
        home.mkdir(parents=True, exist_ok=True)
        example.image.save(home / f"{place}.png")
    model = () if bundled else ("--model", tiny_stable(tmp_path / "model"), "--steps", 2)
    words = ("augment", "photos", "more", "--copies", copies, "--samples", 40 if bundled else 4, *model)
    ended = rediffuse(*words)
    assert ended.status == 0, ended.err
    expected = dict.fromkeys(names, count * copies)

    run = Run("more")
    assert not run.rejected
    assert Counter(run.classes[label] for label in run.labels if label is not None) == expected
    assert {example.image.size for example in run} == {(64, 64)}
    read = folder("more/images")
    assert Counter(read.classes[label] for label in read.labels if label is not None) == expected
    loaded = datasets.load_dataset("more", split="train", cache_dir=str(tmp_path / "cache"))
    assert Counter(loaded["class"]) == expected
    assert Counter(loaded["source_id"]) == dict.fromkeys(open_images("photos").ids, copies)

    before = {file: file.stat().st_mtime_ns for file in Path("more/images").rglob("*.png")}
    assert len(before) == len(names) * count * copies
    assert rediffuse(*words).status == 0  # there is nothing left to do
    assert {file: file.stat().st_mtime_ns for file in Path("more/images").rglob("*.png")} == before
