"""A run is continued, never doubled; what was begun keeps its cut; another plan is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.generation.conftest import CLASSES, RESULT, Make, Varied, mixture, pixels, take_photos

from rediffuse.concepts.concepts import Concepts
from rediffuse.data.decoding import FilePayload
from rediffuse.errors import DataError, PlanError
from rediffuse.generation import local, writer
from rediffuse.generation import run as run_module
from rediffuse.generation.environment import environment, short_hash
from rediffuse.generation.provenance import report, verify
from rediffuse.generation.store import Run, finished_shards, manifest_name, read_info, read_plan
from rediffuse.methods.da_fusion import DAFusion


def test_the_same_call_again_does_nothing(make: Make, tmp_path: Path):
    make()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "images").rglob("*")}
    assert len(make()) == 24
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "images").rglob("*")} == stamps


def test_who_makes_nothing_leaves_no_print(make: Make, monkeypatch):
    first = make().info["environments"]
    monkeypatch.setattr(writer, "environment", lambda device, threads: {"rediffuse": "another"})
    assert make().info["environments"] == first


def test_a_run_with_an_older_print_goes_on_and_says_so(make: Make, monkeypatch, capsys):
    """One that does not name the processor: nobody knows whether it is this one, so the rest is promised within rounding alone."""
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    old = {name: value for name, value in environment(torch.device("cpu"), 1).items() if not name.startswith(("processor", "instruction_"))}
    with monkeypatch.context() as before:
        before.setattr(writer, "environment", lambda device, threads: old)
        run = make()
    assert verify(run.folder) == []
    made, first = pixels(run), run.manifest.column("environment")[0].as_py()
    run.folder.joinpath("manifest", "shard-00001.parquet").unlink()
    again = make(progress="bar")
    assert "agree within rounding, not to the bit" in capsys.readouterr().err
    assert again.complete
    assert pixels(again) == made  # it was this machine, after all
    assert (first, again.info["environments"][first], len(again.info["environments"])) == (short_hash(old), old, 2)
    assert set(again.manifest.column("environment").to_pylist()) == set(again.info["environments"])
    assert "environments: 2 (pixels agree within rounding" in report(again.folder)
    make(progress="bar")
    assert "within rounding" not in capsys.readouterr().err


def test_finished_shards_of_an_unknown_plan_are_refused(make: Make):
    (make().folder / "run.json").unlink()
    with pytest.raises(PlanError, match=r"finished shards but no run\.json"):
        make(seed=1)


@pytest.mark.parametrize(("seed", "seconds", "words"), [(1, 0, "seed 0 there, 1 here"), (0, 1e9, "begun by another process meanwhile")])
def test_a_run_begun_between_plan_and_lock_is_not_mixed_with_ours(make: Make, monkeypatch, seed, seconds, words):
    """The other one begins, and is killed after its first shard, while this one still measures its speed."""
    price = run_module.price

    def meanwhile(*given):
        monkeypatch.setattr(run_module, "price", price)
        monkeypatch.setattr(local, "SHARD_SECONDS", 0)
        theirs = make(seed=0)
        theirs.folder.joinpath("manifest", "shard-00001.parquet").unlink()
        return price(*given)

    monkeypatch.setattr(run_module, "price", meanwhile)
    monkeypatch.setattr(local, "SHARD_SECONDS", seconds)
    with pytest.raises(PlanError, match=words):
        make(seed=seed)


def test_a_shard_without_a_manifest_is_made_again(make: Make, monkeypatch):
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    whole = make(name="whole")
    run = make()
    assert len(finished_shards(run.folder)) == 3
    lost = run.folder / "manifest" / "shard-00001.parquet"
    names = pq.read_table(lost).column("file_name").to_pylist()
    lost.unlink()
    (run.folder / "images" / names[0]).write_bytes(b"half of a file")
    (run.folder / "images" / names[1]).unlink()
    (run.folder / "images" / "metadata.parquet").unlink()
    (run.folder / "run.json").write_text((run.folder / "run.json").read_text().replace('"complete"', '"open"'))
    assert not Run(run.folder).complete
    assert len(Run(run.folder)) == 16
    again = make()
    assert again.complete
    assert pixels(again) == pixels(whole)
    assert {child.name for child in run.folder.iterdir()} == RESULT


def test_images_that_are_missing_or_damaged_are_made_again(make: Make, monkeypatch, capsys):
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    run = make()
    before, images = pixels(run), run.folder / "images"
    first, second, third = (
        pq.read_table(run.folder / "manifest" / f"shard-0000{n}.parquet").column("file_name").to_pylist() for n in range(3)
    )
    (images / second[0]).unlink()
    (images / second[1]).write_bytes((images / second[1]).read_bytes()[:40])
    left = {name: (images / name).stat().st_mtime_ns for name in (*first, *third)}
    assert len(Run(run.folder)) == 22
    again = make(progress="bar")
    assert (again.complete, again.rejected) == (True, ())
    assert pixels(again) == before
    assert {name: (images / name).stat().st_mtime_ns for name in (*first, *third)} == left
    said = capsys.readouterr().err
    assert f"missing, damaged or changed: {second[0]}" in said
    assert f"2 images in all; {len(second)} are made again" in said
    assert {child.name for child in run.folder.iterdir()} == RESULT
    shutil.rmtree(images)
    assert pixels(make()) == before


def test_an_image_that_was_changed_is_made_again(make: Make, capsys):
    run = make()
    before, changed = pixels(run), run.folder / "images" / run.ids[3]
    Image.new("RGB", Image.open(changed).size, "red").save(changed)
    assert pixels(Run(run.folder)) != before
    assert pixels(make(progress="bar")) == before
    assert f"{run.ids[3]} (its pixels are not those that were written), 1 image in all" in capsys.readouterr().err


def test_a_run_calls_itself_open_before_it_loses_a_shard(make: Make, monkeypatch):
    run, seen = make(), []
    (run.folder / "images" / run.ids[0]).unlink()

    def name(number: int) -> str:
        seen.append((read_info(run.folder)["state"], finished_shards(run.folder)))
        return manifest_name(number)

    monkeypatch.setattr(writer, "manifest_name", name)
    assert make().complete
    assert seen == [("open", [0])]


def test_making_again_may_be_killed(make: Make, monkeypatch):
    run = make()
    before, lost = pixels(run), run.ids[0]
    (run.folder / "images" / lost).unlink()

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(local.Engine, "make", killed)
        with pytest.raises(RuntimeError, match="killed"):
            make()
    assert read_info(run.folder)["state"] == "open"
    assert finished_shards(run.folder) == []
    assert pixels(make()) == before
    assert Run(run.folder).complete


def test_an_image_that_cannot_be_kept_is_an_error(make: Make, monkeypatch):
    run = make()
    lost = run.folder / "images" / run.ids[0]
    read = FilePayload.read

    def failing(payload: FilePayload) -> Any:
        if payload.path == lost:
            raise DataError("the disk gives other bytes than it was given")
        return read(payload)

    monkeypatch.setattr(FilePayload, "read", failing)
    with pytest.raises(DataError, match=r"cannot be read right after it was made: the disk gives other bytes.*Check the disk"):
        make()


def test_a_begun_run_keeps_its_cut(make: Make, monkeypatch):
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    run = make()
    monkeypatch.setattr(local, "SHARD_SECONDS", 1e9)
    assert len(read_plan(run.folder)) == 24
    assert make(batch=None).info["plan"]["shards"] == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"copies": 5}, "copies 4 there, 5 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"batch": 4}, "batch 2 there, 4 here"),
        ({"format": "webp"}, 'format "png" there, "webp" here'),
        ({"keep_real": True}, "keep_real false there, true here"),
        ({"images": take_photos(each=4)}, r"2 photos \('cat/3.png', 'dog/3.png'\) only here"),
        ({"method": Varied(mixture(), CLASSES, guidance_scale=2.0)}, "method.guidance_scale 4.0 there, 2.0 here"),
    ],
)
def test_another_plan_is_refused_and_nothing_is_touched(make: Make, tmp_path: Path, change, words):
    make()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    with pytest.raises(PlanError, match=words):
        make(**change)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before


def test_other_weights_are_another_plan(make: Make):
    make()
    model = mixture()
    model.means += 0.1
    with pytest.raises(PlanError, match=r"denoiser.weights_hash"):
        make(method=Varied(model, CLASSES))


def test_learned_words_are_recorded_and_are_part_of_the_plan(make: Make):
    def fusion(seed: int) -> DAFusion:
        model = mixture()
        model.prompts = {"": -1, "a photo of a <cat>": 0, "a photo of a <dog>": 1}
        vectors = {name: torch.randn((1, 4), generator=torch.Generator().manual_seed(seed)) for name in CLASSES}
        return DAFusion(model, Concepts(words=vectors), steps=8)

    run = make(method=fusion(0))
    assert set(run.manifest.column("concept_hash").to_pylist()) == {fusion(0).concept_hash}
    assert set(run.manifest.column("prompt").to_pylist()) == {"a photo of a <cat>", "a photo of a <dog>"}
    assert set(run.manifest.column("method").to_pylist()) == {"da_fusion"}
    with pytest.raises(PlanError, match=r"concepts .* there"):
        make(method=fusion(1))


def test_a_folder_of_other_things_is_refused(make: Make, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(PlanError, match=r"holds other files \('thesis.tex'\)"):
        make()
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="is a file"):
        make(name="file")
    with pytest.raises(PlanError, match="holds no run"):
        Run(tmp_path)
