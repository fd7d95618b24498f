"""Small pictures and sets that the tests of this room share."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.data import Example, ImageSet

Draw = Callable[..., Image.Image]
Encode = Callable[..., bytes]
Fill = Callable[[Path, Mapping[str, int]], Path]
Collect = Callable[..., ImageSet]


def _draw(seed: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """draw(seed, size=(width, height), mode): a picture of noise."""
    return _draw


@pytest.fixture(scope="session")
def encode() -> Encode:
    """encode(image, format, **options): the bytes of a file."""

    def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture(scope="session")
def fill() -> Fill:
    """fill(folder, {class: images}): class folders of noise pictures 0.png, 1.png, ..."""

    def filled(folder: Path, counts: Mapping[str, int]) -> Path:
        for place, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            for number in range(count):
                _draw(1000 * place + number).save(folder / name / f"{number}.png")
        return folder

    return filled


@pytest.fixture(scope="session")
def collect() -> Collect:
    """collect({class: images}): the same in memory, ids CLASS/NUMBER."""

    def collected(counts: Mapping[str, int], **options: object) -> ImageSet:
        examples = [
            Example(id=f"{name}/{number}", image=_draw(1000 * label + number), label=label)
            for label, (name, count) in enumerate(counts.items())
            for number in range(count)
        ]
        return ImageSet.of(examples, classes=tuple(counts), **options)

    return collected
