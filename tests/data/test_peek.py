"""Sizes from headers alone: nothing is decoded, and what cannot be read is passed over."""

from __future__ import annotations

from rediffuse.data.peek import peek_photos


def test_sizes_and_class_folders_of_what_can_be_read(draw, encode, tmp_path):
    for name, size in (("cat/a.png", (30, 20)), ("dog/deep/b.jpg", (300, 200))):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        draw(size=size).save(file)
    (tmp_path / "cat" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "cat" / ".hidden.png").write_bytes(encode(draw()))
    (tmp_path / "cat" / "words.txt").write_text("cat")
    draw(size=(8, 8)).save(tmp_path / "loose.png")
    assert peek_photos(tmp_path) == [("", (8, 8)), ("cat", (30, 20)), ("dog", (300, 200))]


def test_pixels_are_not_needed(draw, encode, tmp_path):
    """The first bytes of a large picture are enough; a reader of the set would reject it."""
    (tmp_path / "cut.jpg").write_bytes(encode(draw(size=(4000, 3000)), "JPEG")[:2000])
    assert peek_photos(tmp_path) == [("", (4000, 3000))]


def test_other_specs_say_nothing(tmp_path):
    (tmp_path / "t.csv").write_text("file,label\n")
    assert peek_photos(tmp_path / "t.csv") == peek_photos(tmp_path / "nowhere") == peek_photos("digits") == []
