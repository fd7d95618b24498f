"""Small folders of photos, tiny models, and the program called in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tiny import tiny_stable

# One colour a class, and a place of its own for each photo: enough for a classifier to learn.
COLOURS = ((220, 40, 40), (40, 60, 220), (40, 200, 60), (230, 220, 50))


@dataclass(frozen=True)
class Ended:
    """What a command left behind: exit status, standard output, standard error."""

    status: int
    out: str
    err: str


def photo(label: int, number: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """A coloured disc on noise."""
    random = np.random.default_rng(1000 * label + number)
    pixels = random.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    x, y = random.uniform(0.3, 0.7, 2)
    rows, columns = np.mgrid[: size[1], : size[0]]
    disc = (columns / size[0] - x) ** 2 + (rows / size[1] - y) ** 2 < 0.09
    pixels[disc] = COLOURS[label % len(COLOURS)]
    return Image.fromarray(pixels)


def fill(folder: Path, counts: Mapping[str, int], size: tuple[int, int] = (16, 16), first: int = 0) -> Path:
    """Class folders of photos."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            photo(label, number, size).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny text-to-image pipeline folder."""
    return tiny_stable(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of four photos."""
    return fill(tmp_path / "photos", {"cat": 4, "dog": 4, "red bird": 4})


@pytest.fixture
def rediffuse(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """rediffuse("augment", photos, out, "--copies", 2): run it in an empty folder, in this process."""
    from rediffuse.cli import main

    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: object) -> Ended:
        capfd.readouterr()
        status = main([os.fspath(word) if isinstance(word, Path) else str(word) for word in words])
        captured = capfd.readouterr()
        return Ended(status, captured.out, captured.err)

    return run
