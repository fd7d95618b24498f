"""`generate --from-noise` on a tiny model; copies of photos are tested with `augment`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended

from rediffuse.generation.store import Run

NAMED = ("--method", "real-guidance", "--classes", "cat", "red bird", "--steps", 3, "--copies", 2)


def test_pictures_by_name_and_by_word(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    ended = rediffuse("generate", "drawn", "--from-noise", "--model", model, *NAMED)
    assert ended.status == 0, ended.err
    assert "4 pictures of 2 classes are in drawn/images" in ended.out
    made = Run("drawn")
    assert (made.classes, made.labels, set(made.sources)) == (("cat", "red bird"), (0, 0, 1, 1), {None})
    assert {row["prompt"] for row in made.manifest.to_pylist()} == {"a photo of a cat", "a photo of a red bird"}

    assert rediffuse("learn", photos, "words", "--model", model, "--samples", 4).status == 0
    ended = rediffuse("generate", "spoken", "--from-noise", "--words", "words", "--model", model, "--steps", 3, "--copies", 1)
    assert ended.status == 0, ended.err
    assert Run("spoken").classes == ("cat", "dog", "red bird")
    assert "a photo of a <dog>" in {row["prompt"] for row in Run("spoken").manifest.to_pylist()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("photos", "drawn", "--from-noise", *NAMED), "takes no photos"),
        (("drawn", *NAMED), "--classes belongs to --from-noise"),
        (("drawn",), "give photos and the folder to write"),
        (("drawn", "--from-noise"), "--words FOLDER"),
        (("drawn", "--from-noise", "--method", "real-guidance"), "--classes NAME"),
        (("drawn", "--from-noise", *NAMED, "--shots", 2), "--shots belongs to photos"),
        (("drawn", "--from-noise", *NAMED, "--keep-real"), "--keep-real belongs to photos"),
        (("drawn", "--from-noise", *NAMED, "--strengths", 0.5), "--strengths belongs to photos"),
    ],
)
def test_mistakes_are_named(rediffuse: Callable[..., Ended], model: Path, words: tuple[object, ...], said: str) -> None:
    ended = rediffuse("generate", *words, "--model", model)
    assert ended.status == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert list(Path.cwd().iterdir()) == []
