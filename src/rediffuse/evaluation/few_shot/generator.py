"""What must be said of the generator beside every figure that hangs on its pictures, as its own folder says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import DataError

CARD = "rediffuse.json"
SCORE = "classification_accuracy_score"
WEAK_BELOW = 0.5
"""Pages of results are headed "weak generator" below this score."""
WEAK = "**Weak generator**: a classifier trained on its images alone reaches less than half of what as many real ones give."
DIGITS_NOTE = "The generator has seen 5,000 unlabelled MNIST digits: the demo shows the program, not the claim."


def read_card(model: Denoiser | None) -> dict[str, Any]:
    """What the model's folder says of itself in rediffuse.json: classification_accuracy_score, notes; empty where it says nothing."""
    path = Path(model.spec.path) / CARD if model is not None and model.spec is not None else None
    if path is None or not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}; mend or remove it") from error
    return values if isinstance(values, dict) else {}


def is_weak(card: Mapping[str, Any]) -> bool:
    """Whether a card says that a classifier trained on the model's images reaches less than half of what as many real ones give."""
    score = card.get(SCORE)
    return isinstance(score, int | float) and score < WEAK_BELOW


def limits_of(model: Denoiser) -> list[str]:
    """What stands first among the notes of a figure made with this generator; empty where its card says nothing of the kind."""
    return [WEAK] if is_weak(read_card(model)) else []


def facts(pool: ImageSet, model: Denoiser | None, card: Mapping[str, Any]) -> list[str]:
    """What a reader must know of what the generator has seen."""
    bundled = model is not None and model.spec is not None and model.spec.name == "tiny-imagenet-64"
    digits = [DIGITS_NOTE] if pool.name.partition(" (")[0] == "digits" and bundled else []
    said = card.get("notes", [])
    return [*digits, *(str(line) for line in (said if isinstance(said, list) else [said]))]
