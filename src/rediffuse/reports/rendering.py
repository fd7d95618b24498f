"""What all pages share: one file that holds everything, every name in it escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

PAGE = "report.html"


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template of this package with its style as text; a name that the context lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rediffuse.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    css = (files("rediffuse.reports") / "templates" / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render({"css": Markup(css), **context})  # a file of this package


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
