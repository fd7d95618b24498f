"""Small real things that the whole suite can judge: coloured pictures, two little networks, a denoiser that clamps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from tests.evaluation.corruptions.toys import network, pictures

from rediffuse.data.types import Example, ImageSet
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.evaluation.adversarial import Attack
from rediffuse.evaluation.certify.smoothing import Smoothing
from rediffuse.evaluation.entropy import WHOLE
from rediffuse.evaluation.suite.settings import SuiteSettings
from rediffuse.evaluation.test_time.dda import DDASettings
from rediffuse.evaluation.test_time.diffaug import DiffAugSettings

NAMES = ["cat", "dog", "<script>alert(1)</script>"]
SHORT = SuiteSettings(
    size=32,
    ensemble_images=4,
    entropy_images=4,
    certified_images=4,
    attacked_images=3,
    adapted_images=2,
    smoothing=Smoothing(sigmas=(0.25,), selection=8, draws=24),
    diffaug=DiffAugSettings(step=200),
    dda=DDASettings(steps=2),
    attacks=(Attack(steps=2, draws=1), Attack(norm="l2", epsilon=0.5, steps=1, draws=1)),
)
"""All parts, and little of each."""
SIDE = 32


def blocks(count: int, seed: int, name: str, labelled: bool = True) -> ImageSet:
    """Pictures with structure at every scale, of three classes in turn."""
    found = pictures(count, SIDE, seed)
    examples = [
        Example(id=f"{name}-{row:03d}", image=Image.fromarray(np.asarray(image.permute(1, 2, 0))), label=row % 3 if labelled else None)
        for row, image in enumerate(found)
    ]
    return ImageSet.of(examples, classes=NAMES if labelled else (), name=name)


DATA, TRAIN = blocks(9, 1, "blocks"), blocks(15, 2, "training blocks")
NEAR, FAR = blocks(6, 3, "near", labelled=False), blocks(6, 4, "far", labelled=False)
MODELS = [network(NAMES, 0, "first"), network(NAMES[::-1], 1, "second")]
DENOISER = NoDenoiser(NoiseSchedule.from_betas(linear_betas()), size=SIDE)


def asked(suite: str = "full", **changes: Any) -> dict[str, Any]:
    """What `evaluate` takes beside models and data."""
    given = {"suite": suite, "size": SIDE, "denoiser": DENOISER, "near": [NEAR], "far": [FAR], "train": TRAIN, "settings": replace(SHORT)}
    return {**given, **changes}


def timeless(value: Any) -> Any:
    """All figures of a result as JSON; neither when nor how long."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in ("seconds", "provenance")}
    return [timeless(each) for each in value] if isinstance(value, list | tuple) else value


__all__ = [
    "DATA",
    "DENOISER",
    "FAR",
    "MODELS",
    "NAMES",
    "NEAR",
    "SHORT",
    "SIDE",
    "TRAIN",
    "WHOLE",
    "asked",
    "blocks",
    "network",
    "timeless",
]
