"""The toys of tests/training/toys.py, as a fixture: modules beside tests are on no path."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    spec = spec_from_file_location("rediffuse_toys", Path(__file__).parents[1] / "training" / "toys.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(spec.name, module_from_spec(spec))
    spec.loader.exec_module(module)
    return module
