"""What all pages share: one file that holds everything, every name in it escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rediffuse.differences import leaves
from rediffuse.reports.words import NARROW

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


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as one level of names and text: {"making": {"copies": 4}} is {"making.copies": "4"}."""
    return {name: _text(value) for name, value in leaves(values).items()}


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(" ".join(map(str, item)) if isinstance(item, list | tuple) else str(item) for item in value)
    return "" if value is None else str(value)
