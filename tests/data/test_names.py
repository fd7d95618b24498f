"""Folder names that no file system minds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rediffuse.data.names import folder_names, is_safe_name, slug

ODD = [
    "",
    " ",
    "..",
    ".",
    "-rf",
    "--help",
    "a/b",
    "../../etc",
    "con",
    "名前",
    "naïve café",
    "'quoted' \"name\"",
    "\x00",
    "🙂",
    "x" * 500,
    "a\nb",
]


@pytest.mark.parametrize("name", ODD)
def test_slugs_of_odd_names(name):
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{6}", slug(name))
    assert len(slug(name)) <= 64


@given(st.text())
def test_slugs_of_any_name(name):
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{6}", slug(name))
    assert slug(name) == slug(name)


def test_slugs_stay_apart_and_readable():
    assert slug("Potted plant").startswith("potted-plant-")
    assert slug("café").startswith("cafe-")
    names = ["cat", "Cat", "CAT", "cat ", "cat.", "c/at", "猫", "犬", *ODD]
    assert len({slug(name) for name in names}) == len(names)
    kanji = [chr(code) for code in range(0x4E00, 0x9FA5)]
    assert len({slug(name) for name in kanji}) == len(kanji)  # 20,901 names: 6 hex digits alone would collide about 13 times


@pytest.mark.parametrize("name", ["cat", "potted plant", "colt's foot", "été", "x_1", "Nr. 5"])
def test_safe_names(name):
    assert is_safe_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "a/b", "a\\b", "con", "NUL.txt", "x.", "x ", 'a"b', "a:b", "a\nb", "e\u0301", "x" * 101, "é" * 101]
)
def test_unsafe_names(name):
    assert not is_safe_name(name)


def test_folder_names_differ_without_regard_to_case():
    names = ["cat", "Cat", "dog", "..", "a/b"]
    folders = folder_names(names)
    assert folders[2] == "dog"
    assert folders[:2] == (slug("cat"), slug("Cat"))
    assert len({name.casefold() for name in folders}) == len(names)
    assert all(is_safe_name(name) for name in folders)
