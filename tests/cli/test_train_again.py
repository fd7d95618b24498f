"""`train` into a folder that holds its classifier already: done where nothing differs, else told what does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended, fill, photo
from tests.training.toys import resnet_folder

SHORT = ("--steps", 20, "--size", 16)


def content(folder: str) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in Path(folder).iterdir()}


@pytest.mark.parametrize("start", ["random", "features"])
def test_the_same_command_finds_its_training_done(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, start: str) -> None:
    """It says the same and touches nothing; whatever would have trained otherwise is named."""
    words = (*SHORT, "--classifier", resnet_folder(tmp_path / "start")) if start == "features" else (*SHORT, "--augment", "plain")
    first = rediffuse("train", photos, "net", *words)
    assert first.status == 0, first.err
    before = content("net")
    again = rediffuse("train", photos, "net", *words, "--device", "cpu")
    assert again.status == 0, again.err
    assert again.out == first.out
    assert "Done already, by this command; remove net to train again." in again.err
    assert "training" not in rediffuse("train", photos, "net", *words, "--quiet").err
    for more, said in (
        (("--seed", 3), "--seed was 0, now 3"),
        (("--no-flips",), "--no-flips was False, now True"),
        (("--holdout", 0.5), "--holdout was None, now 0.5"),
        (("--fit", "crop"), "--fit was 'pad', now 'crop'"),
    ):
        other = rediffuse("train", photos, "net", *words, *more)
        assert other.status == 2
        assert f"net holds a classifier of another training: {said}; give another folder, or empty" in " ".join(other.err.split())
    photo(0, 99).save(photos / "cat" / "99.png")
    other = rediffuse("train", photos, "net", *words)
    assert other.status == 2
    assert re.search("the photos to (learn from|be judged on) were others", " ".join(other.err.split()))
    assert content("net") == before


def test_other_things_under_the_same_names_are_no_done_training(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path) -> None:
    start = resnet_folder(tmp_path / "start")
    second = fill(tmp_path / "second", {"cat": 2, "dog": 2, "red bird": 2}, first=50)
    words = ("--size", 16, "--steps", 2, "--batch", 4, "--classifier", start, "--second", second, "--augment", "plain")
    first = rediffuse("train", photos, "net", *words)
    assert first.status == 0, first.err
    assert rediffuse("train", photos, "net", *words).out == first.out
    photo(0, 77).save(second / "cat" / "50.png")
    assert "the photos of --second were others" in " ".join(rediffuse("train", photos, "net", *words).err.split())
    photo(0, 50).save(second / "cat" / "50.png")
    resnet_folder(start, seed=5)
    assert "the weights of --classifier were others" in " ".join(rediffuse("train", photos, "net", *words).err.split())


def test_a_record_that_cannot_be_read_is_none(rediffuse: Callable[..., Ended], photos: Path) -> None:
    assert rediffuse("train", photos, "net", *SHORT).status == 0
    for text in ("{", "[]", '{"version": 2, "asked": {}, "accuracy": {}}'):
        Path("net/training.json").write_text(text)
        ended = rediffuse("train", photos, "net", *SHORT)
        assert ended.status == 2
        assert "net holds a classifier already; give another folder" in " ".join(ended.err.split())
