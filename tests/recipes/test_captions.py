"""What the bundled text-to-image model is told in training: shares of the forms, one token a word, one vocabulary everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from tests.recipes.tiny_runs import NAMES, TERMS

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.recipes.bundled import captions, vocabulary


def test_captions_keep_their_shares_and_never_name_a_digit() -> None:
    labels = torch.tensor([0, 1, 2])
    told = captions.Captions(vocabulary.build_tokenizer(TERMS), TERMS, NAMES, labels, digits=1)
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(20_000, 3, generator=generator).tolist()
    said = [told.caption(0, draw) for draw in draws]
    share = lambda test: sum(map(test, said)) / len(said)  # noqa: E731
    assert abs(share(lambda text: text == "") - 0.10) < 0.01
    assert abs(share(lambda text: text == "a photo") - 0.08) < 0.01
    assert abs(share(lambda text: "thing" in text) - 0.07) < 0.01
    assert abs(share(lambda text: "goldfish" in text or "Carassius" in text) - 0.75) < 0.015
    assert {told.caption(0, [0.9, (index + 0.5) / 27, 0.0]) for index in range(27)} == {form.format("goldfish") for form in TEMPLATES}
    digits = {told.caption(3, draw) for draw in draws[:3000]}
    assert all("handwritten digit" in text or "thing" in text or text in ("", "a photo") for text in digits)
    assert not any(character.isdigit() for text in digits for character in text)


def test_every_word_of_a_caption_is_one_token_and_anything_else_is_spelled() -> None:
    tokenizer = vocabulary.build_tokenizer(TERMS)
    for word in ("goldfish", "carassius", "bus", "photo", "handwritten", "satellite"):
        assert len(tokenizer(word).input_ids) == 3, word
    for text in ("xylophone", "naïve café", "a 3-legged {thing}", "日本"):
        ids = tokenizer(text).input_ids
        assert 3 <= len(ids) <= 77
        assert tokenizer.unk_token_id not in ids[1:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    code = f"from rediffuse.recipes.bundled.vocabulary import merges_of, words_of; print(merges_of(words_of({TERMS!r})))"
    said = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        said.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout)
    assert len(said) == 1
    assert said.pop().count("'h', 'o'") == 1
