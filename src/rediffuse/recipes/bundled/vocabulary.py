"""The vocabulary of `tiny-imagenet-64`: class names, synonyms and common words whole, letters for everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from rediffuse.concepts.prompts import TEMPLATES

DIGIT = "handwritten digit"
COMMON = (
    "and or with without in on at by from under over near this that these those my your his her its no not many few some big large "
    "small little tiny long short tall wide old new young good bad nice red orange yellow green blue purple pink brown black white "
    "grey dark bright light round square flat soft hard wet dry hot cold animal bird fish dog cat insect flower plant tree leaf "
    "fruit food drink person man woman child hand face house building road street bridge car truck bus boat train plane water "
    "river lake sea beach sky cloud sun moon mountain hill field forest grass snow rock stone metal wood glass paper cloth picture "
    "image drawing painting sketch photograph scan texture pattern object thing satellite aerial view above side front back inside "
    "outside one two three four five six seven eight nine ten zero type kind species"
)


def words_of(terms: Iterable[str]) -> list[str]:
    """Every word that a caption can hold, in a fixed order."""
    text = [" ".join(TEMPLATES).replace("{}", ""), "thing", DIGIT, COMMON, *sorted(set(terms))]
    return sorted({word for line in text for word in re.findall(r"[a-z]+", line.lower())})


def build_tokenizer(terms: Iterable[str]) -> Any:
    """A CLIPTokenizer in which each of these words is one token and any other text is spelled; 77 tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    words = words_of(terms)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False, initial_alphabet=alphabet
    )
    trained.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
