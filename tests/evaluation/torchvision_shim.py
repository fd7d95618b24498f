"""Makes a torchvision of another build importable, for libraries that are compared with and need only its Python side."""

from __future__ import annotations

from typing import Any

import pytest
import torch

_KEPT: list[Any] = []


def library(name: str) -> Any:
    """A library that needs torchvision, or a skipped test without either."""
    pytest.importorskip("torchvision" if _importable() else name)
    return pytest.importorskip(name)


def _importable() -> bool:
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return False
    except RuntimeError:
        for missing in ("nms", "qnms"):  # compiled operators of another torch: declared, never called
            declared = torch.library.Library("torchvision", "FRAGMENT")
            declared.define(f"{missing}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(declared)
    return True
