"""A run that speaks of itself: verified, reported, cited."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from tests.generation.conftest import CLASSES, Make, Varied, mixture

from rediffuse.generation import environment as environment_module
from rediffuse.generation import local
from rediffuse.generation.environment import environment, identify, short_hash
from rediffuse.generation.provenance import cite, inspect, report, verify


def test_a_whole_run_verifies(make: Make):
    assert verify(make(keep_real=True).folder) == []


def test_what_is_wrong_is_found(make: Make, monkeypatch):
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    run = make()
    images = run.folder / "images"
    gone, changed, broken = run.ids[:3]
    (images / gone).unlink()
    Image.new("RGB", (8, 8)).save(images / changed)
    (images / broken).write_bytes(b"")
    (images / "cat-77af77" / "stranger.png").write_bytes(b"")
    (run.folder / "manifest" / "shard-00002.parquet").unlink()
    problems = verify(run.folder)
    assert sum(line.startswith(gone) for line in problems) == 1
    assert f"{changed}: its pixels are not those that were written" in problems
    assert f"{broken}: empty file (0 bytes)" in problems
    assert "cat-77af77/stranger.png: not in the manifest" in problems
    assert "1 of 3 shards are not finished; continue with: the same call of rediffuse.generate" in problems


def test_what_is_lost_is_mended_by_the_command_of_the_run(make: Make):
    """Which is said once; advice for photos, to save one as PNG, mends no run. A stranger is to be moved away."""
    run = make(command="rediffuse generate photos more")
    images = run.folder / "images"
    gone, broken = run.ids[:2]
    (images / gone).unlink()
    (images / broken).write_bytes(b"no picture")
    (images / "stranger.png").write_bytes(b"")
    found = inspect(run.folder)
    assert found.problems == [
        f"{gone}: missing", f"{broken}: not a picture in a format that is read", "stranger.png: not in the manifest"
    ]  # fmt: skip
    assert found.fixes == [
        "To make what is missing, damaged or changed again: rediffuse generate photos more",
        f"What is not in the manifest was not made by the run: move it out of {images}",
    ]
    make()
    assert inspect(run.folder).problems == ["stranger.png: not in the manifest"]
    (images / "stranger.png").unlink()
    assert (inspect(run.folder).problems, inspect(run.folder).fixes) == ([], [])


def test_a_run_that_lost_every_image_is_mended_too(make: Make):
    run = make()
    for name in run.ids:
        (run.folder / "images" / name).unlink()
    found = inspect(run.folder)
    assert found.problems == [f"{name}: missing" for name in run.ids]
    assert len(found.fixes) == 1
    make()
    assert inspect(run.folder).problems == []


def test_a_report_and_a_citation(make: Make):
    run = make(command="rediffuse generate photos more")
    text = report(run.folder)
    assert "complete, 24 images made, 0 real, of 24 planned" in text
    assert "strengths: 0.25 (6), 0.5 (6), 0.75 (6), 1 (6)" in text
    assert "continue with" not in text
    assert "10.48550" not in cite(run.folder)
    assert "He, Ruifei" in cite(run.folder)
    for name in ("meng2022sdedit", "lu2022dpmsolverpp", "rediffuse"):
        assert f"{{{name}," in cite(run.folder)
    assert cite(run.folder).count("@") == 4


def test_notes_of_a_method_stay_with_the_run(make: Make):
    """In run.json, in the report and on the card; once, however often the run is continued."""
    method = Varied(mixture(), CLASSES)
    run = make(method=method)
    assert (run.info["notes"], "note:" in report(run.folder), "Note:" in (run.folder / "README.md").read_text()) == ([], False, False)
    method.notes = ("these words are <others>",)
    for _ in range(2):
        noted = make(name="noted", method=method)
        assert noted.info["notes"] == ["these words are <others>"]
    assert "note: these words are <others>" in report(noted.folder).splitlines()
    assert "- Note: these words are &lt;others&gt;" in (noted.folder / "README.md").read_text().splitlines()


def test_a_run_from_before_there_were_notes_goes_on(make: Make):
    file = make().folder / "run.json"
    info = json.loads(file.read_text())
    del info["notes"]
    file.write_text(json.dumps(info))
    assert "note:" not in report(file.parent)
    assert verify(file.parent) == []
    assert make().info["notes"] == []


def test_models_are_told_apart_by_their_weights():
    one, two = mixture(), mixture()
    assert identify(one) == identify(two)
    two.means[0, 0, 0, 0] += 1e-6
    assert identify(one)["weights_hash"] != identify(two)["weights_hash"]
    three = mixture()
    three.schedule = three.schedule.from_betas(three.schedule.alpha.double() * 0 + 0.01)
    assert identify(one)["weights_hash"] != identify(three)["weights_hash"]


def test_environments_are_told_apart():
    here = environment(torch.device("cpu"), 2)
    assert short_hash(here) == short_hash(environment(torch.device("cpu"), 2)) != short_hash(environment(torch.device("cpu"), 3))


@pytest.mark.parametrize(
    ("asked", "other"), [("processor", "Another 9000"), ("processor_numbers", ["AnotherMaker", "1"]), ("instruction_sets", ["another"])]
)
def test_processors_that_choose_other_kernels_are_told_apart(monkeypatch: pytest.MonkeyPatch, asked: str, other: object):
    """Also where torch has one word for both, as for AVX512 with BF16 and without."""
    here = environment(torch.device("cpu"), 2)
    monkeypatch.setattr(environment_module, asked, lambda: other)
    there = environment(torch.device("cpu"), 2)
    assert short_hash(there) != short_hash(here)
    assert there["instructions"] == here["instructions"]
