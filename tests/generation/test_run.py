"""Whole runs on a model that is exactly right: the folder, what it says of itself, and that it is continued, not doubled."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.generation.conftest import CLASSES, SIDE, Make, Varied, mixture, picture, pixels, take_photos

from rediffuse.concepts.concepts import Concepts
from rediffuse.data import Example, ImageSet, Mixed, folder
from rediffuse.data.images import pixels_sha256
from rediffuse.data.types import Rejected
from rediffuse.errors import ConfigError, DataError, ModelError, PlanError
from rediffuse.generation import local, writer
from rediffuse.generation import run as run_module
from rediffuse.generation.plan import Plan, draw_of, variant_from_row
from rediffuse.generation.run import generate
from rediffuse.generation.store import Run, finished_shards, read_manifest, read_plan
from rediffuse.methods import from_settings
from rediffuse.methods.da_fusion import DAFusion

RESULT = {"README.md", "images", "manifest", "plan.parquet", "rejected.jsonl", "run.json"}


def far(one: ImageSet, two: ImageSet) -> float:
    """The largest distance of two sets' pixels, in [0, 1]."""
    images = {example.id: np.asarray(example.image, dtype=float) for example in two}
    return max(float(np.abs(np.asarray(example.image) - images[example.id]).max()) for example in one) / 255


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


def test_another_cut_is_equal_within_rounding(make: Make, monkeypatch):
    one = make(batch=1, copies=5)
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    others = [make(name=f"b{batch}", batch=batch, copies=5) for batch in (2, 7)]
    assert [len(finished_shards(run.folder)) for run in (one, *others)] == [1, 3, 1]
    for other in others:
        assert far(one, other) <= 1e-3 + 1 / 255


def test_a_further_photo_changes_no_other_image(make: Make):
    before, after = make(take_photos(each=3), "before"), make(take_photos(each=4), "after")
    assert set(before.ids) < set(after.ids)
    assert far(before, after) <= 1e-3 + 1 / 255
    rows = {row["file_name"]: row for row in after.manifest.to_pylist()}
    for row in before.manifest.to_pylist():
        assert {**rows[row["file_name"]], "pixels_sha256": ""} == {**row, "pixels_sha256": ""}


def test_the_same_call_again_does_nothing(make: Make, tmp_path: Path):
    make()
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "images").rglob("*")}
    assert len(make()) == 24
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "images").rglob("*")} == stamps


def test_who_makes_nothing_leaves_no_print(make: Make, monkeypatch):
    first = make().info["environments"]
    monkeypatch.setattr(writer, "environment", lambda device, threads: {"rediffuse": "another"})
    assert make().info["environments"] == first


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
        assert read.ids == run.ids or sorted(read.ids) == sorted(run.ids)
        assert read.classes == CLASSES
        assert not read.rejected
        places = {name: place for place, name in enumerate(read.ids)}
        for name, label, source, copy in zip(run.ids, run.labels, run.sources, run.copies, strict=True):
            row = places[name]
            assert (read.labels[row], read.sources[row], read.copies[row]) == (label, source, copy)


def test_memory_that_runs_out_halves_the_batch_and_the_rows_say_so(make: Make, monkeypatch):
    class Small(type(mixture())):
        def forward(self, x_t, t, condition=None):
            if len(x_t) > 6:  # three slots, doubled by guidance
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(x_t, t, condition)

    big, small = mixture(), mixture()
    small.__class__ = Small
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    whole = make(name="whole", batch=8, method=Varied(big, CLASSES), copies=16)
    run = make(batch=8, method=Varied(small, CLASSES), copies=16)
    assert len(finished_shards(run.folder)) == 3
    assert set(run.manifest.column("batch").to_pylist()) == {2}
    assert far(whole, run) <= 1e-3 + 1 / 255
    assert {child.name for child in run.folder.iterdir()} == RESULT


def test_memory_that_never_suffices_is_an_error(make: Make, tmp_path: Path):
    class Tiny(type(mixture())):
        def decode(self, x):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    model = mixture()
    model.__class__ = Tiny
    with pytest.raises(ModelError, match="not even one image of 8 pixels fits"):
        make(method=Varied(model, CLASSES))
    assert finished_shards(tmp_path / "out") == []


def test_other_errors_pass_and_nothing_counts_as_done(make: Make, tmp_path: Path):
    class Broken(type(mixture())):
        def decode(self, x):
            return super().decode(x) * float("nan")

    model = mixture()
    model.__class__ = Broken
    with pytest.raises(DataError, match="NaN"):
        make(method=Varied(model, CLASSES))
    assert read_manifest(tmp_path / "out").num_rows == 0
    assert not (tmp_path / "out" / "partial").exists()
    assert not (tmp_path / "out" / "run.lock").exists()
    with pytest.raises(DataError, match="no finished image yet"):
        Run(tmp_path / "out")


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


def test_threads_are_the_plans_and_are_given_back(make: Make):
    before = torch.get_num_threads()
    run = make()
    assert run.info["plan"]["threads"] == before == torch.get_num_threads()


def test_nothing_uses_the_global_random_state(make: Make):
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numbers  # noqa: NPY002


def test_mistakes_are_named(make: Make):
    photos = take_photos()
    with pytest.raises(ConfigError, match="give side"):
        make(side=None)
    with pytest.raises(ConfigError, match="must be a DAFusion or RealGuidance, got int"):
        generate(photos, 3, "nowhere")  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        make(batch=0)
    unlabelled = ImageSet.of([Example(id="a", image=picture(0), label=None)], classes=())
    with pytest.raises(DataError, match="without a label"):
        make(unlabelled, method=Varied(mixture(), CLASSES))
