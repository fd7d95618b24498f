"""What every test may rely on: one thread, no network, caches of its own, opt-in tiers.

The default tier runs always. `slow` (minutes, or large real data) runs with --slow, `gpu` with --gpu.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CACHES = tempfile.mkdtemp(prefix="rediffuse-tests-")
# Before any library reads them: nothing may be fetched, nothing is left in the home folder, and figures need no screen.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HOME=CACHES,
    MPLBACKEND="Agg",
    MPLCONFIGDIR=CACHES,
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

import torch  # noqa: E402  (after the environment)
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
# No deadline: nothing here is judged by a clock. Derandomized: the same examples on every machine.
settings.register_profile("rediffuse", deadline=None, derandomize=True)
settings.load_profile("rediffuse")

ROOT = Path(__file__).resolve().parents[1]
TIERS = ("slow", "gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes or read large real data")
    parser.addoption("--gpu", action="store_true", help="also run the tests that need an accelerator")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for tier in TIERS:
        if not config.getoption(f"--{tier}"):
            for item in items:
                if tier in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"opt-in: --{tier}"))


def pytest_unconfigure() -> None:
    shutil.rmtree(CACHES, ignore_errors=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that lie beside a checkout (../shared/data) or where REDIFFUSE_DATA points; without them the test is skipped."""
    folder = Path(os.environ.get("REDIFFUSE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no image sets in {folder}; set REDIFFUSE_DATA")
    return folder


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, though a shell may have started the tests in its background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
