"""Makes a torchvision of another build of torch importable, for libraries that are compared with and need only its Python side."""

from __future__ import annotations

from typing import Any

import torch

_KEPT: list[Any] = []


def torchvision_importable() -> bool:
    """Whether torchvision can be imported, after its compiled operators are declared where those of its own build do not load."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return False
    except RuntimeError:
        for missing in ("nms", "qnms"):  # never called
            declared = torch.library.Library("torchvision", "FRAGMENT")
            declared.define(f"{missing}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(declared)
    return True


def declared() -> bool:
    """Whether operators were declared here."""
    return bool(_KEPT)
