"""Folders as people have them: class folders, odd names, strays, links, bad files, and what a run wrote."""

from __future__ import annotations

import json
import os
import re
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rediffuse.data import folder, open_images
from rediffuse.data.names import slug
from rediffuse.errors import DataError


def reasons(images) -> dict[str, str]:
    return {line.id: line.reason for line in images.rejected}


def test_class_folders(fill, tmp_path):
    images = folder(fill(tmp_path / "p", {"dog": 2, "cat": 3}))
    assert images.classes == ("cat", "dog")
    assert images.ids == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png")
    assert images.labels == (0, 0, 0, 1, 1)
    assert images.rejected == ()
    assert images.flips is True
    assert folder(tmp_path / "p", flips=False).flips is False


def test_nested_folders_count_to_their_class(draw, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1, "dog": 1})
    (root / "cat" / "2023" / "may").mkdir(parents=True)
    draw(9).save(root / "cat" / "2023" / "may" / "x.PNG")
    images = folder(root)
    assert images.ids == ("cat/0.png", "cat/2023/may/x.PNG", "dog/0.png")
    assert images.labels == (0, 0, 1)


def test_pictures_without_class_folders_are_unlabelled(draw, tmp_path):
    for number in range(3):
        draw(number).save(tmp_path / f"{number}.jpg")
    images = folder(tmp_path)
    assert images.classes == ()
    assert images.labels == (None,) * 3


def test_one_class(fill, tmp_path):
    images = folder(fill(tmp_path / "p", {"only": 2}))
    assert images.classes == ("only",)


def test_names_are_data(fill, tmp_path):
    names = ["two words", 'it\'s "quoted"', "--help", "-rf", "x..", "名前", "naïve", "a&b;c", "[bold]red", "{x}", "a\nb", " blanks "]
    images = folder(fill(tmp_path / "p", dict.fromkeys(names, 1)))
    assert images.classes == tuple(sorted(names))


def test_strays_and_empty_folders_are_rejected_by_name(draw, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    draw(1).save(root / "stray.png")
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("x")
    images = folder(root)
    assert images.ids == ("cat/0.png",)
    assert "beside the class folders" in reasons(images)["stray.png"]
    assert "no class" in reasons(images)["notes/"]


def test_hidden_files_are_passed_over(draw, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    draw(1).save(root / "cat" / "._0.png")
    (root / ".git").mkdir()
    draw(1).save(root / ".git" / "x.png")
    images = folder(root)
    assert images.ids == ("cat/0.png",)
    assert images.rejected == ()


def test_bad_files_are_rejected_and_the_rest_goes_on(draw, encode, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 2})
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "cat" / "half.jpg").write_bytes(encode(draw(1, (64, 64)), "JPEG")[:900])
    (root / "cat" / "text.jpg").write_text("hello")
    (root / "cat" / "film.gif").write_bytes(encode(draw(1), "GIF", save_all=True, append_images=[draw(2)]))
    (root / "cat" / "phone.heic").write_bytes(b"x")
    (root / "cat" / "notes.txt").write_text("not a picture, no line about it")
    images = folder(root)
    assert images.ids == ("cat/0.png", "cat/1.png")
    said = reasons(images)
    assert set(said) == {f"cat/{name}" for name in ("empty.png", "half.jpg", "text.jpg", "film.gif", "phone.heic")}
    assert "0 bytes" in said["cat/empty.png"]
    assert "truncated" in said["cat/half.jpg"]
    assert "animated" in said["cat/film.gif"]
    assert ".heic is not read" in said["cat/phone.heic"]


def test_a_class_whose_pictures_are_all_bad_stays_a_class(fill, tmp_path):
    root = fill(tmp_path / "p", {"ant": 1, "bee": 1, "cat": 1})
    (root / "bee" / "0.png").write_bytes(b"")
    images = folder(root)
    assert images.classes == ("ant", "bee", "cat")
    assert images.counts() == (1, 0, 1)


