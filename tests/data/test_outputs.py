"""What this package wrote is no photo of the set that it lies in; a folder of the user's is, whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rediffuse.concepts.concepts import FILE_NAME, TOKEN_FOLDER
from rediffuse.data import folder, open_images
from rediffuse.data.outputs import MARKS
from rediffuse.data.peek import peek_photos
from rediffuse.errors import DataError

KINDS = sorted(MARKS)


def mark(place: Path, kind: str) -> Path:
    """Give a folder the marks of an output."""
    for name in MARKS[kind]:
        if "." in name:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("{}")
        else:
            (place / name).mkdir(parents=True, exist_ok=True)
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_inside_the_photos_is_left_out_by_name(fill, tmp_path, kind):
    photos = fill(tmp_path / "photos", {"cat": 2, "dog": 2})
    for place in (photos / "more", photos / "cat" / "deep" / "more"):
        fill(mark(place, kind), {"inside": 1})
    images = folder(photos)
    assert images.classes == ("cat", "dog")
    assert images.ids == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert {line.id: line.reason for line in images.rejected} == dict.fromkeys(
        ("cat/deep/more/", "more/"), f"{kind}, written by rediffuse; not photos of this set"
    )
    assert {name for name, _ in peek_photos(photos)} == {"cat", "dog"}


def test_one_mark_is_not_enough_and_a_name_is_none(fill, tmp_path):
    photos = fill(tmp_path / "photos", {"cat": 1, "more": 1, "comparison": 1, "cells": 1, "images": 1, "more-preview": 1})
    (photos / "more" / "run.json").write_text("{}")
    (photos / "comparison" / "settings.json").write_text("{}")
    assert folder(photos).classes == ("cat", "cells", "comparison", "images", "more", "more-preview")


def test_splits_stay_splits_beside_outputs(fill, tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / "sets" / split, {"cat": 1, "dog": 1})
    for place in ("more", "comparison"):
        fill(mark(tmp_path / "sets" / place, "the images of a run"), {"inside": 1})
    (tmp_path / "sets" / "model").mkdir()  # nothing to look at in it
    assert open_images(tmp_path / "sets", split="train").classes == ("cat", "dog")
    with pytest.raises(DataError, match=r"looks like splits \(test, train\)"):
        open_images(tmp_path / "sets")


def test_the_marks_of_words_are_those_that_are_written():
    assert MARKS["learned words"] == (FILE_NAME, TOKEN_FOLDER)
