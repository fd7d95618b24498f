"""What the user can mend ends with status 2 and a paragraph that names the value and the fix; nothing is left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Ended, fill, photo
from tests.full_disk import full_disk
from tests.tiny import tiny_stable
from tests.tiny_pixel import tiny_pixel


def refused(ended: Ended, *said: str) -> None:
    """Status 2, one paragraph on standard error with all of this in it, no traceback, nothing written."""
    assert ended.status == 2, (ended.out, ended.err)
    assert ended.err.startswith("rediffuse: ") or "\nrediffuse: " in ended.err
    assert "Traceback" not in ended.err
    for words in said:
        assert words in ended.err


@pytest.fixture
def augment(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> Callable[..., Ended]:
    """augment(*options, photos=...): with the tiny model unless another is named."""

    def run(*options: object, source: object = photos, use: object = model, out: object = "more") -> Ended:
        usual = {"--method": "real-guidance", "--steps": 2, "--copies": 1}
        small = [word for name, value in usual.items() if name not in options for word in (name, value)]
        return rediffuse("augment", source, out, "--model", use, *small, *options)

    return run


def test_no_such_folder(augment: Callable[..., Ended], photos: Path) -> None:
    refused(augment(source=photos.with_name("photo")), "photo", "did you mean 'photos'")


def test_an_empty_folder(augment: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(augment(source=tmp_path / "empty"), "empty", "no picture")


def test_only_broken_photos(augment: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "a.png").write_bytes(b"")
    refused(augment(source=tmp_path / "broken"), "cat/a.png", "empty file")


def test_no_labels(augment: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    photo(0, 0).save(tmp_path / "flat" / "a.png")
    refused(augment(source=tmp_path / "flat"), "no labels", "one folder a class")


def test_fewer_photos_than_asked_for(augment: Callable[..., Ended]) -> None:
    refused(augment("--shots", 9), "'cat' has 4 images, 9 were asked for")


def test_one_class_is_enough_to_augment_but_not_to_train(
    augment: Callable[..., Ended], rediffuse: Callable[..., Ended], tmp_path: Path
) -> None:
    lone = fill(tmp_path / "lone", {"cat": 4})
    assert augment(source=lone).status == 0
    refused(rediffuse("train", lone, "net"), "at least two classes", "'cat'")


def test_a_split_must_be_chosen(augment: Callable[..., Ended], tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill(tmp_path / "sets" / split, {"cat": 1, "dog": 1})
    refused(augment(source=tmp_path / "sets"), "looks like splits", "--split test")
    assert augment("--split", "train", source=tmp_path / "sets").status == 0


def test_a_folder_of_another_plan(augment: Callable[..., Ended]) -> None:
    assert augment().status == 0
    before = {path: path.read_bytes() for path in Path("more").rglob("*") if path.is_file()}
    refused(augment("--seed", 5), "another plan", "seed 0 there, 5 here")
    assert {path: path.read_bytes() for path in Path("more").rglob("*") if path.is_file()} == before


def test_a_folder_with_other_things(augment: Callable[..., Ended]) -> None:
    Path("more").mkdir()
    Path("more/diary.txt").write_text("mine")
    refused(augment(), "diary.txt", "new or empty folder")
    Path("file").write_text("x")
    refused(augment(out="file"), "is a file")
    assert Path("more/diary.txt").read_text() == "mine"


@pytest.mark.parametrize("verb", ["augment", "generate", "learn", "train"])
def test_a_place_below_a_file_is_refused_before_the_work(rediffuse: Callable[..., Ended], tmp_path: Path, verb: str) -> None:
    Path("file").write_text("x")
    refused(rediffuse(verb, tmp_path / "never opened", "file/new"), "nothing can be written in file/new", "give another place")


def test_a_running_writer_is_not_disturbed(augment: Callable[..., Ended]) -> None:
    assert augment().status == 0
    manifest = next(Path("more/manifest").iterdir())
    manifest.unlink()
    lock = {"host": "elsewhere", "pid": 1, "time": "2026-01-01T00:00:00+00:00"}
    Path("more/run.lock").write_text(json.dumps(lock))
    refused(augment(), "elsewhere", "--take-over")
    assert augment("--take-over").status == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--strengths", "1.3"), "strength must be in (0, 1], got 1.3"),
        (("--strengths", "0"), "got 0"),
        (("--guidance", "-2"), "guidance scale must be a number of at least 0, got -2"),
        (("--guidance", "nan", "--method", "da-fusion"), "got nan"),
        (("--strengths", ".25", ".5"), "one strength"),
        (("--copies", "0"), "--copies must be at least 1, got 0"),
        (("--target-per-class", "0"), "--target-per-class must be at least 1, got 0"),
        (("--batch", "-2"), "--batch must be at least 1, got -2"),
        (("--preview", "-1"), "--preview must be at least 0, got -1"),
        (("--steps", "0"), "--steps must be at least 1, got 0"),
        (("--shots", "0"), "shots must be at least 1, got 0"),
        (("--dtype", "int7"), "'int7'"),
        (("--device", "abacus"), "'abacus'"),
        (("--method", "da-fusion", "--prompt", "photo"), "--method real-guidance"),
        (("--method", "da-fusion", "--recipe", "slow"), "no recipe 'slow'"),
        (("--method", "da-fusion", "--words", "nowhere"), "nowhere"),
        (("--law", "iid"), "--law iid is of several strengths, and real-guidance has one"),
        (("--recipe", "paper_full"), "--recipe paper_full says how words are learned, and --method real-guidance needs none"),
        (("--samples", "99"), "--samples 99 says how words are learned"),
        (("--method", "da-fusion", "--words", "nowhere", "--samples", "9"), "--words brings them; leave it out"),
    ],
)
def test_settings_out_of_range(augment: Callable[..., Ended], options: tuple[str, ...], said: str) -> None:
    refused(augment(*options), said)
    assert list(Path.cwd().iterdir()) == []


def test_words_of_other_classes(rediffuse: Callable[..., Ended], photos: Path, model: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", {"fish": 1, "cat": 1})
    assert rediffuse("learn", other, "words", "--model", model, "--samples", 4).status == 0
    refused(rediffuse("generate", photos, "more", "--words", "words", "--model", model), "'dog'", "'fish'")
    refused(rediffuse("generate", photos, "more", "--model", model), "--words", "rediffuse learn")
    refused(rediffuse("learn", other, "a.safetensors", "--model", model), "folder")
    refused(rediffuse("learn", photos, "words", "--model", model), "belong to another learning", "--words words")


def test_classes_whose_tokens_collide_are_kept_apart(rediffuse: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    photos = fill(tmp_path / "photos2", {"Crane": 1, "crane": 1})
    ended = rediffuse("learn", photos, "words", "--model", model, "--samples", 4)
    assert ended.status == 0
    assert "<crane>" not in ended.out.casefold()
    assert ended.out.casefold().count("<crane-") == 2
    assert "class 'Crane' is learned as <Crane-" in ended.err  # and no line of Python around it
    assert ".py" not in ended.err


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_model_that_lacks_a_part(augment: Callable[..., Ended], tmp_path: Path, part: str) -> None:
    broken = tiny_stable(tmp_path / "broken")
    (broken / part).rename(tmp_path / "elsewhere")
    refused(augment(use=broken), part)


def test_a_pickle_where_safetensors_is_expected(augment: Callable[..., Ended], tmp_path: Path) -> None:
    refused(augment(use=tiny_stable(tmp_path / "pickled", layout="pickle")), ".bin", "safetensors")


def test_a_model_with_code_of_its_own(augment: Callable[..., Ended], tmp_path: Path) -> None:
    foreign = tiny_stable(tmp_path / "foreign")
    (foreign / "unet" / "mine.py").write_text("raise SystemExit('ran')")
    refused(augment(use=foreign), "mine.py", "never run")


def test_no_such_model(augment: Callable[..., Ended]) -> None:
    refused(augment(use="tiny-imagenet-46"), "tiny-imagenet-46")


@pytest.mark.parametrize(
    "words",
    [
        ("augment", "PHOTOS", "more"),
        ("augment", "PHOTOS", "more", "--dry-run"),
        ("augment", "PHOTOS", "more", "--method", "real-guidance", "--dry-run"),
        ("learn", "PHOTOS", "more"),
        ("generate", "PHOTOS", "more", "--method", "real-guidance"),
        ("generate", "more", "--from-noise", "--method", "real-guidance", "--classes", "cat"),
        ("compare", "PHOTOS", "--shots", "1", "--out", "more"),
        ("demo", "--out", "more"),
    ],
)
def test_a_model_without_prompts(rediffuse: Callable[..., Ended], photos: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    pixels = tiny_pixel(tmp_path / "pixels")
    refused(rediffuse(*(photos if word == "PHOTOS" else word for word in words), "--model", pixels), "takes no prompts", "tiny-imagenet-64")
    assert not Path("more").exists()


def test_a_model_that_is_told_the_number_of_a_class(augment: Callable[..., Ended], tmp_path: Path) -> None:
    refused(augment("--dry-run", use=tiny_pixel(tmp_path / "pixels", num_class_embeds=3)), "takes no prompts", "tiny-imagenet-64")


def test_a_word_file_that_can_run_code(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("pwned",)

    torch.save({"<cat>": Bad()}, "words.pt")
    refused(rediffuse("generate", photos, "more", "--words", "words.pt", "--model", model), "words.pt")
    assert not Path("pwned").exists()


class TestLargePhotos:
    """Photos above 96 pixels stop before any work, unless a model is named."""

    @pytest.mark.parametrize("words", [("augment",), ("learn",), ("generate", "--method", "real-guidance")])
    def test_twelve_megapixels_without_a_model(self, rediffuse: Callable[..., Ended], tmp_path: Path, words: tuple[str, ...]) -> None:
        photos = fill(tmp_path / "large", {"cat": 1, "dog": 1}, size=(97, 16))
        photo(0, 9, (4000, 3000)).save(photos / "cat" / "big.jpg")
        ended = rediffuse(words[0], photos, "more", *words[1:])
        refused(ended, "All 3 photos are larger than 96 pixels (97x16 to 4000x3000)", "--model tiny-imagenet-64", "4.3 GB")
        assert "--model stable-diffusion-v1-5/stable-diffusion-v1-5" in ended.err
        assert list(Path.cwd().iterdir()) == []

    def test_a_table_of_large_photos(self, rediffuse: Callable[..., Ended], tmp_path: Path) -> None:
        photos = fill(tmp_path / "large", {"cat": 1, "dog": 2}, size=(120, 100))
        table = tmp_path / "large" / "t.csv"
        table.write_text("file,label\ncat/0.png,cat\ndog/0.png,dog\ndog/1.png,dog\n")
        refused(rediffuse("augment", table, "more"), "All 3 photos are larger", "120x100")
        assert photos.is_dir()

    def test_ninety_six_is_small_and_a_named_model_is_enough(self, rediffuse: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
        from rediffuse.cli.large import Work, check_small

        check_small([(96, 96), (64, 20)], 1, lambda *_: Work(), "cpu")
        photos = fill(tmp_path / "large", {"cat": 1, "dog": 1}, size=(200, 100))
        words = ("--model", model, "--method", "real-guidance", "--steps", 2, "--copies", 1)
        assert rediffuse("augment", photos, "more", *words).status == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("augment", "PHOTOS", "out", "--model", "MODEL", "--method", "real-guidance", "--steps", 2, "--copies", 2), "out: "),
        (("augment", "PHOTOS", "out", "--model", "MODEL", "--steps", 2, "--copies", 2, "--samples", 4), "learning.safetensors: "),
        (("learn", "PHOTOS", "out", "--model", "MODEL", "--samples", 4), "learning.safetensors: "),
        (("train", "PHOTOS", "out", "--steps", 2, "--size", 16), ".training.pt: "),
    ],
)
def test_a_full_disk(rediffuse: Callable[..., Ended], photos: Path, model: Path, words: tuple[object, ...], said: str) -> None:
    """Files may not grow over a kilobyte: a write fails in the middle, as on a full disk. What standard error says is shorter."""
    places = {"PHOTOS": photos, "MODEL": model}
    with full_disk(1024):
        ended = rediffuse(*(places.get(str(word), word) for word in words))
    refused(ended, said, "a file would grow over the size limit", "Make room")
    assert not [path for path in Path().rglob("*") if path.is_file()]