def test_errors_name_the_folder_and_what_is_read(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*does not exist"):
        folder(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        folder(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"no picture.*\.png \.jpg"):
        folder(tmp_path)
    (tmp_path / "empty class").mkdir()
    with pytest.raises(DataError, match="no picture"):
        folder(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the .*0 bytes"):
        folder(tmp_path)


def test_links_that_leave_are_rejected_by_name(draw, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    draw(5).save(tmp_path / "secret.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "cat" / "in.png").symlink_to(root / "cat" / "0.png")
    (root / "cat" / "gone.png").symlink_to(root / "nothing.png")
    (root / "loop").symlink_to(root)
    images = folder(root)
    assert images.ids == ("cat/0.png", "cat/in.png")
    said = reasons(images)
    assert "leaves the folder" in said["cat/out.png"]
    assert "nothing" in said["cat/gone.png"]
    assert "link to a folder" in said["loop"]
    assert "cat/out.png" in folder(root, allow_outside=True).ids


def test_a_link_to_the_folder_itself_is_fine(fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    (tmp_path / "link").symlink_to(root)
    assert folder(tmp_path / "link").ids == ("cat/0.png",)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_a_pipe_does_not_hang_the_reader(fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    os.mkfifo(root / "cat" / "pipe.png")
    assert "ordinary" in reasons(folder(root))["cat/pipe.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of plain bytes")
def test_names_that_are_not_unicode(draw, encode, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 1})
    with open(os.path.join(os.fsencode(root), b"cat", b"\xff.png"), "wb") as file:
        file.write(encode(draw(1)))
    images = folder(root)
    assert images.ids == ("cat/0.png",)
    assert re.search("Unicode", images.rejected[0].reason)
    json.dumps([line.id for line in images.rejected]).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems fold the two spellings")
def test_accents_have_one_spelling(draw, tmp_path):
    for name in ("e\u0301te\u0301", "\u00e9t\u00e9"):
        (tmp_path / name).mkdir()
        draw(1).save(tmp_path / name / "x.png")
    images = folder(tmp_path)
    assert images.classes == ("\u00e9t\u00e9",)
    assert len(images) == 1
    assert "accents" in images.rejected[0].reason


def write_run(root, draw, **changes) -> None:
    """The folder that a run leaves: slugs as class folders, true names in the metadata."""
    rows = {"file_name": [], "label": [], "class": [], "source_id": [], "copy": []}
    for label, name in enumerate(["test", "a/b", "..", "-x"]):
        (root / "images" / slug(name)).mkdir(parents=True)
        for copy in (-1, 0, 1):
            file = f"{slug(name)}/one-{copy}.png"
            draw(label * 10 + copy + 1).save(root / "images" / file)
            for column, value in zip(rows, (file, label, name, f"src/{label}.jpg", copy), strict=True):
                rows[column].append(value)
    (root / "run.json").write_text("{}")
    pq.write_table(pa.table(rows | changes), root / "images" / "metadata.parquet")


def test_a_run_is_a_data_set(draw, tmp_path):
    write_run(tmp_path, draw)
    images = folder(tmp_path)
    assert images.ids == folder(tmp_path / "images").ids
    assert images.classes == ("test", "a/b", "..", "-x")  # in the order of the set that it was made from
    first = [images[row] for row in range(3)]
    assert [(example.source, example.copy, example.label) for example in first] == [(None, -1, 0), ("src/0.jpg", 0, 0), ("src/0.jpg", 1, 0)]
    assert first[0].id == f"{slug('test')}/one--1.png"


def test_a_run_of_photos_that_must_not_be_flipped_says_so(draw, tmp_path):
    write_run(tmp_path, draw)
    assert folder(tmp_path).flips
    (tmp_path / "run.json").write_text('{"flips": false}')
    assert not folder(tmp_path).flips
    assert not folder(tmp_path / "images").flips
    (tmp_path / "run.json").unlink()
    assert folder(tmp_path / "images").flips
    assert not folder(tmp_path / "images", flips=False).flips


def test_a_run_is_found_by_links(draw, tmp_path):
    """Its images may lie on another disk, and a link may lead to them."""
    run = tmp_path / "run"
    run.mkdir()
    write_run(run, draw)
    (run / "run.json").write_text('{"flips": false}')
    (tmp_path / "short").symlink_to(run / "images")
    assert not folder(tmp_path / "short").flips
    (run / "images").rename(tmp_path / "store")
    (run / "images").symlink_to(tmp_path / "store")
    assert not folder(run).flips
    assert not folder(run / "images").flips


def test_a_run_that_was_killed_is_no_photos(draw, tmp_path, monkeypatch):
    """Its metadata is written last; until then generated pictures would be read as class folders of photos."""
    write_run(tmp_path, draw)
    (tmp_path / "images" / "metadata.parquet").unlink()
    monkeypatch.chdir(tmp_path / "images")
    for path in (tmp_path, tmp_path / "images", "."):
        for text, said in (("{}", "$"), ("[", "$"), ('{"command": "rediffuse augment photos out"}', ": rediffuse augment photos out$")):
            (tmp_path / "run.json").write_text(text)
            with pytest.raises(DataError, match=rf"{tmp_path.name} is a run that is not finished; continue it with the same command{said}"):
                folder(path)
    with pytest.raises(DataError, match="is not finished"):
        open_images(tmp_path.parent, split=tmp_path.name)
    (tmp_path / "run.json").unlink()
    assert len(folder(tmp_path / "images").classes) == 4


def test_a_run_says_which_pictures_its_sources_were(draw, tmp_path, monkeypatch):
    """Where its plan is beside it; a kept photo is its own source, and a run from noise has none."""
    write_run(tmp_path, draw)
    assert set(folder(tmp_path).source_digests) == {None}
    rows = {"source_id": ["src/0.jpg", "src/1.jpg", None], "source_sha256": ["a" * 64, "b" * 64, None]}
    pq.write_table(pa.table(rows), tmp_path / "plan.parquet")
    images = folder(tmp_path)
    assert images.source_digests[:6] == (None, "a" * 64, "a" * 64, None, "b" * 64, "b" * 64)
    assert set(images.source_digests[6:]) == {None}
    monkeypatch.chdir(tmp_path / "images")
    assert folder(".").source_digests == images.source_digests
    (tmp_path / "plan.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"plan\.parquet cannot be read.*changed or damaged"):
        folder(tmp_path)


def test_a_run_with_files_missing_or_added(draw, tmp_path):
    write_run(tmp_path, draw)
    images = tmp_path / "images"
    (images / slug("test") / "one-0.png").unlink()
    draw(3).save(images / slug("test") / "added.png")
    read = folder(tmp_path)
    assert len(read) == 11
    assert "missing" in reasons(read)[f"{slug('test')}/one-0.png"]
    assert "not listed" in reasons(read)[f"{slug('test')}/added.png"]


def test_a_broken_metadata_file_is_named(draw, tmp_path):
    write_run(tmp_path, draw)
    (tmp_path / "images" / "metadata.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"metadata\.parquet cannot be read"):
        folder(tmp_path)
