"""Sets of a few pictures in the layout of the real ones, and what trainings of the bundled models left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from rediffuse.recipes.bundled import common

NAMES = ("goldfish", "school bus", "tabby")
TERMS = ("goldfish, Carassius auratus", "school bus", "tabby, tabby cat")


def write_pictures(folder: Path, split: str, count: int, size: int = 64, names: tuple[str, ...] = NAMES) -> None:
    rng = np.random.default_rng(count)
    rows = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(buffer, "PNG")
        label = index % len(names)
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label, "id": str(index), "term": TERMS[label]})
    feature = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(feature)})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def trained(out: Path, key: str = "model") -> dict[str, torch.Tensor]:
    state = common.load_checkpoint(out / "checkpoint.pt")
    assert state is not None
    found: dict[str, torch.Tensor] = state[key]
    return found


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
