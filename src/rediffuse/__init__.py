"""Rediffuse: real images go part of the way into noise and a diffusion model brings them back changed.

The public names are loaded when they are first used, so that `import rediffuse` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse import data
    from rediffuse.concepts.textual_inversion import learn
    from rediffuse.data.mixing import Mixed
    from rediffuse.denoisers.load import load
    from rediffuse.evaluation.few_shot.compare import compare
    from rediffuse.generation.run import generate
    from rediffuse.generation.store import Run
    from rediffuse.methods.da_fusion import DAFusion
    from rediffuse.methods.diffaug import DiffAug
    from rediffuse.methods.real_guidance import RealGuidance
    from rediffuse.training.fit import fit_classifier

__version__ = "0.1.0"

__all__ = [
    "DAFusion",
    "DiffAug",
    "Mixed",
    "RealGuidance",
    "Run",
    "__version__",
    "compare",
    "data",
    "fit_classifier",
    "generate",
    "learn",
    "load",
]

# Name -> (module, attribute in it; empty for the module itself). A public name stands here, above and in __all__; a test compares them.
_HOMES = {
    "data": ("rediffuse.data", ""),
    "load": ("rediffuse.denoisers.load", "load"),
    "learn": ("rediffuse.concepts.textual_inversion", "learn"),
    "DAFusion": ("rediffuse.methods.da_fusion", "DAFusion"),
    "DiffAug": ("rediffuse.methods.diffaug", "DiffAug"),
    "RealGuidance": ("rediffuse.methods.real_guidance", "RealGuidance"),
    "generate": ("rediffuse.generation.run", "generate"),
    "Run": ("rediffuse.generation.store", "Run"),
    "Mixed": ("rediffuse.data.mixing", "Mixed"),
    "fit_classifier": ("rediffuse.training.fit", "fit_classifier"),
    "compare": ("rediffuse.evaluation.few_shot.compare", "compare"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    loaded = import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
