"""Nested settings as one level of names, and where two of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 60
_HASH = re.compile("[0-9a-f]{64}")


def leaves(values: Mapping[str, Any], joint: str = ".") -> dict[str, Any]:
    """Values by their names and those that they stand under: {"making": {"copies": 4}} is {"making.copies": 4}. Empty mappings go."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}{joint}{below}": leaf for below, leaf in leaves(value, joint).items()}
        else:
            flat[name] = value
    return flat


def unequal(old: Mapping[str, Any], new: Mapping[str, Any], joint: str = ".") -> list[tuple[str, Any, Any]]:
    """(name, old value, new value) wherever two settings differ, names as in `leaves`; what is missing counts as None."""
    before, after = leaves(old, joint), leaves(new, joint)
    return [(name, before.get(name), after.get(name)) for name in {**before, **after} if before.get(name) != after.get(name)]


def short(value: Any) -> str:
    """A value as JSON, its beginning where it is long; of a hash 12 digits."""
    if isinstance(value, str) and _HASH.fullmatch(value):
        value = value[:12]
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
