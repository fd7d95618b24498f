"""The images in the folder: sizes, formats, names, real photos beside them, as other readers see them."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.generation.conftest import CLASSES, SIDE, Make, take_photos

from rediffuse.data import Mixed, folder
from rediffuse.data.types import Rejected


def test_real_photos_are_kept_pixel_by_pixel(make: Make):
    photos = take_photos(size=(13, 9))
    run = make(photos, keep_real=True, copies=2)
    assert Counter(run.copies) == {-1: 6, 0: 6, 1: 6}
    real = {row["source_id"]: row for row in run.manifest.to_pylist() if row["copy"] == -1}
    for name, digest in zip(photos.ids, photos.digests, strict=True):
        assert real[name]["pixels_sha256"] == digest
        assert real[name]["seed"] is None
    assert run.sources.count(None) == 6
    mixed = Mixed(photos, run, alpha=1.0)
    assert all(run.copies[row] >= 0 for copies in mixed.copies for row in copies)
    assert [len(copies) for copies in mixed.copies] == [2] * 6


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (13, 9)),
        ({"fit": "squash"}, (13, 9)),
        ({"fit": "crop"}, (SIDE, SIDE)),
        ({"size": "model"}, (SIDE, 6)),
        ({"size": "model", "fit": "squash"}, (SIDE, SIDE)),
    ],
)
def test_sizes(make: Make, options, size):
    run = make(take_photos(size=(13, 9), each=1), copies=1, keep_real=True, **options)
    assert set(run.sizes) == {size}
    assert {(row["width"], row["height"]) for row in run.manifest.to_pylist()} == {size}


@pytest.mark.parametrize(("fit", "size", "kept"), [("pad", "source", True), ("squash", "model", True), ("crop", "source", False)])
def test_rows_say_whether_masks_and_boxes_still_fit(make: Make, fit: str, size: str, kept: bool):
    """No more after a crop, nor where an edit was so strong that things may have moved; in metadata.parquet too."""
    run = make(take_photos(size=(13, 9)), fit=fit, size=size, keep_real=True)
    rows = pq.read_table(run.folder / "images" / "metadata.parquet").to_pylist()
    said = {row["strength"]: row["geometry"] for row in rows}
    weak = "preserved" if kept else "unknown"
    assert said == {None: weak, 0.25: weak, 0.5: weak, 0.75: "unknown", 1.0: "unknown"}
    assert run.manifest.column("geometry").to_pylist() == [row["geometry"] for row in rows]


@pytest.mark.parametrize(("format", "ending"), [("png", ".png"), ("webp", ".webp"), ("jpeg", ".jpg")])
def test_formats_hold_what_the_manifest_says(make: Make, format, ending):
    run = make(format=format, copies=1)
    assert {Path(name).suffix for name in run.ids} == {ending}
    assert run.manifest.column("pixels_sha256").to_pylist() == list(run.digests)
    if format == "webp":
        assert [example.image.tobytes() for example in run] == [example.image.tobytes() for example in make(name="png", copies=1)]


def test_copies_of_some_photos(make: Make):
    run = make(copies=2)
    some = run.copies_of(["cat/1.png", "dog/0.png"])
    assert Counter(some.sources) == {"cat/1.png": 2, "dog/0.png": 2}
    assert some.classes == CLASSES


def test_what_was_rejected_is_listed(make: Make):
    photos = take_photos()
    rejected = [Rejected(id='bad "é".png', reason="empty file (0 bytes)"), Rejected(id="b", reason="animated")]
    photos.rejected = tuple(rejected)
    lines = (make(photos).folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"id": line.id, "reason": line.reason} for line in rejected]


ODD = ('quo"te', "naïve 日本", "-rf", "..", "a/b", "UPPER", "upper", "<b>|x|", "con", "trailing ", "\n")


def test_odd_names_become_safe_folders_and_stay_true(make: Make):
    photos = take_photos(ODD, each=1)
    run = make(photos, copies=1)
    assert run.classes == ODD
    folders = {name.partition("/")[0] for name in run.ids}
    assert len({name.casefold() for name in folders}) == len(ODD)
    assert all(name.isascii() and name[0].isalnum() for name in folders)
    assert folder(run.folder).classes == ODD
    walked = {Path(base).name for base, _, files in os.walk(run.folder / "images") if files} - {"images"}
    assert walked == folders
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "&lt;b&gt;&#124;x&#124;" in card


def test_a_reader_of_class_folders_reads_it(make: Make):
    run = make(copies=2, keep_real=True)
    for read in (folder(run.folder), folder(run.folder / "images")):
        assert sorted(read.ids) == sorted(run.ids)
        assert read.classes == CLASSES
        assert not read.rejected
        places = {name: place for place, name in enumerate(read.ids)}
        for name, label, source, copy in zip(run.ids, run.labels, run.sources, run.copies, strict=True):
            row = places[name]
            assert (read.labels[row], read.sources[row], read.copies[row]) == (label, source, copy)
