"""Whole runs on a model that is exactly right: the folder, what it says of itself, and that it is continued, not doubled."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.generation.conftest import CLASSES, RESULT, SIDE, Make, Varied, far, mixture, picture, pixels, take_photos

from rediffuse.data import Example, ImageSet
from rediffuse.data.images import pixels_sha256
from rediffuse.denoisers.base import DenoiserSpec
from rediffuse.errors import ConfigError, DataError
from rediffuse.generation.plan import Plan, draw_of, variant_from_row
from rediffuse.generation.run import generate
from rediffuse.methods import from_settings


def test_the_folder_holds_what_was_asked_for_and_nothing_else(make: Make, tmp_path: Path):
    run = make(copies=3)
    out = tmp_path / "out"
    assert {child.name for child in out.iterdir()} == RESULT
    assert run.complete
    assert len(run) == run.manifest.num_rows == 18
    assert {child.name for child in (out / "images").iterdir()} == {"cat-77af77", "dog-cd6357", "metadata.parquet"}
    assert Counter(run.sources) == dict.fromkeys(take_photos().ids, 3)
    assert run.classes == CLASSES
    assert all(name.startswith(CLASSES[label]) for name, label in zip(run.ids, run.labels, strict=True))
    assert run.copies == tuple(run.manifest.column("copy").to_pylist())
    assert run.manifest.column_names[0] == "file_name"
    assert run.manifest.column("pixels_sha256").to_pylist() == [pixels_sha256(example.image) for example in run]
    assert pq.read_table(out / "images" / "metadata.parquet").equals(run.manifest)


def test_every_row_says_how_it_was_made(make: Make):
    run = make(copies=4)
    row = run.manifest.to_pylist()[0]
    assert {name: row[name] for name in ("source_id", "label", "class", "copy", "method", "steps", "guidance", "prompt", "batch")} == {
        "source_id": "cat/0.png", "label": 0, "class": "cat", "copy": 0, "method": "real_guidance", "steps": 8, "guidance": 4.0,
        "prompt": "a photo of a cat", "batch": 2,
    }  # fmt: skip
    assert (row["width"], row["height"]) == (SIDE, SIDE)
    assert row["strength"] in (0.25, 0.5, 0.75, 1.0)
    assert row["denoiser"] == "GaussianMixtureDenoiser"
    assert len(row["denoiser_hash"]) == 64
    assert row["concept_hash"] is None
    assert row["library_version"] == "0.1.0"
    assert list(run.info["environments"]) == [row["environment"]]
    print_ = run.info["environments"][row["environment"]]
    assert print_["torch"] == torch.__version__
    assert print_["device"] == "cpu"


def test_rows_name_the_commit_of_a_model_from_the_hub(make: Make):
    model = mixture()
    model.spec = DenoiserSpec(name="owner/name@main", path="nowhere", revision="c" * 40)
    run = make(method=Varied(model, CLASSES), copies=1)
    assert {row["denoiser"] for row in run.manifest.to_pylist()} == {f"owner/name@{'c' * 40}"}


def test_rows_replay_to_the_pixels(make: Make):
    """From run.json and the manifest alone, method and draw give the pictures again."""
    photos, run = take_photos(), make(copies=2)
    method = from_settings(mixture(), run.info["settings"]["method"])
    rows = [variant_from_row(row) for row in pq.read_table(run.folder / "plan.parquet").to_pylist()]
    sources = torch.stack([torch.from_numpy(np.array(photos[photos.ids.index(row.source_id)].image)) for row in rows])
    again = method.apply(sources.movedim(-1, 1) / 255, draw_of(rows, method))
    for row, image in zip(rows, again, strict=True):
        there = np.asarray(Image.open(run.folder / "images" / row.file_name), dtype=float) / 255
        assert np.abs(there - image.movedim(0, -1).numpy()).max() < 1e-3 + 0.5 / 255


def test_the_same_plan_is_equal_to_the_bit(make: Make):
    assert pixels(make(name="one")) == pixels(make(name="two"))


def test_a_further_photo_changes_no_other_image(make: Make):
    before, after = make(take_photos(each=3), "before"), make(take_photos(each=4), "after")
    assert set(before.ids) < set(after.ids)
    assert far(before, after) <= 1e-3 + 1 / 255
    rows = {row["file_name"]: row for row in after.manifest.to_pylist()}
    for row in before.manifest.to_pylist():
        assert {**rows[row["file_name"]], "pixels_sha256": ""} == {**row, "pixels_sha256": ""}


def test_a_dry_run_writes_nothing(make: Make, tmp_path: Path, capsys):
    plan = make(dry_run=True, progress=True)
    assert isinstance(plan, Plan)
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "24 images from 6 photos" in said
    assert "60 model calls in 1 shard, slot use 1.00, 120 image steps" in said
    assert make(dry_run=True, rate=None).rate > 0


def test_a_preview_is_what_the_run_will_make(make: Make, tmp_path: Path):
    plan = make(preview=8)
    assert isinstance(plan, Plan)
    assert not (tmp_path / "out").exists()
    folder_ = tmp_path / "out-preview"
    shown = sorted(file.stem for file in folder_.glob("*.png") if file.stem != "contact_sheet")
    assert len(shown) == 8
    with Image.open(folder_ / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 192, 2 * 192 + 18)
    run = make()
    made = {Path(example.id).stem: np.asarray(example.image, dtype=float) for example in run}
    strengths = {Path(row["file_name"]).stem: row["strength"] for row in run.manifest.to_pylist()}
    assert Counter(strengths[name] for name in shown) == {0.25: 2, 0.5: 2, 0.75: 2, 1.0: 2}
    for name in shown:
        assert np.abs(made[name] - np.asarray(Image.open(folder_ / f"{name}.png"))).max() <= 1


def test_a_smaller_preview_takes_the_place_of_a_larger_one(make: Make, tmp_path: Path):
    """Of its pictures alone: what else lies there stays."""
    folder_ = tmp_path / "out-preview"
    make(preview=4)
    (folder_ / "mine.png").write_bytes(b"mine")
    make(preview=2)
    told = json.loads((folder_ / "preview.json").read_text())
    assert told["images"] == len(told["pictures"]) == 2
    assert {file.name for file in folder_.glob("*.png")} == {*told["pictures"], "contact_sheet.png", "mine.png"}


def test_ctrl_c_in_the_last_decode_is_not_lost(make: Make, monkeypatch: pytest.MonkeyPatch):
    model = mixture()
    decode = model.decode

    def pressed(x: torch.Tensor) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return decode(x)

    monkeypatch.setattr(model, "decode", pressed)
    with pytest.raises(KeyboardInterrupt, match="24 of 24 images are there"):
        make(method=Varied(model, CLASSES), copies=4, batch=32)
    monkeypatch.undo()
    assert make(method=Varied(mixture(), CLASSES), copies=4, batch=32).complete


def test_mistakes_are_named(make: Make):
    photos = take_photos()
    with pytest.raises(ConfigError, match="give side"):
        make(side=None)
    with pytest.raises(ConfigError, match="must be a DAFusion or RealGuidance, got int"):
        generate(photos, 3, "nowhere")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        make(batch=0)
    with pytest.raises(ConfigError, match="rate is a number of image steps a second and must be above 0, got 0"):
        make(rate=0)
    with pytest.raises(ConfigError, match="no text"):
        make(name=os.fsdecode(b"caf\xe9"))
    unlabelled = ImageSet.of([Example(id="a", image=picture(0), label=None)], classes=())
    with pytest.raises(DataError, match="without a label"):
        make(unlabelled, method=Varied(mixture(), CLASSES))
