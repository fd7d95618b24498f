"""Folder in, folder out: `augment`, its steps `learn` and `generate`, and `run`, on a tiny model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Ended, fill
from tests.cli.test_bad_input import refused

from rediffuse.concepts.concepts import Concepts
from rediffuse.data import folder
from rediffuse.data.names import slug
from rediffuse.generation.store import FINISHED, Run

SHORT = ("--steps", 4, "--copies", 3)
QUICK = (*SHORT, "--samples", 8)


def pixels(run: Path) -> dict[str, str]:
    made = Run(run)
    return dict(zip(made.ids, made.digests, strict=True))


def test_folder_in_folder_out(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG")
    ended = rediffuse("augment", photos, "more", "--model", model, *QUICK)
    assert ended.status == 0, ended.err
    assert "36 copies of 12 photos are in more/images" in ended.out
    assert "1 file was left out" in ended.out
    assert "cat/broken.png" in ended.err
    assert {path.name for path in Path("more").iterdir()} == {
        "images",
        "manifest",
        "plan.parquet",
        "README.md",
        "rejected.jsonl",
        "run.json",
    }
    made = Run("more")
    assert made.complete
    assert (len(made), made.classes) == (36, ("cat", "dog", "red bird"))
    assert set(made.sources) == set(folder(photos).ids)
    # Words are learned beside the run, and the commands that are proposed next exist.
    assert Concepts.load("more.words").classes == made.classes
    assert "rediffuse train" in ended.err
    assert "--synthetic more" in ended.err


def test_the_price_of_words_is_said_before_they_are_learned(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.concepts import pricing
    from rediffuse.concepts.concepts import Concepts

    monkeypatch.setattr(pricing, "search_calls", lambda *_: 100_000_000)
    dry = rediffuse("augment", photos, "more", "--model", model, *QUICK, "--dry-run")
    assert "first 3 words to learn, 24 training samples and 300,000,000 looks for where to start: about " in dry.out
    learning, making, whole = (dry.out.count(word) for word in ("looks for where", "36 images from 12 photos", " in all"))
    assert (learning, making, whole) == (1, 1, 1)
    with monkeypatch.context() as patched:
        patched.setattr(Concepts, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = rediffuse("augment", photos, "more", "--model", model, *QUICK)
    assert stopped.status == 130
    for said in ("300,000,000 looks", "36 images from 12 photos", " in all"):
        assert stopped.err.count(said) == 1  # before the first word is there
    ended = rediffuse("augment", photos, "more", "--model", model, *QUICK)
    assert ended.status == 0, ended.err
    assert ended.err.count("36 images from 12 photos") == 1
    assert "to learn" not in rediffuse("augment", photos, "more", "--model", model, *QUICK).err


def test_what_decides_the_labels_goes_into_the_commands_that_come_next(
    rediffuse: Callable[..., Ended], tmp_path: Path, model: Path
) -> None:
    photos = fill(tmp_path / "sets" / "train", {"cat": 2, "dog": 2})
    same = ("--split", "train", "--no-flips", "--model", model)
    learned = rediffuse("learn", photos.parent, "words", *same, "--samples", 8)
    assert learned.status == 0, learned.err
    kept = "--split train --no-flips"
    assert f"words {kept} --model {model}" in " ".join(learned.err.split())
    ended = rediffuse("augment", photos.parent, "more", *same, *SHORT, "--words", "words", "--shots", 1)
    said = " ".join(ended.err.split())
    assert f"classifier --synthetic more {kept} Does it help?" in said
    assert f"rediffuse compare {photos.parent} {kept} --model {model}" in said


def test_the_same_command_again_changes_nothing(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    command = ("augment", photos, "more", "--model", model, *QUICK)
    assert rediffuse(*command).status == 0
    before = {path: path.stat().st_mtime_ns for path in Path("more/images").rglob("*.png")}
    assert rediffuse(*command).status == 0
    assert {path: path.stat().st_mtime_ns for path in Path("more/images").rglob("*.png")} == before


def tree(*places: str) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for place in places for file in sorted(Path(place).rglob("*")) if file.is_file()}


def test_another_run_is_refused_before_words_are_learned_and_its_words_stay(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.concepts import textual_inversion

    command = ("augment", photos, "more", "--model", model, *QUICK)
    assert rediffuse(*command).status == 0
    monkeypatch.setattr(textual_inversion, "learn", lambda *_, **__: pytest.fail("words were learned"))
    checkpoint, words = Path("more.words/learning.safetensors"), Concepts.load("more.words").hash
    for lost in (False, True):
        if lost:  # as the advice to delete it once said
            checkpoint.unlink()
        before = tree("more", "more.words")
        other = rediffuse(*command, "--seed", 1)
        refused(other, "more holds the run of another plan: seed 0 there, 1 here", "Give another folder")
        assert "delete" not in other.err
        # What a run's plan does not hold of the learning, its words tell.
        longer = rediffuse("augment", photos, "more", "--model", model, *SHORT, "--samples", 12)
        refused(longer, "recipe.steps was 2, now 3; the copies in more were made with them", "Give another folder for the copies than more")
        assert "delete" not in longer.err
        assert tree("more", "more.words") == before
        assert rediffuse(*command).status == 0  # the run and its words are as they were
        assert Concepts.load("more.words").hash == words
    fill(photos, {"cat": 1}, first=9)
    added = rediffuse(*command)
    refused(added, "1 photo ('cat/9.png') only here")
    assert "sha256" not in added.err
    refused(
        rediffuse("learn", photos, "more.words", "--model", model, "--samples", 8), "other photos: 12 then, 13 now. Give another folder"
    )


def test_words_without_a_run_are_not_learned_over(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    assert rediffuse("learn", photos, "more.words", "--model", model, "--samples", 8).status == 0
    Path("more.words/learning.safetensors").unlink()
    before = tree("more.words")
    said = rediffuse("augment", photos, "more", "--model", model, *QUICK, "--seed", 3)
    refused(said, "the words in more.words belong to another learning: seed was 0, now 3. Give another folder for the copies than more")
    assert tree("more.words") == before
    assert rediffuse("augment", photos, "more", "--model", model, *SHORT, "--seed", 3, "--words", "more.words").status == 0


def test_the_steps_make_the_same_pixels(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    assert rediffuse("augment", photos, "more", "--model", model, *QUICK, "--seed", 3).status == 0
    learned = rediffuse("learn", photos, "words", "--model", model, "--seed", 3, "--samples", 8)
    assert learned.status == 0
    assert "3 words are in words" in learned.out
    assert "<red_bird>" in learned.out
    assert "rediffuse generate" in learned.err
    assert rediffuse("generate", photos, "again", "--words", "words", "--model", model, *SHORT, "--seed", 3).status == 0
    assert rediffuse("augment", photos, "third", "--words", "words", "--model", model, *SHORT, "--seed", 3).status == 0
    assert pixels(Path("more")) == pixels(Path("again")) == pixels(Path("third"))
    assert not Path("third.words").exists()


def test_a_dry_run_says_what_it_costs_and_writes_nothing(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    ended = rediffuse("augment", photos, "more", "--model", model, *QUICK, "--dry-run")
    assert ended.status == 0
    assert "36 images from 12 photos" in ended.out
    assert "slot use" in ended.out
    assert "24 training samples" in ended.out
    assert list(Path.cwd().iterdir()) == []
    quiet = rediffuse("augment", photos, "more", "--model", model, *QUICK, "--dry-run", "--quiet")
    assert "36 images" in quiet.out
    assert quiet.err == ""


def test_a_dry_run_leaves_an_interrupted_learning_as_it_is(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rediffuse.concepts.concepts import Concepts

    with monkeypatch.context() as patched:
        patched.setattr(Concepts, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert rediffuse("augment", photos, "more", "--model", model, *QUICK).status == 130
    begun = {file: file.read_bytes() for file in Path("more.words").rglob("*") if file.is_file()}
    assert begun
    ended = rediffuse("augment", photos, "more", "--model", model, *QUICK, "--dry-run")
    assert ended.status == 0
    assert "24 training samples" in ended.out
    assert {file: file.read_bytes() for file in Path("more.words").rglob("*") if file.is_file()} == begun


def test_a_preview_makes_a_sheet_beside_the_run(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    words = ("--steps", 4, "--copies", 4, "--method", "real-guidance", "--preview", 4)
    ended = rediffuse("augment", photos, "more", "--model", model, *words)
    assert ended.status == 0, ended.err
    assert Path("more-preview/contact_sheet.png").is_file()
    assert not Path("more").exists()
    for quiet in ([], ["--quiet"]):
        fewer = rediffuse("augment", photos, "more", "--model", model, *words[:-1], 2, *quiet)
        assert fewer.status == 0, fewer.err
        assert "more-preview/contact_sheet.png" in "".join(fewer.out.split())
        assert len(list(Path("more-preview").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("options", "prompts"),
    [
        ((), {"a photo of a cat", "a photo of a dog", "a photo of a red bird"}),
        (("--prompt", "photo"), {"a photo"}),
        (("--prompt", "my {}"), {"my cat", "my dog", "my red bird"}),
    ],
)
def test_real_guidance_prompts(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, options: tuple[str, ...], prompts: set[str]
) -> None:
    ended = rediffuse("augment", photos, "more", "--model", model, "--steps", 4, "--copies", 1, "--method", "real-guidance", *options)
    assert ended.status == 0, ended.err
    rows = Run("more").manifest.to_pylist()
    assert {row["prompt"] for row in rows} == prompts
    assert {row["strength"] for row in rows} == {0.5}
    assert not Path("more.words").exists()


def test_options_reach_the_rows(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    how = "--strengths .25 1 --law iid --guidance 2 --solver ddim --steps 4 --samples 8 --batch 5 --dtype float32 --device cpu"
    what = "--target-per-class 3 --keep-real --format webp --shots 2 --seed 7"
    ended = rediffuse("augment", photos, "more", "--model", model, *how.split(), *what.split())
    assert ended.status == 0, ended.err
    info = json.loads(Path("more/run.json").read_text())
    settings, method = info["settings"], info["settings"]["method"]
    assert (method["strengths"], method["law"], method["guidance_scale"], method["solver"], method["steps"]) == (
        [0.25, 1.0],
        "iid",
        2.0,
        "ddim",
        4,
    )
    assert (settings["seed"], settings["denoiser"]["dtype"], info["plan"]["batch"]) == (7, "float32", 5)
    assert Concepts.load("more.words").settings["batch"] == 5
    made = Run("more")
    assert made.counts() == (3, 3, 3)  # two kept photos and one copy
    assert made.copies.count(-1) == 6
    assert all(name.endswith(".webp") for name in made.ids)


def test_no_flips_reaches_learning_and_run(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    assert rediffuse("augment", photos, "more", "--model", model, *QUICK, "--no-flips").status == 0
    assert Run("more").flips is False
    assert Concepts.load("more.words").settings["photos"]["flips"] is False


def test_awkward_names_come_through(rediffuse: Callable[..., Ended], tmp_path: Path, model: Path) -> None:
    names = ("-rf", "--help", "test", "train", "val_x", 'it\'s "quoted"', "größe [bold]", "日本 語", "a..b", "<b>")
    photos = fill(tmp_path / "-my photos' (1)", dict.fromkeys(names, 1))
    where = Path("-out put")
    ended = rediffuse("augment", "--model", model, "--steps", 2, "--copies", 1, "--method", "real-guidance", "--", photos, where)
    assert ended.status == 0, ended.err
    made = Run(where)
    assert set(made.classes) == set(names)
    assert made.counts() == (1,) * len(names)
    assert rediffuse("run", "verify", "./-out put").status == 0
    exported = rediffuse("run", "export", "./-out put", "plain")
    assert exported.status == 0
    odd = [name for name in names if not Path("plain", name).is_dir()]
    assert odd
    for name in names:
        assert (f"{name!r} is {slug(name)} there" in exported.out) == (name in odd)
    # What was printed can be typed.
    assert "rediffuse train" in ended.err
    assert "--synthetic './-out put'" in ended.err


def test_run_report_verify_export_cite(rediffuse: Callable[..., Ended], photos: Path, model: Path) -> None:
    assert rediffuse("augment", photos, "more", "--model", model, *QUICK).status == 0
    assert "36 images made" in rediffuse("run", "report", "more").out
    assert "@inproceedings{trabucco2024dafusion" in rediffuse("run", "cite", "more").out
    whole = rediffuse("run", "verify", "more")
    assert (whole.status, "All 36 images" in whole.out) == (0, True)
    plain = rediffuse("run", "export", "more", "plain")
    assert (plain.status, "36 pictures in class folders are in plain" in plain.out) == (0, True)
    read, run = folder("plain"), Run("more")
    assert set(read.classes) == {"cat", "dog", "red bird"}
    assert sorted(zip(read.digests, (read.classes[label] for label in read.labels if label is not None), strict=True)) == sorted(
        zip(run.digests, (run.classes[label] for label in run.labels if label is not None), strict=True)
    )
    assert "not an empty folder" in rediffuse("run", "export", "more", "plain").err
    victim = next(Path("more/images").rglob("*-000.png"))
    victim.unlink()
    broken = rediffuse("run", "verify", "more")
    assert broken.status == 1
    assert f"{victim.name}: missing" in broken.out
    assert "again: rediffuse augment" in " ".join(broken.out.split())
    assert rediffuse("run", "verify", "nowhere").status == 2


def test_ctrl_c_leaves_a_folder_that_the_printed_command_continues(photos: Path, model: Path, tmp_path: Path, root: Path) -> None:
    """A real interrupt of a real process, when work begins; the end is as if nothing had happened."""
    how = ["--method", "real-guidance", "--steps", "8", "--copies", "4", "--batch", "4"]
    words = ["augment", str(photos), "more", "--model", str(model), *how]
    # a shell that starts a job in the background has it ignore SIGINT, and the tests may run in such a job
    start = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from rediffuse.cli import main; raise SystemExit(main())"
    )
    program = [sys.executable, "-c", start]
    environment = {"PYTHONPATH": str(root / "src"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    for place in (straight, cut):
        place.mkdir()
    subprocess.run([*program, *words], cwd=straight, env=environment, check=True, capture_output=True)
    running = subprocess.Popen([*program, *words], cwd=cut, env=environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:  # the last line of the price, which is printed before the first image
        if "GB free" in line:
            running.send_signal(signal.SIGINT)
            break
    rest = running.stderr.read()
    assert running.wait() == 130, rest
    assert "Traceback" not in rest
    kept = any((cut / "more").glob(FINISHED))
    assert f"{'The same command continues' if kept else 'Nothing is kept yet; the same command begins anew'}:\n  rediffuse augment" in rest
    subprocess.run([*program, *words], cwd=cut, env=environment, check=True, capture_output=True)
    assert pixels(cut / "more") == pixels(straight / "more")
    shutil.rmtree(straight)


def test_a_folder_inside_the_photos_is_continued_and_no_class(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    command = ("augment", ".", "more", "--model", model, *QUICK)
    assert rediffuse(*command, "--preview", 2).status == 0
    assert rediffuse(*command).status == 0
    before = pixels(Path("more"))
    again = rediffuse(*command)
    assert again.status == 0, again.err
    assert "36 copies of 12 photos" in again.out
    assert pixels(Path("more")) == before
    read = folder(".")
    assert read.classes == ("cat", "dog", "red bird")
    assert [line.id for line in read.rejected] == ["more/", "more-preview/", "more.words/"]
    mixed = rediffuse("train", ".", "net", "--synthetic", "more", "--steps", 2, "--size", 16)
    assert mixed.status == 0, mixed.err
    assert Run("more").classes == read.classes


def test_one_of_a_thing_is_no_plural(rediffuse: Callable[..., Ended], model: Path, tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"cat": 1})
    ended = rediffuse("augment", one, "more", "--model", model, "--method", "real-guidance", "--steps", 2, "--copies", 1)
    assert "1 copy of 1 photo is in more/images" in ended.out
    assert "1 picture in class folders is in plain" in rediffuse("run", "export", "more", "plain").out
    (Path("more/images") / "stranger.png").touch()
    assert "1 problem\n" in rediffuse("run", "verify", "more").out
    learned = rediffuse("learn", one, "words", "--model", model, "--samples", 4)
    assert "1 word is in words" in learned.out


@pytest.mark.parametrize("verb", ["augment", "learn", "generate"])
@pytest.mark.parametrize("place", [".", "cat"])
def test_the_photos_themselves_are_no_place_to_write(
    rediffuse: Callable[..., Ended], photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch, verb: str, place: str
) -> None:
    monkeypatch.chdir(photos)
    before = sorted(photos.rglob("*"))
    ended = rediffuse(verb, ".", place, "--model", model)
    assert ended.status == 2
    assert f"{place} holds the photos; give a folder of its own" in ended.err
    assert sorted(photos.rglob("*")) == before
