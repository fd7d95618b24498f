from __future__ import annotations

import pytest

from rediffuse.concepts.prompts import GENERATION_TEMPLATE, TEMPLATES, as_words, check_templates, fill
from rediffuse.errors import ConfigError


def test_the_templates_are_27_different_ones_with_one_slot() -> None:
    assert len(set(TEMPLATES)) == 27
    assert check_templates(TEMPLATES) == TEMPLATES
    assert GENERATION_TEMPLATE == "a photo of a {}"


@pytest.mark.parametrize("word", ["<goldfish>", "colt's foot", "{}", "{0.__class__}", '50 % "off"', "café"])
def test_a_word_is_taken_as_it_is(word: str) -> None:
    assert fill("a photo of a {}, close", word) == "a photo of a " + word + ", close"


@pytest.mark.parametrize("template", ["a photo", "{} on {}", "", "a photo of a {name}"])
def test_a_template_without_its_slot_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"hold \{\} once"):
        fill(template, "cat")


@pytest.mark.parametrize("templates", [(), "a photo of a {}", ("a {}", "b")])
def test_templates_that_are_none(templates: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        check_templates(templates)


def test_a_class_name_says_no_learned_word() -> None:
    assert as_words("<b> bold") == "b bold"
    assert as_words("a<b") == "a b"
    for name in ("goldfish", " spaces  stay ", "a\nb"):
        assert as_words(name) == name
