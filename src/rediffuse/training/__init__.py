"""Classifiers: from random weights, on frozen features, or whole networks from given weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse.training.backbones import Classifier
    from rediffuse.training.fit import fit_classifier

_LAZY = {"Classifier": "backbones", "fit_classifier": "fit"}

__all__ = ["Classifier", "fit_classifier"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
