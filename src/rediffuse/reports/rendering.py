"""What all pages share: one file that holds everything, every name in it escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from rediffuse.reports.words import NARROW
from rediffuse.writing import whole

PAGE = "report.html"


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template of this package with its style as text; a name that the context lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rediffuse.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["whole"] = whole_percents
    css = (files("rediffuse.reports") / "templates" / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render({"css": Markup(css), **context})  # a file of this package


def whole_percents(text: str) -> str:
    """Text whose per cent signs stay on the line of their number."""
    return text.replace(" %", f"{NARROW}%")


def write_whole(path: Path, text: str) -> Path:
    """Write a page, whole or not at all; returns the file."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of names and text: {"making": {"copies": 4}} is {"making.copies": "4"}."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(" ".join(map(str, item)) if isinstance(item, list | tuple) else str(item) for item in value)
        else:
            flat[f"{prefix}{name}"] = "" if value is None else str(value)
    return flat
