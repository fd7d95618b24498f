"""A place where trainings of the bundled models take a blink."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.recipes.tiny_runs import write_pictures

from rediffuse.recipes.bundled import autoencoder, networks, text_start, text_to_image


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Forty pictures and networks that train in a blink."""
    write_pictures(tmp_path / "data", "train", 40)
    write_pictures(tmp_path / "data", "validation", 6)
    write_pictures(tmp_path / "digits", "train", 8, size=28)
    monkeypatch.setitem(autoencoder.CONFIG, "block_out_channels", (16, 16))
    monkeypatch.setitem(networks.UNET, "block_out_channels", (16, 16, 16))
    monkeypatch.setattr(text_to_image, "GRID", ("goldfish",))
    monkeypatch.setattr(text_to_image, "tell_classes_apart", partial(text_start.tell_classes_apart, steps=2))
    monkeypatch.setattr(text_to_image, "held_out_loss", lambda *_: (0.0, 0.0))  # 512 validation pictures are not here
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4711)
        yield tmp_path
        assert torch.initial_seed() == 4711  # no trainer seeds the global random state
