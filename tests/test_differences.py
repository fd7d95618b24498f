"""Nested settings: one level of names, differences by name."""

from __future__ import annotations

from rediffuse.differences import leaves, short, unequal


def test_names_hold_those_that_they_stand_under() -> None:
    assert leaves({"a": {"b": {"c": 1}, "d": [2]}, "e": {}}) == {"a.b.c": 1, "a.d": [2]}
    assert leaves({"a": {"b": 1}}, " > ") == {"a > b": 1}


def test_differences_come_in_order_with_both_values() -> None:
    old = {"seed": 1, "model": {"name": "x", "hash": "a"}, "gone": 3, "same": [1], "none": None}
    new = {"same": [1], "model": {"name": "x", "hash": "b"}, "seed": 2, "judge": {"size": 4}, "empty": {}}
    assert unequal(old, new) == [("seed", 1, 2), ("model.hash", "a", "b"), ("gone", 3, None), ("judge.size", None, 4)]
    assert unequal(old, old) == []


def test_a_setting_that_became_several_is_said() -> None:
    assert unequal({"a": 1}, {"a": {"b": 1}}) == [("a", 1, None), ("a.b", None, 1)]


def test_long_values_are_cut() -> None:
    assert short("é") == '"é"'
    assert short(None) == "null"
    assert len(short(list(range(100)))) == 60
    assert short(list(range(100))).endswith("...")
    assert short("0123456789abcdef" * 4) == '"0123456789ab"'  # a hash
