"""Prompts that concepts are learned and used with.

Reference: Gal et al., ICLR 2023, arXiv 2208.01618 (textual inversion); the 27 templates are those that DA-Fusion trains with.
"""

from __future__ import annotations

from collections.abc import Sequence

from rediffuse.errors import ConfigError

TEMPLATES: tuple[str, ...] = (
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
)
GENERATION_TEMPLATE = TEMPLATES[0]
SLOT = "{}"


def fill(template: str, word: str) -> str:
    """The prompt that says `word` where the template has its slot; the word is taken as it is, braces and all.

    Args:
        template: text with one `{}`.
        word: a placeholder such as `<goldfish>`, or a name.
    Raises:
        ConfigError: the template has no slot, or more than one.
    """
    return check_template(template).replace(SLOT, word)


def as_words(name: str) -> str:
    """A class name as a text may say it: without the brackets that mark a learned word. Other names stay as they are."""
    if not {"<", ">"} & set(name):
        return name
    return " ".join(name.replace("<", " ").replace(">", " ").split())


def check_template(template: str) -> str:
    """The template as it came, if it has exactly one slot."""
    if template.count(SLOT) != 1:
        raise ConfigError(
            f"each of the templates must hold {SLOT} once, for the word, got {template!r}; for example {GENERATION_TEMPLATE!r}"
        )
    return template


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates as a tuple, if there is one at least and each has its slot."""
    if isinstance(templates, str) or not templates:
        raise ConfigError(f"templates must be a list of at least one text with {SLOT}, got {templates!r}")
    return tuple(check_template(template) for template in templates)
