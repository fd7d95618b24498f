"""What a word is worth to a denoiser, against one that knows a picture by its name alone; and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rediffuse.recipes.bundled import autoencoder, words
from rediffuse.recipes.bundled.latents import Latents


class Captions:
    """Tells each caption by its class alone."""

    def __init__(self) -> None:
        self.words = [["a"], ["b"], ["c"], ["the digit"]]

    def ids(self, caption: str) -> Tensor:
        return torch.tensor(["a", "b", "c"].index(caption.split()[-1]))


class ByName(nn.Module):
    """Answers v where nothing but noise is seen: minus the mean of the class that it is told."""

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        return -ids.view(-1, 1, 1, 1).expand_as(x).float()


def test_a_wrong_name_costs_what_the_means_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "TEMPLATES", ("{}",))
    labels = torch.arange(3).repeat(20)
    latents = labels.view(-1, 1, 1, 1).expand(60, 6, 4, 4) + 0.5
    check, nothing = Latents(plain=latents.half(), mirrored=latents.half()), torch.zeros(1000)
    material: Any = SimpleNamespace(check=check, labels=labels, captions=Captions(), kept=nothing)
    found = words.worth_of_words(ByName(), material, 60, seed=0)  # type: ignore[arg-type]
    names = [(label + shift) % 3 for label in range(3) for shift in words.SHIFTS]
    wrong = sum((label + 0.5 - name) ** 2 for label, name in zip([0, 1, 2] * 3, names[0::3] + names[1::3] + names[2::3], strict=True)) / 9
    assert found.keys() == set(words.TIMES)
    for interval in found.values():
        assert interval.value == pytest.approx((wrong - 0.25) / 0.25, rel=1e-6)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < interval.value < interval.high


def test_a_killed_run_goes_on_by_the_variant(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "tell_classes_apart", lambda *_, **__: 1.0)
    monkeypatch.setattr(words, "TIMES", (850,))
    autoencoder.train(small / "data", small / "coder", None, steps=1, batch=8)

    def run(*more: str) -> dict[str, Any]:
        places = [f"--{name}={small / folder}" for name, folder in (("data", "data"), ("digits", "digits"), ("autoencoder", "coder"))]
        words.main([*places, f"--work={small / 'work'}", f"--out={small}", "--samples=4", "--batch=4", "--pictures=2", *more])
        found: dict[str, Any] = json.loads((small / "reduced_words_tiny_imagenet_64.json").read_text())
        return found

    alone = run("--variants", "words at 16x16")
    assert alone["rows"][0]["million_weights"] > 0
    monkeypatch.setitem(words.VARIANTS, "faster", words.VARIANTS["words at 16x16"])  # the same thing by another name: it is there
    monkeypatch.setattr(words, "learn", None)
    both = run("--variants", "words at 16x16", "faster")
    assert both["rows"] == [alone["rows"][0], alone["rows"][0] | {"variant": "faster"}]
    with pytest.raises(TypeError):  # another seed is another row
        run("--variants", "words at 16x16", "--seed=1")
