"""Libraries that rest on torchvision, for tests that compare with them."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.foreign import torchvision_importable


def library(name: str) -> Any:
    """A library that needs torchvision, or a skipped test without either."""
    pytest.importorskip("torchvision" if torchvision_importable() else name)
    return pytest.importorskip(name)
