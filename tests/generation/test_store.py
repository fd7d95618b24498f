"""A run's folder that others have changed: nothing outside of it is read, and what is damaged is named with the fix."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.generation.conftest import Make, picture

from rediffuse.errors import PlanError
from rediffuse.generation.store import Run, read_plan


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
