"""Words on disk: they come back as they were, and diffusers reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rediffuse.concepts.concepts import FILE_NAME, TOKEN_FOLDER, Concepts, write_tensors
from rediffuse.denoisers.base import Denoiser, DenoiserSpec, NoiseSchedule
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.schedules import scaled_linear_betas
from rediffuse.errors import ConfigError, DataError, ModelError

WIDTH = 32
NAMES = ("Great_Pyrenees", "potted plant", "colt's foot", "café", "..", "-x", "cyclamen ")


def words(names: tuple[str, ...] = NAMES, count: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, WIDTH, generator=generator) for name in names}


def test_words_come_back_as_they_were(tmp_path: Path) -> None:
    concepts = Concepts(words={**words(), "multi": torch.randn(4, WIDTH)}, settings={"seed": 3, "recipe": {"name": "fast"}})
    for path in (concepts.save(tmp_path / "new" / "words"), tmp_path / "new" / "words" / FILE_NAME):
        again = Concepts.load(path)
        assert again.hash == concepts.hash
        assert (dict(again.placeholders), dict(again.settings)) == (dict(concepts.placeholders), dict(concepts.settings))
        assert set(again.classes) == set(concepts.classes)
        assert all(torch.equal(again.words[name], concepts.words[name]) for name in concepts.classes)


@pytest.mark.parametrize(
    ("settings", "spec", "strange"),
    [
        ({"model": {"name": "one", "weights_hash": "a" * 64}}, DenoiserSpec(name="two", path="", weights_hash="b" * 64), True),
        ({"model": {"weights_hash": "a" * 64}}, DenoiserSpec(name="two", path="", weights_hash="b" * 64), True),
        ({"model": {"name": "one", "weights_hash": "a" * 64}}, DenoiserSpec(name="moved", path="", weights_hash="a" * 64), False),
        ({"model": {"name": "one", "weights_hash": "a" * 64}}, DenoiserSpec(name="two", path=""), False),
        ({"model": {"name": "one", "weights_hash": "a" * 64}}, None, False),
        ({"model": {"dtype": "float32"}}, DenoiserSpec(name="two", path="", weights_hash="b" * 64), False),
        ({"model": "one"}, DenoiserSpec(name="two", path="", weights_hash="b" * 64), False),
        ({}, DenoiserSpec(name="two", path="", weights_hash="b" * 64), False),
    ],
)
def test_words_know_a_model_that_they_were_not_learned_on(settings: dict[str, Any], spec: DenoiserSpec | None, strange: bool) -> None:
    """By its weights, whatever it is called; nothing is said where either side has no hash of them."""
    model = NoDenoiser(NoiseSchedule.from_betas(scaled_linear_betas()))
    model.spec = spec
    said = Concepts(words=words(), settings=settings).strange_to(model)
    assert bool(said) is strange
    if strange:
        assert f"({'a' * 12}) and are used on two ({'b' * 12})" in said
        assert "learn them again on this model, or give the one" in said


def test_a_model_that_was_trained_on_is_another_one(stable: Denoiser) -> None:
    learned = Concepts(words=words(), settings={"model": {"name": "tiny", "weights_hash": stable.fingerprint()}})
    assert learned.strange_to(stable) == ""
    with torch.no_grad():
        next(stable.parameters()).add_(1)
    assert "may mean something else" in learned.strange_to(stable)


def test_the_hash_sees_vectors_and_placeholders_alone() -> None:
    one, two = words()["café"], words(seed=1)["café"]
    base = Concepts(words={"a": one, "b": two})
    assert base.hash == Concepts(words={"b": two, "a": one}, settings={"seed": 1}).hash
    others = [
        Concepts(words={"a": two, "b": one}),
        Concepts(words={"a": one, "c": two}),
        Concepts(words={"a": one}),
        Concepts(words={"a": one + 1e-6, "b": two}),
        Concepts(words={"a": torch.cat([one, one]), "b": two}),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 6


def test_vectors_are_a_copy() -> None:
    given = words(("cat",))
    concepts = Concepts(words=given)
    before = concepts.hash
    given["cat"].zero_()
    given["dog"] = torch.ones(1, WIDTH)
    assert concepts.classes == ("cat",)
    assert Concepts(words=concepts.words).hash == before


def test_a_class_without_a_word_is_an_error() -> None:
    concepts = Concepts(words=words())
    assert concepts.placeholder("potted plant") == "<potted_plant>"
    assert set(concepts.vectors()) == set(concepts.placeholders.values())
    assert concepts.of_classes(["café", ".."]).classes == ("café", "..")
    for ask in (concepts.placeholder, lambda name: concepts.of_classes(["café", name])):
        with pytest.raises(ModelError, match="'goldfish'"):
            ask("goldfish")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ModelError, "no learned words"),
        ({"a": torch.zeros(WIDTH)}, ModelError, "'a'"),
        ({"a": torch.zeros(0, WIDTH)}, ModelError, "'a'"),
        ({"a": torch.zeros(1, 2, dtype=torch.int64)}, ModelError, "'a'"),
        ({"a": torch.full((1, 2), torch.nan)}, ModelError, "not finite"),
        ({"a": torch.zeros(1, 2), "b": torch.zeros(1, 3)}, ModelError, "one size"),
        ({" ": torch.zeros(1, 2)}, DataError, "blanks"),
    ],
)
def test_what_is_no_word_is_refused(given: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Concepts(words=given)


@pytest.mark.parametrize("tokens", [{"Crane": "<crane>", "crane": "<Crane>"}, {"Crane": "crane", "crane": "<b>"}, {"Crane": "<a>"}])
def test_placeholders_must_be_distinct_and_complete(tokens: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"[Cc]rane"):
        Concepts(words=words(("Crane", "crane")), placeholders=tokens)


def test_a_second_save_leaves_no_stale_token(tmp_path: Path) -> None:
    Concepts(words=words(("cat", "dog"))).save(tmp_path)
    (tmp_path / TOKEN_FOLDER / "mine.txt").write_text("keep")
    Concepts(words=words(("dog", "bird"))).save(tmp_path)
    files = {file.name.split("-")[0] for file in (tmp_path / TOKEN_FOLDER).iterdir()}
    assert files == {"dog", "bird", "mine.txt"}
    assert not list(tmp_path.rglob("*.partial"))
    assert set(Concepts.load(tmp_path).classes) == {"dog", "bird"}


def test_where_words_cannot_be_saved(tmp_path: Path) -> None:
    for path in (tmp_path / "words.safetensors", Path(__file__)):
        with pytest.raises(ConfigError, match="folder"):
            Concepts(words=words()).save(path)


def test_a_file_that_was_changed_is_found_out(tmp_path: Path) -> None:
    file = Concepts(words=words()).save(tmp_path) / FILE_NAME
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ModelError, match="damaged"):
        Concepts.load(tmp_path)
    file.write_bytes(raw[:50])
    with pytest.raises(ModelError, match="safetensors"):
        Concepts.load(tmp_path)


@pytest.mark.parametrize("notes", [{}, {"classes": "{"}, {"classes": "[]"}, {"classes": '{"<cat>": "cat"}'}])
def test_a_file_without_its_notes_is_named(tmp_path: Path, notes: dict[str, str]) -> None:
    save_file({"<cat>": torch.ones(1, WIDTH)}, tmp_path / FILE_NAME, metadata={"concepts": "1", **notes})
    with pytest.raises(ModelError, match=rf"{FILE_NAME} is damaged: its metadata has no (classes|settings); learn"):
        Concepts.load(tmp_path)


def test_a_kill_while_words_are_saved_leaves_none_or_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, written = Concepts(words={name: torch.randn(2, 4) for name in ("cat", "dog", "owl")}), []

    def killed(file: Path, *given: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file)
        write_tensors(file, *given)

    monkeypatch.setattr("rediffuse.concepts.concepts.write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        words.save(tmp_path)
    assert Concepts.load(tmp_path).hash == words.hash


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    words = Concepts(words={"cat": torch.ones(1, 4)})
    (tmp_path / FILE_NAME).write_bytes(b"no words at all")
    words.save(tmp_path)
    assert Concepts.load(tmp_path).hash == words.hash


def test_the_home_folder_has_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = Concepts(words={"cat": torch.ones(1, 4)})
    assert words.save("~/words") == tmp_path / "words"
    assert Concepts.load("~/words").hash == words.hash


def test_a_place_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no text"):
        Concepts(words={"cat": torch.ones(1, 4)}).save(tmp_path / os.fsdecode(b"caf\xe9"))


def test_asking_for_classes(tmp_path: Path) -> None:
    saved = Concepts(words=words()).save(tmp_path)
    assert Concepts.load(saved, ["café", "-x"]).classes == ("café", "-x")
    with pytest.raises(ModelError, match="'goldfish'"):
        Concepts.load(saved, ["café", "goldfish"])
    save_file({"<potted plant>": torch.ones(WIDTH), "<Crane>": torch.zeros(2, WIDTH)}, tmp_path / "theirs.safetensors")
    theirs = Concepts.load(tmp_path / "theirs.safetensors", ["crane", "potted plant"])
    assert (theirs.placeholder("crane"), theirs.words["crane"].shape) == ("<crane>", (2, WIDTH))
    assert set(Concepts.load(tmp_path / "theirs.safetensors").classes) == {"potted_plant", "Crane"}


@pytest.mark.parametrize("count", [1, 3])
def test_diffusers_reads_each_token_file(tmp_path: Path, stable_folder: Path, stable: Denoiser, count: int) -> None:
    """Its own pipeline makes the same text states of the same prompt: the vectors stand where they should, each once."""
    from diffusers import StableDiffusionPipeline

    concepts = Concepts(words=words(count=count))
    concepts.save(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(stable_folder, local_files_only=True)
    files = sorted((tmp_path / TOKEN_FOLDER).iterdir())
    assert len(files) == len(NAMES)
    for file in files:
        assert len(load_file(file)) == 1
        pipeline.load_textual_inversion(str(file))
    for name in ("Great_Pyrenees", "potted plant", "colt's foot"):
        token = concepts.placeholder(name)
        prompt = f"a photo of a {token.lower() if count > 1 else token}"
        theirs, _ = pipeline.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        ours = stable.embed([f"a photo of a {token}"], concepts.vectors()).embedding
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_whole_file_serves_diffusers_in_one_line(tmp_path: Path, stable_folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    concepts = Concepts(words=words())
    tokens = load_file(concepts.save(tmp_path) / FILE_NAME)
    pipeline = StableDiffusionPipeline.from_pretrained(stable_folder, local_files_only=True)
    pipeline.load_textual_inversion([{token: vectors} for token, vectors in tokens.items()])
    assert len(pipeline.tokenizer.get_added_vocab()) >= len(NAMES)
