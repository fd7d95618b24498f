"""What a classifier learned from is told apart by pixels; without a note nothing is known, and a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ModelError
from rediffuse.training.trained_on import FILE_NAME, flattery, read_learned, write_learned


def grey(*values: int) -> ImageSet:
    return ImageSet.of(
        [Example(id=f"{place}.png", image=Image.new("RGB", (2, 2), (value,) * 3), label=0) for place, value in enumerate(values)],
        classes=("grey",),
    )


def test_photos_are_known_again_by_their_pixels(tmp_path: Path) -> None:
    taught = grey(3, 1, 2, 1)
    write_learned(tmp_path, taught.digests)
    assert read_learned(tmp_path) == set(taught.digests)
    stored = json.loads((tmp_path / FILE_NAME).read_text(encoding="utf-8"))["pixels_sha256"]
    assert stored == sorted(set(taught.digests))
    learned = read_learned(tmp_path)
    assert flattery(learned, "net", grey(9, 2, 1)).startswith("2 of these 3 photos taught net;")
    assert flattery(learned, "net", grey(8, 9)) == ""


def test_without_a_note_nothing_is_known(tmp_path: Path) -> None:
    assert read_learned(tmp_path) == frozenset()
    assert flattery(frozenset(), "net", grey(1)) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2, "pixels_sha256": []}', '{"version": 1, "pixels_sha256": [1]}'])
def test_a_damaged_note_is_named_with_the_fix(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"trained_on\.json .*train again, or remove it"):
        read_learned(tmp_path)
