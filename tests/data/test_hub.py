"""Sets of the `datasets` library, with the library itself; no network."""

from __future__ import annotations

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rediffuse.data import folder, open_images
from rediffuse.data.hub import hub
from rediffuse.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def rows(draw):
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ape"])})
    return datasets.Dataset.from_dict({"picture": [draw(number) for number in range(4)], "label": [1, 0, 1, 0]}, features=features)


def test_an_object(draw, rows):
    images = open_images(rows)
    assert images.classes == ("zebra", "ape")
    assert images.labels == (1, 0, 1, 0)
    assert images.ids == tuple(f"row/{row:06d}" for row in range(4))
    assert [example.image.tobytes() for example in images] == [draw(number).tobytes() for number in range(4)]


def test_a_class_folder_read_by_both(fill, monkeypatch, tmp_path):
    root = fill(tmp_path / "p", {"ape": 2, "zebra": 3})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    theirs = hub(datasets.load_dataset(str(root), split="train", cache_dir=str(tmp_path / "cache")))
    ours = folder(root)
    assert theirs.classes == ours.classes
    assert sorted(zip(theirs.digests, theirs.labels, strict=True)) == sorted(zip(ours.digests, ours.labels, strict=True))


def test_rows_read_no_files_outside_of_the_set(draw, encode, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "set" / "in").mkdir(parents=True)
    places = [tmp_path / "secret" / "a.png", tmp_path / "set" / "in" / "b.png", tmp_path / "set" / "in" / "c.png"]
    for number, place in enumerate(places):
        draw(number).save(place)
    places[2].unlink()
    places[2].symlink_to(places[0])
    named = [*map(str, places), str(tmp_path / "set" / "in" / ".." / ".." / "secret" / "a.png"), "a.png"]
    inside = draw(7)
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    cells = [{"path": path, "bytes": None} for path in named] + [{"path": "gone.png", "bytes": encode(inside)}]
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0] * 6}, features=features)
    rows = rows.cast_column("image", datasets.Image())

    refused = {line.id: line.reason for line in hub(rows).rejected}
    assert len(refused) == 5
    assert sum("outside of the set's folder; move it there, or give a folder or a table" in reason for reason in refused.values()) == 5
    assert [example.image.tobytes() for example in hub(rows)] == [inside.tobytes()]
    assert [example.image.tobytes() for example in hub(rows, root=tmp_path / "set")] == [draw(1).tobytes(), inside.tobytes()]
    assert len(hub(rows, allow_outside=True)) == 5  # the last names nothing

    described = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}
    written = pa.Table.from_pylist([{"image": {"bytes": png, "path": named[0]}, "label": 0} for png in (None, encode(inside))])
    written = written.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": described}})})
    pq.write_table(written, tmp_path / "train.parquet")
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [example.image.tobytes() for example in open_images(loaded)] == [inside.tobytes()]


def test_a_saved_set_that_calls_itself_a_folder_of_pictures_reads_no_files_outside(draw, tmp_path):
    draw(1).save(tmp_path / "secret.png")
    cell = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}  # as pictures, the library would put them in when it saves
    features = datasets.Features({"image": cell, "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": [{"path": str(tmp_path / "secret.png"), "bytes": None}], "label": [0]}, features=features)
    rows.info.builder_name = "imagefolder"
    rows.save_to_disk(tmp_path / "set")
    for read in (rows, datasets.load_from_disk(str(tmp_path / "set"))):
        pictures = read.cast_column("image", datasets.Image())
        assert pictures.info.builder_name == "imagefolder"
        with pytest.raises(DataError, match="outside of the set's folder"):
            hub(pictures)
        assert len(hub(pictures, root=tmp_path)) == 1


def test_words_as_labels_and_rows_without(draw):
    features = datasets.Features({"image": datasets.Image(), "category": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": [draw(1), draw(2), draw(3), None], "category": ["b", None, "a", "a"]}, features=features)
    images = hub(rows)
    assert images.classes == ("a", "b")
    assert images.labels == (1, 0)
    assert {line.id: line.reason for line in images.rejected} == {
        "row/000001": "no label in this row",
        "row/000003": "no picture in this row",
    }


def test_splits_are_chosen(rows):
    both = datasets.DatasetDict({"train": rows, "test": rows.select([0])})
    assert len(hub(both, split="test")) == 1
    with pytest.raises(DataError, match=r"train, test.*\(--split NAME\)"):
        hub(both)
    with pytest.raises(DataError, match="no split 'val'"):
        hub(both, split="val")


def test_what_cannot_be_read_is_named(rows):
    with pytest.raises(DataError, match=r"no column .* of pictures"):
        hub(rows.remove_columns("picture"))
    with pytest.raises(DataError, match="labelled=False"):
        hub(rows.rename_column("label", "n"))
    assert hub(rows.rename_column("label", "n"), labelled=False).classes == ()
    with pytest.raises(DataError, match="no fixed rows"):
        hub(rows.to_iterable_dataset())
    with pytest.raises(DataError, match="no rows"):
        hub(rows.select([]))


def test_a_name_that_cannot_be_fetched():
    with pytest.raises(DataError, match=r"nobody/nothing.*cannot be loaded.*check the name and the network"):
        open_images("hub:nobody/nothing")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # what an interpreter without it answers
    with pytest.raises(DataError, match=r"pip install '\.\[data\]'"):
        hub("any")


def test_labels_where_there_are_any(draw, rows):
    assert open_images(rows.remove_columns("label"), labelled=None).labels == (None,) * 4
    assert open_images(rows, labelled=None).labels == (1, 0, 1, 0)
    words = {"image": [draw(1), draw(2)], "category": ["b", None]}
    features = datasets.Features({"image": datasets.Image(), "category": datasets.Value("string")})
    assert open_images(datasets.Dataset.from_dict(words, features=features), labelled=None).labels == (0, None)
