"""Prompts to text states, with learned words put in by value.

A placeholder such as `<goldfish>` stands for k learned vectors. The vocabulary is never changed: the vectors take the place of token
embeddings inside one call, so gradients flow into them alone and nothing is left behind.

Reference: Gal et al., ICLR 2023, arXiv 2208.01618, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError, ModelError

PLACEHOLDER = re.compile(r"<[^<>\s](?:[^<>]*[^<>\s])?>")
CHUNK = 256  # prompts in one call of the text encoder


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One prompt as the text encoder reads it. ids: all positions, ends and padding included; length: without the padding;
    learned: (position, placeholder, row)."""

    ids: tuple[int, ...]
    length: int
    learned: tuple[tuple[int, str, int], ...]


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that holds no placeholder, without ends. Raises ConfigError for bytes that are no text (file names)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the words {text!r} hold bytes that are not text, which no model reads; rename the class or write a prompt"
        ) from error
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return ids


def tokenise(tokenizer: Any, prompt: str, lengths: Mapping[str, int], limit: int) -> Tokens:
    """A prompt in which every placeholder takes as many positions as it has vectors.

    Args:
        lengths: vectors by placeholder.
        limit: positions of the text encoder, ends included.
    Raises:
        ModelError: a placeholder without vectors.
        ConfigError: more tokens than the encoder has positions.
    """
    ids: list[int] = [tokenizer.bos_token_id]
    learned: list[tuple[int, str, int]] = []
    end = 0
    for match in PLACEHOLDER.finditer(prompt):
        ids += plain_ids(tokenizer, prompt[end : match.start()])
        name, end = match.group(), match.end()
        if name not in lengths:
            known = ", ".join(sorted(lengths)) or "none"
            raise ModelError(f"the prompt {prompt!r} holds the word {name}, which has no learned vectors (given: {known}); learn it first")
        learned += [(len(ids) + row, name, row) for row in range(lengths[name])]
        ids += [tokenizer.pad_token_id] * lengths[name]  # any id: the vector takes its place
    ids += plain_ids(tokenizer, prompt[end:])
    ids.append(tokenizer.eos_token_id)
    if len(ids) > limit:
        raise ConfigError(f"the prompt {prompt!r} is {len(ids)} tokens long with its two ends; this model reads {limit}: shorten it")
    padding = [tokenizer.pad_token_id] * (limit - len(ids))
    return Tokens(ids=(*ids, *padding), length=len(ids), learned=tuple(learned))


def encode_prompts(encoder: Any, tokenizer: Any, prompts: Sequence[str], words: Mapping[str, Tensor], limit: int) -> Tensor:
    """Last hidden states (N, limit, D) in float32, one row a prompt; each distinct prompt is read once. words: (k, D) by placeholder."""
    embedding: nn.Module = encoder.get_input_embeddings()
    width = encoder.config.hidden_size
    for name, vectors in words.items():
        if vectors.ndim != 2 or vectors.shape[1] != width or len(vectors) == 0:
            got = tuple(vectors.shape)
            raise ModelError(
                f"the vectors of {name} have shape {got}, this model's words (k, {width}): they were learned for another model"
            )
    lengths = {name: len(vectors) for name, vectors in words.items()}
    distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    tokens = [tokenise(tokenizer, prompt, lengths, limit) for prompt in distinct]
    device = next(encoder.parameters()).device
    states = []
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        ids = torch.tensor([token.ids for token in chunk], device=device)
        mask = _attention_mask(encoder, chunk, device)
        with _learned_words(embedding, chunk, words):
            states.append(encoder(ids, attention_mask=mask)[0])
    rows = torch.tensor([distinct[prompt] for prompt in prompts], device=device)
    return torch.cat(states).index_select(0, rows).float()  # (N, limit, D); its gradient, unlike that of [rows], is the same on every run


def _attention_mask(encoder: Any, chunk: Sequence[Tokens], device: torch.device) -> Tensor | None:
    """None for Stable Diffusion, which attends to padding; a few encoders ask for a mask in their configuration."""
    if not getattr(encoder.config, "use_attention_mask", False):
        return None
    lengths = torch.tensor([token.length for token in chunk], device=device)
    return (torch.arange(len(chunk[0].ids), device=device) < lengths.unsqueeze(1)).long()


@contextmanager
def _learned_words(embedding: nn.Module, chunk: Sequence[Tokens], words: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the embedding gives the learned vectors at their positions; a copy is changed, so the table gets no gradient from them."""
    places = [(row, *place) for row, token in enumerate(chunk) for place in token.learned]
    if not places:
        yield
        return
    names = list(dict.fromkeys(name for _, _, name, _ in places))
    starts, offset = {}, 0
    for name in names:
        starts[name], offset = offset, offset + len(words[name])
    samples, positions, sources = (
        torch.tensor(column) for column in zip(*((sample, at, starts[name] + row) for sample, at, name, row in places), strict=True)
    )

    def put(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        table = torch.cat([words[name].to(output.device, output.dtype) for name in names])
        return output.index_put((samples.to(output.device), positions.to(output.device)), table.index_select(0, sources.to(output.device)))

    handle = embedding.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
