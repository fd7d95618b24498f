"""Between pictures and whole levels from 0 to 255."""

from __future__ import annotations

import numpy as np

from rediffuse.evaluation.corruptions.kernels import Floats

_SLACK = np.float32(1 / 512)
"""Levels. A value that is whole but for rounding of the arithmetic keeps its level."""


def cut(values: Floats) -> Floats:
    """Clip to 0 to 255 and cut off what is behind the point, as the published sets do (they do not round)."""
    found: Floats = np.floor(np.clip(values, 0, 255) + _SLACK)
    return found


def nearest(values: Floats) -> Floats:
    """Clip to 0 to 255 and round to the nearest level."""
    found: Floats = np.floor(np.clip(values, 0, 255) + np.float32(0.5))
    return found
