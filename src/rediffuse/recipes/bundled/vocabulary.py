"""The vocabulary of `tiny-imagenet-64`: class names, synonyms and common words whole, letters for everything else."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
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


def merges_of(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each of these words one token, most frequent pair first, ties in alphabetical order.

    Our own few lines: the trainer of `tokenizers` breaks ties by the order of a hash table, another one in every process.
    """
    spelled = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in spelled.values() for pair in itertools.pairwise(pieces))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = {word: _join(pieces, best) if best[0] in pieces else pieces for word, pieces in spelled.items()}


def _join(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def build_tokenizer(terms: Iterable[str]) -> Any:
    """A CLIPTokenizer in which each of these words is one token and any other text is spelled; 77 tokens."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = merges_of(words_of(terms))
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def tokenizer_of_run(folder: Path, terms: Iterable[str], start: Path | None = None) -> Any:
    """The vocabulary that a training began with: built (or taken from `start`) by its first piece, read by all others and by the export."""
    from transformers import CLIPTokenizer

    place = folder / "tokenizer"
    if not place.is_dir():
        tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer") if start else build_tokenizer(terms)
        partial = place.with_suffix(".partial")
        tokenizer.save_pretrained(partial)
        partial.replace(place)  # a kill leaves no half of it
    return CLIPTokenizer.from_pretrained(place)
