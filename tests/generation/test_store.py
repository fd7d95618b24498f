"""A run's folder that others have changed: nothing outside of it is read, and what is damaged is named with the fix."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.generation.conftest import CLASSES, Make, Photos, picture, pixels

from rediffuse.data import ImageSet, Mixed, folder
from rediffuse.errors import DataError, PlanError
from rediffuse.generation import local
from rediffuse.generation.provenance import cite, report, verify
from rediffuse.generation.store import Run, finished_shards, read_plan


def rename(file: Path, names: dict[str, str]) -> None:
    """Give rows of a manifest or plan other file names."""
    table = pq.read_table(file)
    found = [names.get(name, name) for name in table.column("file_name").to_pylist()]
    pq.write_table(table.set_column(0, table.schema.field(0), pa.array(found)), file)


def test_a_manifest_names_no_file_outside_of_the_run(make: Make, tmp_path: Path):
    run = make()
    secret = tmp_path / "secret.png"
    picture(1).save(secret)
    images = run.folder / "images"
    climbing, absolute, linked, pipe = run.ids[:4]
    rename(run.folder / "manifest" / "shard-00000.parquet", {climbing: "../../secret.png", absolute: str(secret)})
    for name in (linked, pipe):
        (images / name).unlink()
    (images / linked).symlink_to(secret)
    os.mkfifo(images / pipe)
    again = Run(run.folder)
    assert again.ids == run.ids[4:]
    assert {line.id: line.reason for line in again.rejected} == {
        "../../secret.png": "names no file in images/; the manifest was changed",
        str(secret): "names no file in images/; the manifest was changed",
        linked: "a link that leaves images/; put a copy of the file in its place",
        pipe: "not an ordinary file",
    }


@pytest.mark.parametrize("name", ["../../x.png", "/x.png", ""])
def test_neither_does_a_plan(make: Make, name: str):
    run = make()
    rename(run.folder / "plan.parquet", {run.ids[0]: name})
    with pytest.raises(PlanError, match=r"plan.parquet names .*no file in images/"):
        read_plan(run.folder)


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        (lambda info: [], "all its names"),
        (lambda info: {}, "format, state, created"),
        (lambda info: {key: value for key, value in info.items() if key != "classes"}, "classes"),
        (lambda info: info | {"settings": {}}, "settings.method, settings.denoiser"),
        (lambda info: info | {"plan": info["plan"] | {"batch": "2"}}, "plan.batch"),
    ],
)
def test_a_damaged_run_json_is_named(make: Make, change: Callable[[Any], Any], lacks: str):
    run = make()
    file = run.folder / "run.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    for read in (Run, report, cite):
        with pytest.raises(PlanError, match=rf"run.json lacks {lacks}.*put it back"):
            read(run.folder)


def test_a_run_read_by_its_path_knows_the_pictures_that_it_was_made_from(make: Make, photos: Photos):
    """So copies of one photo never stand in for another of the same name."""
    run = make(photos(), keep_real=True)
    read = folder(run.folder)
    found = dict(zip(read.ids, read.source_digests, strict=True))
    assert found == dict(zip(run.ids, run.source_digests, strict=True))
    assert set(found.values()) == {None, *photos().digests}
    others = ImageSet.of([replace(example, image=picture(500 + row)) for row, example in enumerate(photos())], classes=CLASSES)
    assert all(Mixed(photos(), run.folder).copies)
    with pytest.raises(DataError, match=r"share names such as .*but the pictures are others"):
        Mixed(others, run.folder)


def test_only_manifests_of_shards_count(make: Make):
    run = make()
    (run.folder / "manifest" / "shard-copy.parquet").write_bytes(b"")
    assert finished_shards(run.folder) == [0]
    assert Run(run.folder).ids == run.ids


def test_a_run_from_before_geometry_was_noted_goes_on(make: Make, monkeypatch):
    """It is read, verified and continued as ever; of what was made before, geometry is unknown."""
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    run = make()
    made, manifests = pixels(run), sorted((run.folder / "manifest").iterdir())
    for file in (*manifests, run.folder / "images" / "metadata.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["geometry"]), file)
    old = Run(run.folder)
    assert old.manifest.schema.equals(run.manifest.schema)
    assert set(old.manifest.column("geometry").to_pylist()) == {"unknown"}
    assert (pixels(old), pixels(folder(run.folder)), verify(run.folder)) == (made, made, [])
    assert pixels(make()) == made
    manifests[1].unlink()
    again = make()
    assert (again.complete, pixels(again), verify(run.folder)) == (True, made, [])
    shard = {variant.file_name: variant.shard for variant in read_plan(run.folder)}
    noted = {row["file_name"]: row["geometry"] for row in pq.read_table(run.folder / "images" / "metadata.parquet").to_pylist()}
    assert {geometry for name, geometry in noted.items() if shard[name] != 1} == {"unknown"}
    assert {geometry for name, geometry in noted.items() if shard[name] == 1} == {"preserved", "unknown"}


def test_a_manifest_of_other_columns_is_named(make: Make):
    run = make()
    file = run.folder / "manifest" / "shard-00000.parquet"
    table = pq.read_table(file)
    for other in (table.drop_columns(["label"]), table.set_column(2, "label", pa.array(["x"] * len(table)))):
        pq.write_table(other, file)
        with pytest.raises(PlanError, match=r"shard-00000.parquet cannot be read.*delete that file"):
            Run(run.folder)
