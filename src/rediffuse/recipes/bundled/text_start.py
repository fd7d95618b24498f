"""A start for the text encoder: tell the classes apart before any picture is drawn.

From random weights the denoiser finds nothing in the text that helps it, and the text encoder has no reason to change: after 128,000
samples the loss under the right name was that under a wrong one. Here every caption of a class is first taught to be known as that
class from any position behind its words, which takes a minute and gives cross-attention something to read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.concepts.prompts import TEMPLATES
from rediffuse.recipes.bundled.captions import Captions


def tell_classes_apart(text: Any, captions: Captions, steps: int = 250, batch: int = 128, rate: float = 2e-3, seed: int = 0) -> float:
    """Train the encoder in place with a linear head that is thrown away. Returns the share of the last captions told rightly."""
    generator, where = torch.Generator().manual_seed(seed), text.device
    classes = len(captions.words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(text.config.hidden_size, classes).to(where)
    optimizer = torch.optim.AdamW([*text.parameters(), *head.parameters()], lr=rate, weight_decay=1e-3)
    right = 0.0
    for step in range(steps):
        labels = torch.randint(classes, (batch,), generator=generator)
        ids = torch.stack([captions.ids(_caption(captions.words[int(label)], generator)) for label in labels])
        ends = (ids == captions.tokenizer.eos_token_id).int().argmax(1)
        places = ends + (torch.rand(batch, generator=generator) * (ids.shape[1] - ends)).long()
        ids, places, labels = ids.to(where), places.to(where), labels.to(where)
        logits: Tensor = head(text(ids)[0][torch.arange(batch, device=where), places])
        loss = F.cross_entropy(logits, labels)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        right = float((logits.argmax(1) == labels).double().mean())
    return right


def _caption(words: list[str], generator: torch.Generator) -> str:
    template, word = (int(torch.randint(count, (), generator=generator)) for count in (len(TEMPLATES), len(words)))
    return TEMPLATES[template].format(words[word])
