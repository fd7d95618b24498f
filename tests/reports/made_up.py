"""Comparisons with known figures, for the tests of pages and of what pages are drawn from."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from rediffuse.evaluation.accuracy import measure
from rediffuse.evaluation.few_shot.cells import CellResult, Stage
from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.samples import Sample
from rediffuse.evaluation.few_shot.settings import Cell
from rediffuse.evaluation.provenance import Provenance

LABELS = tuple(range(4)) * 50
CLASSES = ("cat", "dog", "red bird", "thing")


def right_in(share: float, seed: int) -> tuple[int, ...]:
    """Predictions of which this share is right, the same number in every class; the seed says which."""
    order = np.random.default_rng(seed).permutation(50)
    wrong = {int(place) for place in order[round(50 * share) :]}
    return tuple((label + 1) % 4 if place // 4 in wrong else label for place, label in enumerate(LABELS))


def comparison(
    share: Callable[[Cell], float | None],
    *,
    seeds: int = 4,
    shots: Sequence[int] = (1, 2),
    levels: Sequence[str] = ("scratch", "resnet-64"),
    arms: Sequence[str] = ("standard", "real-guidance", "da-fusion"),
    classes: Sequence[str] = CLASSES,
    name: str = "pets",
) -> Comparison:
    """Every cell with the share of right answers that the function gives it; None leaves it missing."""
    empty = Comparison(
        name=name,
        classes=tuple(classes),
        labels=LABELS,
        pool_images=40,
        levels=tuple(levels),
        arms=tuple(arms),
        shots=tuple(shots),
        seeds=tuple(range(seeds)),
        settings={
            "alpha": 0.5,
            "making": {"copies": 4, "strengths": [0.25, 1.0], "guidance_strength": 0.5},
            "levels": [[level, "scratch" if level == "scratch" else "0f"] for level in levels],
        },
        model={"name": "tiny"},
        card={},
        results=(),
        failures={},
        stages=(Stage(name="generate", arm="da-fusion", shots=2, seed=0, seconds=65.0, images=1234, calls=5678),),
        provenance=Provenance(
            command="rediffuse compare 'my pets'",
            commit="c0ffee",
            date="2026-11-21T12:00:00+00:00",
            hardware={"processor": "Abacus 9000", "cores": 2},
            versions={"rediffuse": "0.1.0", "torch": "2.13.0"},
        ),
    )
    results = []
    for cell in empty.asked():
        value = share(cell)
        if value is not None:
            found = right_in(value, cell.seed)
            counted = measure(found, LABELS, classes)
            results.append(
                CellResult(
                    cell=cell, predictions=found, accuracy=counted.mean_per_class, top1=counted.top1, alpha=0.5, real=8, synthetic=32,
                    seconds=10.0,
                )
            )  # fmt: skip
    return replace(empty, results=tuple(results))


def sample(class_name: str, arm: str | None, strength: float | None) -> Sample:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return Sample(class_name=class_name, source=f"{class_name}/1.png", arm=arm, strength=strength, seed=0, shots=2, png=buffer.getvalue())
