"""Sets written as folders are read back as they were, whatever their names."""

from __future__ import annotations

import pytest

from rediffuse.data import Example, ImageSet, folder
from rediffuse.data.export import export_folders
from rediffuse.data.names import slug
from rediffuse.errors import ConfigError, DataError


def test_round_trip(collect, tmp_path):
    images = collect({"potted plant": 2, "colt's foot": 3})
    out = export_folders(images, tmp_path / "out")
    again = folder(out)
    assert again.classes == ("colt's foot", "potted plant")
    assert again.ids[:2] == ("colt's foot/0.png", "colt's foot/1.png")
    truth = {digest: images.classes[label] for digest, label in zip(images.digests, images.labels, strict=True)}
    assert {digest: again.classes[label] for digest, label in zip(again.digests, again.labels, strict=True)} == truth


def test_names_that_no_folder_may_have(collect, tmp_path):
    names = ["..", "../../evil", "a/b", "-rf", "con", "Cat", "cat", "x" * 300]
    out = export_folders(collect(dict.fromkeys(names, 1)), tmp_path / "deep" / "out")
    assert sorted(child.name for child in out.iterdir()) == sorted(slug(name) for name in names)
    assert [child.name for child in (tmp_path / "deep").iterdir()] == ["out"]
    assert len(folder(out)) == len(names)


def test_files_that_would_share_a_name(draw, tmp_path):
    ids = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "../3.jpg", "B/2.png", "c/..", ""]
    images = ImageSet.of([Example(id=name, image=draw(row), label=0) for row, name in enumerate(ids)], classes=["x"])
    again = folder(export_folders(images, tmp_path / "out"))
    assert sorted(again.digests) == sorted(images.digests)
    assert "x/3.png" in again.ids


def test_unlabelled_sets_and_jpeg(draw, tmp_path):
    images = ImageSet.of([Example(id="a/x", image=draw(1), label=None)], classes=())
    again = folder(export_folders(images, tmp_path / "out", format="jpeg"))
    assert (again.ids, again.classes, again.sizes) == (("x.jpg",), (), images.sizes)


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_export_starts_again(collect, tmp_path, stop):
    images = collect({"a": 2, "b": 1})
    out = tmp_path / "out"

    def interrupt(done, _):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_folders(images, out, progress=interrupt)
    next(out.rglob("*.png")).write_bytes(b"half a pict")
    with pytest.raises(DataError, match="interrupted export of other pictures"):
        export_folders(images, out, format="jpeg")
    with pytest.raises(DataError, match="interrupted export of other pictures"):
        export_folders(images.subset([0, 1]), out)
    assert sorted(folder(export_folders(images, out)).digests) == sorted(images.digests)
    assert [child.name for child in sorted(out.iterdir())] == ["a", "b"]
    with pytest.raises(DataError, match="not an empty folder"):
        export_folders(images, out)


def test_nothing_is_written_over(collect, tmp_path):
    images = collect({"a": 1})
    out = export_folders(images, tmp_path / "out")
    with pytest.raises(DataError, match="not an empty folder"):
        export_folders(images, out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="not an empty folder"):
        export_folders(images, tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        export_folders(images, tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="png or jpeg"):
        export_folders(images, tmp_path / "gif", format="gif")
