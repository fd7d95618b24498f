"""Prompts with learned words: equal to diffusers' own textual inversion, and gradients in the words alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import TEXT_WIDTH, tiny_stable
from torch import Tensor

from rediffuse.denoisers.load import load
from rediffuse.denoisers.stable import StableDenoiser
from rediffuse.denoisers.text import PLACEHOLDER, tokenise
from rediffuse.errors import ConfigError, ModelError

PROMPTS = ["a photo of a <cat-toy>", "<cat-toy>", "the red <b> of <cat-toy>s, one <b>!", "", "a dog"]


def words(**lengths: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"<{name.replace('_', '-')}>": torch.randn(k, TEXT_WIDTH, generator=generator) for name, k in lengths.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable(tmp_path_factory.mktemp("text") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> StableDenoiser:
    denoiser = load(folder, device="cpu", dtype="float32")
    assert isinstance(denoiser, StableDenoiser)
    return denoiser


def pipeline_states(folder: Path, vectors: dict[str, Tensor], prompts: list[str]) -> Tensor:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for name, rows in vectors.items():
        pipeline.load_textual_inversion({name: rows if len(rows) > 1 else rows[0]}, token=name)
    states: Tensor = pipeline.encode_prompt(prompts, torch.device("cpu"), 1, False)[0]
    return states.detach()


@pytest.mark.parametrize("lengths", [{"cat_toy": 1, "b": 1}, {"cat_toy": 4, "b": 1}, {"cat_toy": 3, "b": 2}], ids=str)
def test_learned_words_equal_textual_inversion_of_diffusers(folder: Path, model: StableDenoiser, lengths: dict[str, int]) -> None:
    vectors = words(**lengths)
    ours = model.embed(PROMPTS, vectors).embedding
    torch.testing.assert_close(ours, pipeline_states(folder, vectors, PROMPTS), atol=1e-5, rtol=0)


def test_plain_prompts_equal_those_of_diffusers(folder: Path, model: StableDenoiser) -> None:
    prompts = ["", "a photo of a cat", "zebra Zebra, 3 ZEBRAS", "ein Foto, größer — 日本"]
    ours = model.embed(prompts).embedding
    torch.testing.assert_close(ours, pipeline_states(folder, {}, prompts), atol=1e-5, rtol=0)


def test_a_word_is_read_by_its_vectors_alone(model: StableDenoiser) -> None:
    """The vector of a known word under another name gives the states of that word."""
    cat = model.word_vectors("cat")
    assert cat.shape == (1, TEXT_WIDTH)
    ours, plain = model.embed(["a photo of a <x>", "a photo of a cat"], {"<x>": cat}).embedding  # type: ignore[misc]
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    two = model.word_vectors("red cat")
    ours, plain = model.embed(["the <x> dog", "the red cat dog"], {"<x>": two}).embedding  # type: ignore[misc]
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    assert not two.requires_grad


def test_nothing_is_left_behind(model: StableDenoiser) -> None:
    table = model.text_encoder.get_input_embeddings()
    before, size = table.weight.clone(), len(model.tokenizer)
    plain = model.embed(["a photo of a cat"]).embedding
    first = model.embed(PROMPTS, words(cat_toy=2, b=1)).embedding
    second = model.embed(PROMPTS, {name: 2 * value for name, value in words(cat_toy=2, b=1).items()}).embedding
    assert first is not None
    assert second is not None
    assert (first[0] - second[0]).abs().max() > 1e-3
    assert plain is not None
    assert torch.equal(model.embed(["a photo of a cat"]).embedding, plain)  # type: ignore[arg-type]
    assert torch.equal(table.weight, before)
    assert len(model.tokenizer) == size
    assert not table._forward_hooks
    with pytest.raises(ModelError):
        model.embed(["<cat-toy>"])
    assert not table._forward_hooks


def test_gradients_reach_the_words_and_nothing_else(model: StableDenoiser) -> None:
    vectors = {name: value.requires_grad_() for name, value in words(cat_toy=2, b=1, unused=1).items()}
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    condition = model.embed(["a photo of a <cat-toy>", "the <b>", "a photo of a <cat-toy>"], vectors)
    model.loss(x0, torch.tensor([10, 500, 900]), noise, condition).mean().backward()
    for name in ("<cat-toy>", "<b>"):
        gradient = vectors[name].grad
        assert gradient is not None
        assert (gradient.abs().amax(1) > 0).all()
    assert vectors["<unused>"].grad is None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def test_the_gradient_is_that_of_finite_differences(model: StableDenoiser) -> None:
    vectors = words(b=2)["<b>"]
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    direction = torch.randn(vectors.shape, generator=generator)

    def loss(value: Tensor) -> Tensor:
        return model.loss(x0, torch.tensor([700]), noise, model.embed(["a photo of a <b>"], {"<b>": value})).sum()

    learned = vectors.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(learned), learned)
    step = 0.05
    with torch.no_grad():
        change = (loss(vectors + step * direction) - loss(vectors - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), change, rtol=0.02, atol=1e-6)


def test_a_word_without_vectors_is_an_error_that_names_it(model: StableDenoiser) -> None:
    with pytest.raises(ModelError, match=r"<unknown>.*given: <b>"):
        model.embed(["a photo of a <unknown>"], words(b=1))
    with pytest.raises(ModelError, match=r"<potted plant>"):
        model.embed(["a photo of a <potted plant>"])
    with pytest.raises(ModelError, match=r"<\|endoftext\|>"):
        model.embed(["a <|endoftext|> b"])


def test_vectors_of_another_model_are_refused(model: StableDenoiser) -> None:
    for wrong in (torch.zeros(1, 768), torch.zeros(TEXT_WIDTH), torch.zeros(0, TEXT_WIDTH)):
        with pytest.raises(ModelError, match="another model"):
            model.embed(["<b>"], {"<b>": wrong})


def test_a_prompt_that_is_too_long_says_how_long(model: StableDenoiser) -> None:
    assert len(model.embed(["a " * 75])) == 1
    with pytest.raises(ConfigError, match=r"78 tokens.*reads 77"):
        model.embed(["a " * 76])
    with pytest.raises(ConfigError, match=r"80 tokens"):
        model.embed(["a " * 74 + "<b>"], words(b=4))


def test_prompts_must_be_a_list(model: StableDenoiser) -> None:
    for wrong in ("a photo", []):
        with pytest.raises(ConfigError, match="list"):
            model.embed(wrong)


def test_words_to_start_from_need_a_token(model: StableDenoiser) -> None:
    for wrong in ("", "   ", "<b>"):
        with pytest.raises(ConfigError, match="at least one token"):
            model.word_vectors(wrong)


def test_bytes_that_are_no_text_are_refused(model: StableDenoiser) -> None:
    """A folder name in another encoding becomes such a class name."""
    for read in (lambda text: model.embed([text]), model.word_vectors):
        with pytest.raises(ConfigError, match="not text"):
            read("caf\udce9")
    assert len(model.embed(["café \U0001f600 \x00"])) == 1


def test_rows_are_in_the_order_of_the_prompts(model: StableDenoiser) -> None:
    prompts = ["a cat", "a dog", "a cat", "the bird", "a dog"]
    together = model.embed(prompts).embedding
    assert together is not None
    assert torch.equal(together[0], together[2])
    for row, prompt in enumerate(prompts):
        alone = model.embed([prompt]).embedding
        assert alone is not None
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a <b> c", ["<b>"]), ("<a><b>", ["<a>", "<b>"]), ("2 < 3 > 1", []), ("<>", []), ("< b >", []), ("<colt's_foot>", ["<colt's_foot>"])],
)
def test_what_counts_as_a_placeholder(text: str, found: list[str]) -> None:
    assert PLACEHOLDER.findall(text) == found


def test_each_placeholder_takes_its_positions_once(model: StableDenoiser) -> None:
    tokenizer: Any = model.tokenizer
    tokens = tokenise(tokenizer, "a <m> dog <m>", {"<m>": 3}, 77)
    assert tokens.learned == ((2, "<m>", 0), (3, "<m>", 1), (4, "<m>", 2), (6, "<m>", 0), (7, "<m>", 1), (8, "<m>", 2))
    assert tokens.ids[8 + 1] == tokenizer.eos_token_id
    assert len(tokens.ids) == 77


def test_a_mask_ends_behind_the_prompt_where_padding_is_the_end_token(folder: Path) -> None:
    masked = load(folder, device="cpu", dtype="float32")
    assert isinstance(masked, StableDenoiser)
    masked.text_encoder.config.use_attention_mask = True
    masked.tokenizer.pad_token = masked.tokenizer.eos_token
    vectors = words(cat_toy=4)
    prompt = "a photo of a <cat-toy> thing"
    changed = {"<cat-toy>": torch.cat([vectors["<cat-toy>"][:1], -vectors["<cat-toy>"][1:]])}
    length = tokenise(masked.tokenizer, prompt, {"<cat-toy>": 4}, 77).length
    one, other = (masked.embed([prompt], each).embedding for each in (vectors, changed))
    assert one is not None
    assert other is not None
    assert (one[0, length - 1] - other[0, length - 1]).abs().max() > 1e-3  # the end token sees all vectors of the word
