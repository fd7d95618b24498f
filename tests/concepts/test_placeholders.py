from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.concepts.placeholders import distinct_placeholders, normalise, placeholder, renamed, token_key
from rediffuse.errors import DataError

PUBLISHED = {
    "potted plant": "<potted_plant>",
    "colt's foot": "<colt's_foot>",
    "Great_Pyrenees": "<Great_Pyrenees>",
    "cyclamen ": "<cyclamen_>",
    "airplane": "<airplane>",
}


def test_tokens_as_published() -> None:
    assert {name: placeholder(name) for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("name", ["", "  ", "\t\n"])
def test_a_name_of_blanks_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="more than blanks"):
        placeholder(name)


def test_tokens_of_files_are_written_in_one_way() -> None:
    assert [normalise(token) for token in ("<potted plant>", "<potted_plant>", "potted plant", "<cyclamen >")] == [
        "<potted_plant>", "<potted_plant>", "<potted_plant>", "<cyclamen_>",
    ]  # fmt: skip
    assert normalise("<>") == "<__>"


def test_colliding_names_are_told_apart_and_the_others_left_alone() -> None:
    names = ("crane", "Crane", "polar bear", "polar_bear", "cat", "é", "e\u0301")
    tokens = distinct_placeholders(names)
    assert tokens["cat"] == "<cat>"
    assert set(renamed(tokens)) == set(names) - {"cat"}
    assert len({token_key(token) for token in tokens.values()}) == len(names)
    assert tokens["crane"].startswith("<crane-")
    for order in itertools.islice(itertools.permutations(names), 0, 5040, 500):
        assert distinct_placeholders(order) == tokens


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), unique=True, max_size=6))
def test_any_names_have_distinct_tokens_that_a_prompt_can_hold(names: list[str]) -> None:
    tokens = distinct_placeholders(names)
    assert list(tokens) == names
    assert len({token_key(token) for token in tokens.values()}) == len(names)
    for token in tokens.values():
        assert token[0] + token[-1] == "<>"
        assert not any(letter in "<>" or letter.isspace() for letter in token[1:-1])
        assert normalise(token) == token
        token.encode("utf-8")
