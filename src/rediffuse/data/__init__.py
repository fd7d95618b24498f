"""Real images in: folders, tables, the hub, digits; few-shot splits; real and synthetic images mixed.

`open_images` opens any of them by a word or path; the readers it calls have more options. The three readers that share their
module's name are imported here, at no cost, because Python binds a submodule over a lazy name; the rest waits until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rediffuse.data.digits import digits
from rediffuse.data.folder import folder
from rediffuse.data.table import table

if TYPE_CHECKING:
    from rediffuse.data.mixing import Mixed
    from rediffuse.data.open import open_images
    from rediffuse.data.splits import few_shot, holdout
    from rediffuse.data.types import Example, ImageSet

_LAZY = {
    "Example": "types",
    "ImageSet": "types",
    "Mixed": "mixing",
    "few_shot": "splits",
    "holdout": "splits",
    "open_images": "open",
}

__all__ = ["Example", "ImageSet", "Mixed", "digits", "few_shot", "folder", "holdout", "open_images", "table"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
