"""Classifiers: from random weights, on frozen features, or whole networks from given weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse.training.augment import CropViews, StandardViews
    from rediffuse.training.backbones import open_backbone
    from rediffuse.training.classifier import Classifier
    from rediffuse.training.fit import fit_classifier
    from rediffuse.training.loop import fit_network
    from rediffuse.training.objectives import Extra, Objective
    from rediffuse.training.procedure import Procedure
    from rediffuse.training.settings import TrainSettings

_LAZY = {
    "Classifier": "classifier",
    "CropViews": "augment",
    "Extra": "objectives",
    "Objective": "objectives",
    "Procedure": "procedure",
    "StandardViews": "augment",
    "TrainSettings": "settings",
    "fit_classifier": "fit",
    "fit_network": "loop",
    "open_backbone": "backbones",
}

__all__ = [
    "Classifier",
    "CropViews",
    "Extra",
    "Objective",
    "Procedure",
    "StandardViews",
    "TrainSettings",
    "fit_classifier",
    "fit_network",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
