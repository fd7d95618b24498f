"""Every snippet of docs/python.md runs as it stands, one after another, with fewer steps and copies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.toys import striped

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), flags=re.DOTALL)
CHEAPER = {"steps=40": "steps=2", "steps=20": "steps=2", "steps=8": "steps=2", "copies=4": "copies=2"}


def test_the_page_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photos", 0), ("test", 1)):
        for row, example in enumerate(striped(2, size=32, seed=seed, classes=2)):
            file = tmp_path / name / f"stripes {example.label}" / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            example.image.save(file)
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results" / "bench_duplicates.json", tmp_path / "results")
    space: dict[str, Any] = {}
    for snippet in SNIPPETS:
        for dear, cheap in CHEAPER.items():
            snippet = snippet.replace(dear, cheap)
        exec(snippet, space)
    made = {example.id: example.image for example in space["run"]}
    for row, picture in zip(space["rows"], space["again"], strict=True):
        square = space["fit"].to_model(made[row["file_name"]])[0]
        assert float((square - picture).abs().mean()) < 0.05  # the file is smaller than the model's square
    assert space["words"].hash == space["run"].info["settings"]["concepts"]
    assert (tmp_path / "evaluation" / "report.html").exists()
    assert space["found"].notes == ()
    assert space["own"].model is space["network"]
    assert space["views"].shape == (4, 3, 32, 32)
    assert space["diffaug"].settings()["times"]["law"] == "Steep"
    assert space["result"].name == "bench_duplicates"
    assert torch.get_default_dtype() == torch.float32
