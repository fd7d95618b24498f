"""Stable Diffusion in one file from the command line: what it does not say of itself is given in options, to every verb that takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Ended, fill
from tests.tiny import tiny_stable
from tests.tiny_original import tiny_original

from rediffuse.denoisers import stable_file
from rediffuse.errors import ModelError
from rediffuse.generation.store import Run

QUICK = ("--method", "real-guidance", "--steps", 2, "--copies", 1)
SIDE = 8
Pair = tuple[Path, Path]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken to have learned from latents of 8 x 8: those of 64 x 64, as released, take these tests minutes."""
    unet_config = stable_file.unet_config
    monkeypatch.setattr(stable_file, "unet_config", lambda state, sample_size: unet_config(state, SIDE))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny_original(tmp_path_factory.mktemp("first") / "model", version=1, sample_size=SIDE)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny_original(tmp_path_factory.mktemp("second") / "model", version=2, sample_size=SIDE)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A photo of each of two classes."""
    return fill(tmp_path / "pair", {"cat": 1, "dog": 1})


def pictures(run: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file), dtype=np.int16) for file in sorted(Path(run, "images").rglob("*.png"))])


def test_a_file_makes_the_copies_of_its_folder(rediffuse: Callable[..., Ended], pair: Path, first: Pair) -> None:
    folder, file = first
    words = folder / "tokenizer"
    command = ("augment", pair, "more", "--model", file, "--tokenizer", words, *QUICK)
    ended = rediffuse(*command)
    assert ended.status == 0, ended.err
    assert f"rediffuse compare {pair} --model {file} --tokenizer {words}" in ended.err
    assert rediffuse("augment", pair, "wanted", "--model", folder, *QUICK).status == 0
    assert np.abs(pictures("more") - pictures("wanted")).max() <= 1
    before = Run("more").digests
    again = rediffuse(*command)
    assert again.status == 0, again.err
    assert Run("more").digests == before


def test_a_second_generation_file_is_told_what_it_predicts(rediffuse: Callable[..., Ended], pair: Path, second: Pair) -> None:
    folder, file = second
    known = ("augment", pair, "more", "--model", file, "--tokenizer", folder / "tokenizer", *QUICK)
    asked = rediffuse(*known)
    assert asked.status == 2
    assert "say epsilon (512 base) or v_prediction (768) with --prediction, or prediction= in Python" in asked.err
    ended = rediffuse(*known, "--prediction", "v_prediction")
    assert ended.status == 0, ended.err
    assert f"--tokenizer {folder / 'tokenizer'} --prediction v_prediction" in ended.err
    other = rediffuse(*known, "--prediction", "epsilon")  # another model, whose copies do not belong here
    assert other.status == 2
    assert "holds the run of another plan" in other.err


def test_another_tokenizer_is_another_model(rediffuse: Callable[..., Ended], pair: Path, first: Pair, tmp_path: Path) -> None:
    folder, file = first
    command = ("augment", pair, "more", "--model", file, *QUICK, "--tokenizer")
    assert rediffuse(*command, folder / "tokenizer").status == 0
    same, other = tmp_path / "same", tiny_stable(tmp_path / "other", layout="old") / "tokenizer"
    same.mkdir()
    for part in (folder / "tokenizer").iterdir():
        (same / part.name).write_bytes(part.read_bytes())
    (same / "more").mkdir()  # folders inside are no part of it
    assert rediffuse(*command, same).status == 0  # by what it holds, not by where it lies
    refused = rediffuse(*command, other)
    assert refused.status == 2
    assert "holds the run of another plan" in refused.err


def test_a_file_without_a_tokenizer_asks_for_one(rediffuse: Callable[..., Ended], pair: Path, first: Pair) -> None:
    folder, file = first
    asked = rediffuse("augment", pair, "more", "--model", file, *QUICK)
    assert asked.status == 2
    assert "brings no tokenizer" in asked.err
    assert "(--tokenizer FOLDER, or tokenizer= in Python)" in asked.err
    inside = rediffuse("augment", pair, "more", "--model", file, *QUICK, "--tokenizer", folder)
    assert inside.status == 2
    assert f"{folder} holds no tokenizer; {folder / 'tokenizer'} does" in inside.err
    nowhere = rediffuse("augment", pair, "more", "--model", file, *QUICK, "--tokenizer", "nowhere")
    assert "nowhere holds no tokenizer: it needs tokenizer.json, or vocab.json and merges.txt" in nowhere.err
    assert list(Path.cwd().iterdir()) == []


VERBS = {
    "augment": ("PHOTOS", "more"),
    "learn": ("PHOTOS", "words"),
    "generate": ("PHOTOS", "more", "--method", "real-guidance"),
    "generate OUT": ("more", "--from-noise", "--method", "real-guidance", "--classes", "cat"),
    "compare": ("PHOTOS", "--shots", 1, "--test", "PHOTOS"),
    "demo": ("--quick",),
}


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_that_takes_a_file_passes_on_what_it_is_told(
    rediffuse: Callable[..., Ended], pair: Path, first: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.denoisers import load as loading

    folder, file = first
    words = [name.split()[0], *(pair if word == "PHOTOS" else word for word in VERBS[name])]
    told = ("--tokenizer", folder / "tokenizer", "--prediction", "epsilon")
    found: dict[str, object] = {}

    def stop(spec: str, **options: object) -> None:
        found.update(options, model=spec)
        raise ModelError("far enough")

    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", stop)
        ended = rediffuse(*words, "--model", file, *told)
    assert "far enough" in ended.err
    assert (found["model"], found["tokenizer"], found["prediction"]) == (str(file), folder / "tokenizer", "epsilon")
    for other in ((), ("--model", folder), ("--model", "owner/name")):
        refused = rediffuse(*words, *other, *told)
        assert refused.status == 2
        named = other[1] if other else "tiny-imagenet-64"
        assert f"is for a --model that is a single .safetensors file, got --model {named}; leave it out" in refused.err


def test_commands_that_come_next_open_the_same_file(rediffuse: Callable[..., Ended], pair: Path, first: Pair) -> None:
    folder, file = first
    told = ("--model", file, "--tokenizer", folder / "tokenizer", "--prediction", "epsilon")
    typed = " ".join(map(str, told))
    asked = rediffuse("generate", pair, "more", "--no-flips", *told)
    assert f"make one with rediffuse learn {pair} words --no-flips {typed}" in asked.err
    learned = rediffuse("learn", pair, "words", *told, "--samples", 2)
    assert learned.status == 0, learned.err
    assert f"rediffuse generate {pair} more --words words {typed}" in learned.err


@pytest.mark.parametrize("verb", ["augment", "learn", "generate", "compare", "demo"])
def test_help_says_that_a_file_will_do(rediffuse: Callable[..., Ended], verb: str) -> None:
    said = " ".join(rediffuse(verb, "--help").out.replace("│", " ").split())
    assert "a single .safetensors file" in said
