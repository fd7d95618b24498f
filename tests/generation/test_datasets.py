"""`datasets.load_dataset` reads a run, also where classes are called like splits."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.generation.conftest import Make, take_photos

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("classes", [("cat", "dog"), ("test", "train", "val_x"), ("validation", "test-set", "eval", "dev")])
def test_load_dataset_reads_a_run(make: Make, tmp_path, classes):
    photos = take_photos(classes, each=2)
    run = make(photos, copies=3, keep_real=True)
    loaded = datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    rows = loaded["train"]
    assert Counter(rows["class"]) == dict.fromkeys(classes, 8)
    made = dict(zip(run.ids, run, strict=True))
    expected = {row["pixels_sha256"]: row for row in run.manifest.to_pylist()}
    assert len(rows) == len(made)
    for row in rows:
        from rediffuse.data.images import pixels_sha256

        known = expected[pixels_sha256(row["image"].convert("RGB"))]
        assert (row["class"], row["label"], row["source_id"], row["copy"]) == tuple(
            known[name] for name in ("class", "label", "source_id", "copy")
        )
    assert set(rows.column_names) == {"image", *run.manifest.column_names} - {"file_name"}
