"""What the text-to-image model is told about the pictures that it learns from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.recipes.bundled.vocabulary import DIGIT


class Captions:
    """Captions of recipe A: templates with a name or synonym 75 %, with "thing" 7 %, "a photo" 8 %, empty 10 %.

    The digits are only ever "a handwritten digit". The caption of a row is a function of the generator alone.
    """

    def __init__(self, tokenizer: Any, terms: tuple[str, ...], names: tuple[str, ...], labels: Tensor, digits: int) -> None:
        self.tokenizer = tokenizer
        words = [[names[index]] for index in range(len(names))]
        for term, label in dict(zip(terms, labels.tolist(), strict=True)).items():
            words[label] += [word.strip() for word in term.split(",") if word.strip() != names[label]]
        self.words = [*words, [DIGIT]]
        self.labels = torch.cat([labels, torch.full((digits,), len(names))])
        self.known: dict[str, Tensor] = {}

    def ids(self, caption: str) -> Tensor:
        if caption not in self.known:
            self.known[caption] = self.tokenizer(caption, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        return self.known[caption]

    def caption(self, label: int, draws: list[float]) -> str:
        kind, template, word = draws
        if kind < 0.10:
            return ""
        if kind < 0.18:
            return "a photo"
        form = TEMPLATES[int(template * len(TEMPLATES))]
        if kind < 0.25:
            return form.format("thing")
        words = self.words[label]
        if words == [DIGIT]:
            return f"a {DIGIT}" if template < 0.5 else form.format(DIGIT)
        chosen = words[0] if word < 0.5 or len(words) == 1 else words[1 + int((word - 0.5) * 2 * (len(words) - 1))]
        return form.format(chosen)

    def batch(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """(B,) rows -> (B, 77) token ids."""
        draws = torch.rand(len(rows), 3, generator=generator).tolist()
        return torch.stack([self.ids(self.caption(int(self.labels[row]), draw)) for row, draw in zip(rows, draws, strict=True)])
