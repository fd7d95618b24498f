"""A tiny Stable Diffusion, for tests that need the real parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import tiny_stable

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.load import load


@pytest.fixture(scope="session")
def stable_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def stable(stable_folder: Path) -> Denoiser:
    return load(stable_folder, device="cpu", dtype="float32")
