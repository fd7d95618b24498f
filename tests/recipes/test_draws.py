"""Samples that the bundled generator is judged by: pieces on disk, drawn by any number of processes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load
from rediffuse.errors import DataError
from rediffuse.recipes.bundled import draws as module
from rediffuse.recipes.bundled.draws import Draws, edits
from rediffuse.recipes.bundled.judge import one_of, share_interval

NAMES = ("goldfish", "goldfish", "school bus", "school bus", "orange")


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return load("tiny-imagenet-64")


@pytest.fixture
def drawn(model: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draws:
    monkeypatch.setattr(module, "PIECE", 2)
    return Draws(folder=tmp_path, model=model, names=NAMES, guidance=2.0, steps=2, seed=3)


def test_parts_make_the_whole_and_what_is_there_is_not_drawn_again(drawn: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn.draw((1, 2))
    assert [path.exists() for path in drawn.files.values()] == [False, True, False]
    drawn.draw((0, 2))
    times = [path.stat().st_mtime_ns for path in drawn.files.values()]
    images = drawn.all()
    assert [path.stat().st_mtime_ns for path in drawn.files.values()] == times
    monkeypatch.setattr(module, "PIECE", 256)
    whole = edits(drawn.model, NAMES, None, strength=1.0, guidance=2.0, steps=2, seed=3)
    assert images.shape == (5, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert int((images.int() - whole.int()).abs().max()) <= 1


def test_draws_of_other_settings_lie_apart(drawn: Draws, model: Denoiser) -> None:
    others = [replace(drawn, guidance=4.0), replace(drawn, steps=3), replace(drawn, seed=4), replace(drawn, names=NAMES[::-1])]
    assert len({each.files[0].parent for each in [drawn, *others]}) == 5


@pytest.mark.parametrize("damage", [b"", b"not a picture"])
def test_a_damaged_piece_is_named(drawn: Draws, damage: bytes) -> None:
    drawn.draw()
    drawn.files[2].write_bytes(damage)
    with pytest.raises(DataError, match="remove it"):
        drawn.all()


def test_a_piece_of_another_length_is_named(drawn: Draws) -> None:
    drawn.draw()
    drawn.files[0].write_bytes(drawn.files[4].read_bytes())
    with pytest.raises(DataError, match="not 2 pictures"):
        drawn.all()


def test_parts_are_typed_as_fractions() -> None:
    assert one_of("2/3") == (1, 3)
    for wrong in ("0/2", "3/2", "half", "1/", "/2", "-1/2"):
        with pytest.raises(argparse.ArgumentTypeError, match="1/2"):
            one_of(wrong)


def test_the_interval_of_a_share_holds_what_binomial_draws_say() -> None:
    generator, pictures = torch.Generator().manual_seed(0), 3400
    made, real = (torch.binomial(torch.full((20_000,), float(pictures)), torch.tensor(p), generator=generator) for p in (0.05, 0.25))
    low, high = share_interval(0.05, 0.25, pictures)
    assert low is not None
    assert high is not None
    inside = ((made / real > low) & (made / real < high)).float().mean()
    assert abs(float(inside) - 0.95) < 0.01
    assert share_interval(0.0, 0.25, pictures) == (None, None)
