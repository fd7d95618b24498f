"""Files that are whole or not there, and what is said when the disk takes no more."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.generation.conftest import Make, picture, take_photos

from rediffuse.data.images import pixels_sha256
from rediffuse.errors import DataError
from rediffuse.generation import local, shard
from rediffuse.generation.files import room_on_disk, scratch_file, write_image
from rediffuse.generation.store import Run, finished_shards
from rediffuse.writing import write_rows, write_text

# A limit on the size of a file is what a full disk looks like from inside: writes fail half-way.
LIMITED = """
import resource, sys
from tests.generation.conftest import CLASSES, SIDE, Varied, mixture, take_photos
from rediffuse.errors import RediffuseError
from rediffuse.generation import local
from rediffuse.generation.run import generate

local.SHARD_SECONDS = 0
photos, out, limit = take_photos(each=2, size=(200, 200)), sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    method = Varied(mixture(), CLASSES)
    generate(photos, method, out, copies=4, batch=2, side=SIDE, rate=1.0, keep_real=True, progress=False, command="the command")
except RediffuseError as error:
    print(type(error).__name__, error)
"""


def limited(root: Path, out: Path, limit: int) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    command = [sys.executable, "-c", LIMITED, str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, check=True)
    return done.stdout


@pytest.mark.skipif(os.name == "nt", reason="no resource limits there")
def test_a_full_disk_is_said_and_costs_nothing(root: Path, tmp_path: Path):
    out = tmp_path / "out"
    said = limited(root, out, 60_000)  # enough for the plan, not for a photo of noise
    assert said.startswith(f"DataError {out}: a file would grow over the size limit; what is finished stays and counts")
    assert said.strip().endswith("Make room, then the command")
    assert finished_shards(out) == []
    assert not list((out / "images").rglob("*.png"))
    assert not (out / "partial").exists()
    assert not (out / "run.lock").exists()
    assert limited(root, out, 0) == ""
    assert len(Run(out)) == 20
    assert Run(out).rejected == ()


def test_a_disk_that_fills_up_midway_keeps_what_is_done(make: Make, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    written, real = [], os.fsync

    def fsync(handle: int) -> None:
        written.append(handle)
        if len(written) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(DataError, match="no space is left; what is finished stays"):
            make()
    done = finished_shards(tmp_path / "out")
    assert done
    assert len(done) < 3
    assert len(Run(tmp_path / "out")) == 8 * len(done)
    assert len(make()) == 24


def test_a_file_of_a_run_waits_in_its_scratch_folder(tmp_path: Path, monkeypatch):
    scratch, file = tmp_path / "scratch", tmp_path / "file"
    scratch.mkdir()
    write_text(file, "old", scratch_file(file, scratch))

    def broken(handle: int) -> None:
        assert [path.name for path in scratch.iterdir()] == [scratch_file(file, scratch).name]
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(DataError, match="no space is left"):
            write_text(file, "new", scratch_file(file, scratch))
    assert file.read_bytes() == b"old"
    assert list(scratch.iterdir()) == []
    write_text(file, "new", scratch_file(file, scratch))
    assert file.read_bytes() == b"new"


def test_a_jpeg_keeps_its_colours_and_is_known_by_what_a_reader_sees(tmp_path: Path):
    image, file = picture(0, (40, 30)), io.BytesIO()
    image.save(file, "JPEG", quality=95, subsampling=0)
    found = write_image(lambda: image, tmp_path / "a.jpg", "jpeg", tmp_path)
    assert found == (pixels_sha256(Image.open(file).convert("RGB")), 40, 30)


def test_a_manifest_counts_images_that_are_in_their_place(make: Make, tmp_path: Path, monkeypatch):
    """Killed at the moment before it is written, a shard lacks nothing but its manifest; and never the other way round."""
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    images, synced, counted = tmp_path / "out" / "images", [], []

    def write(path: Path, rows: list[dict[str, Any]], *rest: Any) -> None:
        assert {folder.name for folder in synced} == {"images", *(row["file_name"].partition("/")[0] for row in rows)}
        assert [pixels_sha256(Image.open(images / row["file_name"])) for row in rows] == [row["pixels_sha256"] for row in rows]
        counted.append(len(rows))
        synced.clear()
        write_rows(path, rows, *rest)

    monkeypatch.setattr(shard, "write_rows", write)
    monkeypatch.setattr(shard, "sync_folder", synced.append)
    assert len(make()) == sum(counted) == 24
    assert len(counted) == 3


def test_only_the_disk_is_spoken_of(tmp_path: Path):
    with pytest.raises(DataError, match=r"^a photo cannot be read$"), room_on_disk(tmp_path, "again"):
        raise DataError("a photo cannot be read") from FileNotFoundError(errno.ENOENT, "No such file")


def test_other_faults_of_the_disk_are_said_too(tmp_path: Path):
    with pytest.raises(DataError, match="it cannot be written \\(Permission denied\\)"), room_on_disk(tmp_path, "again"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_photos_that_changed_after_opening_are_named(make: Make, tmp_path: Path, monkeypatch):
    from rediffuse.data import decoding, export, folder

    monkeypatch.setattr(decoding, "MEMORY_BUDGET", 0)
    export.export_folders(take_photos(), tmp_path / "photos")
    photos = decoding_without_memory(folder, tmp_path / "photos")
    first = tmp_path / "photos" / photos.ids[0]
    first.write_bytes((tmp_path / "photos" / photos.ids[1]).read_bytes())
    with pytest.raises(DataError, match="has changed since the set was opened"):
        make(photos)
    assert finished_shards(tmp_path / "out") == []


def decoding_without_memory(read, path: Path):
    from rediffuse.data.decoding import FilePayload
    from rediffuse.data.types import ImageSet, Record

    images = read(path)
    records = [
        Record(id=name, payload=FilePayload(path / name), label=label, digest=digest, size=size)
        for name, label, digest, size in zip(images.ids, images.labels, images.digests, images.sizes, strict=True)
    ]
    return ImageSet(records, classes=images.classes, name=images.name)
