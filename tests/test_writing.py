"""Whole or not at all, whichever library writes; what a disk refuses is said in a sentence that names file, cause and fix."""

from __future__ import annotations

import copy
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.full_disk import full_disk

from rediffuse.concepts.concepts import Concepts, write_tensors
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.certify.rows import Certificate, append, rewrite
from rediffuse.evaluation.kept import Kept
from rediffuse.machine import machine_mark
from rediffuse.training.backbones import open_backbone
from rediffuse.training.checkpoint import keep_checkpoint
from rediffuse.writing import check_place, refusal, sync_folder, whole, write_json, write_rows, write_text, writing

LARGE = torch.arange(10_000.0)
ROWS = [Certificate(index=place, label=0, predict=0, radius=1 / 3) for place in range(100)]
WRITERS: dict[str, Callable[[Path], object]] = {
    "words.safetensors": lambda file: write_tensors(file, {"a": LARGE}, {}),
    "b.pt": lambda file: keep_checkpoint(file, {"a": LARGE}),
    "block.kept": lambda file: Kept(file.parent, {"of": "a test"}).write("block", {"a": LARGE}),
    "result.json": lambda file: write_json(file, ["text"] * 1000),
    "report.html": lambda file: write_text(file, "text" * 1000),
    "table.parquet": lambda file: write_rows(file, [{"a": place} for place in range(1000)]),
    "rows.tsv": lambda file: rewrite(file, ROWS),
    "model": lambda file: open_backbone("scratch", ("cat", "dog"), size=16).save(file),
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no resource limits there")


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    file = tmp_path / "place" / name
    with full_disk(), pytest.raises(DataError, match=f"{name}: a file would grow over the size limit; .* Make room"):
        WRITERS[name](file)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"identity.json"}  # of the folder of blocks: whole, and small enough
    WRITERS[name](file)
    assert file.exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".saving")]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "model"])
def test_what_was_there_stays(tmp_path: Path, name: str) -> None:
    file = tmp_path / "place" / name
    WRITERS[name](file)
    before = file.read_bytes()
    with full_disk(), pytest.raises(DataError):
        WRITERS[name](file)
    assert file.read_bytes() == before


def test_a_rename_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append("rename"), real(old, new)))
    monkeypatch.setattr(os, "fsync", lambda handle: steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"))
    write_text(tmp_path / "a", "text")
    assert steps == ["file", "rename", "folder"]
    with whole(tmp_path / "b", lasting=False) as partial:
        partial.write_text("text")
    assert steps[3:] == ["file", "rename"]


def test_a_disk_that_does_not_sync_folders_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)


def test_names_that_are_no_text_are_written_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "a.json", {"photo": name, "class": "café"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "café" in text
    assert json.loads(text)["photo"] == name


def test_a_place_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    check_place(tmp_path / "new" / "words")
    for place in (tmp_path / "file", tmp_path / "file" / "new" / "words"):
        with pytest.raises(ConfigError, match=r"nothing can be written in .*file is no folder .* give another place"):
            check_place(place)
    monkeypatch.setattr(os, "access", lambda *_: False)  # to root all is open
    with pytest.raises(ConfigError, match="no folder that you may write to"):
        check_place(tmp_path / "new")


def test_what_the_dead_left_of_a_file_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    names = {
        f".a[1].json.{machine_mark()}-{process.pid}.partial": False,
        f".a[1].json.{machine_mark()}-{os.getppid()}.partial": True,  # under way
        f".a[1].json.abcdef-{process.pid}.partial": True,  # of another machine, on a shared disk
        f".b.json.{machine_mark()}-{process.pid}.partial": True,  # of another file
        ".a[1].json.mine.partial": True,
    }
    for name in names:
        (tmp_path / name).write_text("{")
    write_json(tmp_path / "a[1].json", 1)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_a_refusal_reaches_another_process(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised, writing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "full")
    again = copy.copy(raised.value)  # as pickle does it
    assert (str(again), vars(again)) == (str(raised.value), {"reason": "no space is left"})


def test_a_line_that_does_not_fit_is_said(tmp_path: Path) -> None:
    rewrite(tmp_path / "rows.tsv", [])
    with full_disk(), pytest.raises(DataError, match=r"rows\.tsv: a file would grow"):
        append(tmp_path / "rows.tsv", ROWS)


def test_other_refusals_are_said_and_mistakes_are_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"it cannot be written \(Not a directory\)|it cannot be written \(File exists\)"):
        write_json(tmp_path / "file" / "a.json", 1)
    with pytest.raises(DataError, match=r"concepts.*cannot be written"):
        Concepts(words={"cat": torch.ones(1, 4)}).save(tmp_path / "file" / "words")
    with pytest.raises(RuntimeError, match="shape"), writing(tmp_path):
        raise RuntimeError("shape")
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "half") as partial:
        partial.write_text(str(1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_was_to_be_read_is_not_said_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input\.png"), whole(tmp_path / "a.json") as partial:
        partial.write_bytes((tmp_path / "input.png").read_bytes())
    with pytest.raises(DataError, match=r"a\.json: it cannot be written \(No such file"), whole(tmp_path / "a.json") as partial:
        partial.unlink()  # it is not there: as if a folder had been removed meanwhile
    with pytest.raises(DataError, match="no space is left"), writing(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "full", str(tmp_path / "temporary"))
    assert list(tmp_path.iterdir()) == []


def test_the_device_that_is_always_full() -> None:
    """What the libraries themselves raise, on a file that the system keeps for this."""
    if not Path("/dev/full").exists():
        pytest.skip("no such device here")
    with pytest.raises((OSError, RuntimeError)) as raised, open("/dev/full", "wb") as file:
        torch.save({"a": LARGE}, file)
    assert refusal(raised.value) == "no space is left"
    assert refusal(OSError(errno.EDQUOT, "quota")) == "your quota is used up"
    assert refusal(ValueError("os error 28")) is None


def test_models_are_as_readable_as_other_files(tmp_path: Path) -> None:
    """safetensors writes for its owner alone."""
    from safetensors.torch import save_file

    (tmp_path / "plain").write_text("")
    with whole(tmp_path / "a.safetensors") as partial:
        save_file({"a": torch.zeros(1)}, partial)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    net = open_backbone("scratch", ("a", "b"), size=16)
    net.save(tmp_path / "net")
    assert {file.stat().st_mode for file in (tmp_path / "net").iterdir()} == {(tmp_path / "plain").stat().st_mode}
