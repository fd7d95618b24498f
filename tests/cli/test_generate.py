"""`generate --from-noise` on a tiny model; copies of photos are tested with `augment`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended
from tests.tiny import tiny_stable

from rediffuse.denoisers.load import load
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


def test_words_of_another_model_are_told(rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path) -> None:
    """Once and with --quiet too, by both hashes, and kept with the run; token files of other programs name no model."""
    other = tiny_stable(tmp_path / "other", seed=1)
    learned_on, used_on = (load(str(place)).fingerprint()[:12] for place in (model, other))
    assert rediffuse("learn", photos, "words", "--model", model, "--samples", 4, "--quiet").status == 0
    quick = ("--steps", 2, "--copies", 1, "--quiet")
    for verb, words, strange in (("generate", "words", True), ("augment", "words", True), ("augment", "words/tokens", False)):
        ended = rediffuse(verb, photos, f"{verb}-{strange}", "--words", words, "--model", other, *quick)
        assert ended.status == 0, ended.err
        said = " ".join(ended.err.split())
        assert said.count("these words were learned on") == strange
        if strange:
            assert f"({learned_on}) and are used on {other} ({used_on})" in said
        assert len(Run(f"{verb}-{strange}").info["notes"]) == strange
    drawn = rediffuse("generate", "drawn", "--from-noise", "--words", "words", "--model", other, *quick)
    assert drawn.err.count("these words were learned on") == 1
    assert "these words were learned on" in rediffuse("run", "report", "drawn").out
    assert rediffuse("generate", photos, "own", "--words", "words", "--model", model, *quick).err == ""


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
        (("drawn", "--from-noise", "--words", "none", "--law", "iid"), "--law belongs to photos"),
        (("drawn", "--from-noise", *NAMED, "--fit", "crop"), "--fit belongs to photos"),
    ],
)
def test_mistakes_are_named(rediffuse: Callable[..., Ended], model: Path, words: tuple[object, ...], said: str) -> None:
    ended = rediffuse("generate", *words, "--model", model)
    assert ended.status == 2, ended.out
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert list(Path.cwd().iterdir()) == []
