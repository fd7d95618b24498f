"""The features of 40 classes: made in pieces, written as a folder that a comparison takes for a level."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rediffuse.recipes import forty
from rediffuse.recipes.bundled import features
from rediffuse.training.backbones import open_backbone

CLASSES = [f"class {number}" for number in range(44)]
KNOWN = CLASSES[:3]


def write_shard(folder: Path, split: str, names: list[str], each: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for label in range(len(names)):
        for number in range(each):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
            rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label, "id": f"{label}/{number}", "term": ""})
    meta = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(meta)}), folder / f"{split}-0.parquet")


def test_a_folder_is_written_when_all_steps_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(features.WIDTHS, "forty", (8, 8, 8, 8))
    write_shard(tmp_path / "tiny-imagenet-base", "train", CLASSES, 4)
    write_shard(tmp_path / "tiny-imagenet-base", "validation", CLASSES, 1)
    write_shard(tmp_path / "tiny-imagenet-known", "test", KNOWN, 1)
    out = tmp_path / "runs" / "forty"
    told = ["--data", str(tmp_path), "--out", str(out), "--steps", "2"]
    assert forty.main([*told, "--minutes", "0"]) == 1
    assert "the same command goes on" in capsys.readouterr().out
    assert not out.exists()
    assert forty.main(told) == 0
    names = json.loads((out / "config.json").read_text())["id2label"].values()
    assert len(set(names)) == 40
    assert not set(names) & set(KNOWN)
    level = open_backbone(str(out), ["cat", "dog"])
    assert level.features(torch.rand(2, 3, 64, 64)).shape == (2, 8)
