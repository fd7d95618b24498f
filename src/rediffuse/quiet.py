"""Libraries that talk while they read, made to be silent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def quiet() -> Iterator[None]:
    """Neither progress bars nor notes of diffusers and transformers, as far as they are imported; what matters is raised."""
    logs = {name: import_module(f"{name}.utils.logging") for name in ("diffusers", "transformers") if name in sys.modules}
    before = {name: log.get_verbosity() for name, log in logs.items()}
    bars = logs["transformers"].is_progress_bar_enabled() if "transformers" in logs else False
    for log in logs.values():
        log.set_verbosity_error()
    if bars:
        logs["transformers"].disable_progress_bar()
    try:
        yield
    finally:
        for name, log in logs.items():
            log.set_verbosity(before[name])
        if bars:
            logs["transformers"].enable_progress_bar()
