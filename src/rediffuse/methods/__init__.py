"""Augmentations, one file each: draw, then apply. This one mapping serves command line and replay."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.methods.diffaug import DiffAug
    from rediffuse.methods.editing import EditingMethod

METHODS: Mapping[str, tuple[str, str]] = {
    "da_fusion": ("rediffuse.methods.da_fusion", "DAFusion"),
    "real_guidance": ("rediffuse.methods.real_guidance", "RealGuidance"),
    "from_noise": ("rediffuse.methods.from_noise", "FromNoise"),
    "diffaug": ("rediffuse.methods.diffaug", "DiffAug"),
}
"""Name -> (module, class); loaded when asked for."""


def find_method(name: str) -> type[EditingMethod] | type[DiffAug]:
    """The class of a method by its name (`da_fusion` or `da-fusion`)."""
    key = name.replace("-", "_")
    if key not in METHODS:
        raise ConfigError(f"no method {name!r}; there are {', '.join(METHODS)}")
    module, attribute = METHODS[key]
    found: type[EditingMethod] | type[DiffAug] = getattr(import_module(module), attribute)
    return found


def from_settings(model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> EditingMethod | DiffAug:
    """A method from what its `settings()` gave; words: the concepts that it used, if any."""
    if "method" not in settings:
        raise ConfigError("settings of a method must name it: {'method': 'da_fusion', ...}")
    return find_method(str(settings["method"])).from_settings(model, settings, words)
