"""Sets of several parquet shards: their splits and order, those too large to hold, and those that disagree or change."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.test_table import embedded

from rediffuse.data import decoding, open_images, table
from rediffuse.data import parquet as parquet_module
from rediffuse.data.decoding import BytesPayload, ParquetPayload
from rediffuse.errors import DataError


@pytest.mark.parametrize("place", ["", "data"])
def test_shards_and_splits(draw, encode, tmp_path, place):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(6)]
    base = tmp_path / place
    for shard in range(3):
        rows = slice(2 * shard, 2 * shard + 2)
        embedded(base / f"train-0000{shard}-of-00003.parquet", cells[rows], [shard, 0], ["a", "b", "c"])
    embedded(base / "test-00000-of-00001-0123abcd.parquet", cells[:1], [1], ["a", "b", "c"])
    images = table(tmp_path, split="train")
    assert images.labels == (0, 0, 1, 0, 2, 0)
    assert [example.image.tobytes() for example in images] == [draw(number).tobytes() for number in range(6)]
    assert len(table(tmp_path, split="test")) == 1
    with pytest.raises(DataError, match="splits test, train"):
        table(tmp_path)
    with pytest.raises(DataError, match=r"no split 'val'.* test, train"):
        table(tmp_path, split="val")
    (base / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="2 of 3 shards"):
        table(tmp_path, split="train")


def test_numbered_shards_are_of_the_split_that_their_folder_is(draw, encode, tmp_path, monkeypatch):
    """The layout of what the hub converts: CONFIG/SPLIT/0000.parquet."""
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(11)]
    (tmp_path / "set").mkdir()
    for number in range(11):
        embedded(tmp_path / "set" / "train" / f"{number}.parquet", cells[number : number + 1], [number % 2], ["a", "b"])
    embedded(tmp_path / "set" / "test" / "0000.parquet", cells[:2], [1, 0], ["a", "b"])
    train = table(tmp_path / "set" / "train")
    assert train.labels == tuple(number % 2 for number in range(11))
    assert [example.image.tobytes() for example in train] == [draw(number).tobytes() for number in range(11)]
    assert table(tmp_path / "set", split="train").labels == open_images(tmp_path / "set", split="train").labels == train.labels
    assert open_images(tmp_path / "set" / "test").labels == open_images(tmp_path / "set", split="test").labels == (1, 0)
    for read in (table, open_images):
        with pytest.raises(DataError, match=r"holds the splits test, train; choose one"):
            read(tmp_path / "set")
    draw(1).save(tmp_path / "set" / "sample.png")
    assert open_images(tmp_path / "set", split="train").labels == train.labels
    monkeypatch.chdir(tmp_path / "set" / "train")
    assert open_images(".", split="train").labels == train.labels


def test_numbered_shards_in_folders_that_are_passed_over(draw, encode, fill, tmp_path):
    photos = fill(tmp_path / "photos", {"cat": 1})
    cells = [{"bytes": encode(draw(1)), "path": None}]
    for place in (".cache", "more"):
        embedded(photos / place / "0000.parquet", cells, [0])
    (photos / "more" / "run.json").write_text("{}")
    (photos / "more" / "images").mkdir()
    assert open_images(photos).classes == ("cat",)


def test_tables_that_are_no_numbered_shards(draw, encode, fill, tmp_path):
    """What was computed of photos, and tables called by years: each a split of its own."""
    photos = fill(tmp_path / "photos", {"cat": 1, "dog": 1})
    cells = [{"bytes": encode(draw(1)), "path": None}]
    for place in ("features", "cat"):
        embedded(photos / place / "0.parquet", cells, [0])
    assert open_images(photos).classes == ("cat", "dog")
    assert len(open_images(photos, split="cat")) == 1
    for year in (2023, 2024):
        embedded(tmp_path / "years" / f"{year}.parquet", cells, [0])
    with pytest.raises(DataError, match="holds the splits 2023, 2024; choose one"):
        open_images(tmp_path / "years")
    assert len(open_images(tmp_path / "years", split="2023")) == 1


def test_shards_that_disagree(draw, encode, tmp_path):
    cell = [{"bytes": encode(draw(1)), "path": None}]
    embedded(tmp_path / "train-00000-of-00002.parquet", cell, [0], ["a", "b"])
    embedded(tmp_path / "train-00001-of-00002.parquet", cell, [0], ["b", "a"])
    with pytest.raises(DataError, match="different class names"):
        table(tmp_path)


def test_shards_too_large_to_hold_are_read_from_disk(draw, encode, tmp_path, monkeypatch):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(7)]
    path = embedded(tmp_path / "a.parquet", cells, [0] * 7, ["cat"], rows_a_group=3)
    held = parquet_module.read_embedded([path], "image")
    monkeypatch.setattr(parquet_module, "ENCODED_BUDGET", 0)
    lean = parquet_module.read_embedded([path], "image")
    assert {type(picture.payload) for picture in held} == {BytesPayload}
    assert {type(picture.payload) for picture in lean} == {ParquetPayload}
    assert [picture.payload.read().tobytes() for picture in lean] == [picture.payload.read().tobytes() for picture in held]


def test_threads_share_one_reading_of_a_row_group(draw, encode, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "ENCODED_BUDGET", 0)
    path = embedded(
        tmp_path / "a.parquet", [{"bytes": encode(draw(number)), "path": None} for number in range(8)], [0] * 8, ["cat"], rows_a_group=8
    )
    pictures, read, calls = parquet_module.read_embedded([path], "image"), pq.ParquetFile.read_row_group, []

    def slow(reader, *options, **named):
        calls.append(1)
        time.sleep(0.05)
        return read(reader, *options, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", slow)
    decoding._cells.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda picture: picture.payload.read().tobytes(), pictures))
    assert found == [draw(number).tobytes() for number in range(8)]
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["moved", "cut", "replaced"])
def test_large_shards_that_changed_after_opening_are_named(draw, encode, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(parquet_module, "ENCODED_BUDGET", 0)
    monkeypatch.setattr(decoding.decode, "__kwdefaults__", decoding.decode.__kwdefaults__ | {"budget": 0})
    path = embedded(tmp_path / "a.parquet", [{"bytes": encode(draw(number)), "path": None} for number in range(2)], [0, 0], ["cat"])
    images = table(path)
    decoding._cells.cache_clear()
    if damage == "moved":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError, match=r"a/000000 can no longer be read: .*a.parquet cannot be read as parquet.*open the set again"):
        images[0]


def test_real_shards(shared_data):
    train, test = (table(shared_data / "eurosat", split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (600, 900)
    assert train.classes == test.classes
    assert train.classes[:2] == ("annual crop", "forest")
    assert train.counts() == (60,) * 10
    assert set(train.sizes) == {(64, 64)}
    assert train.rejected == test.rejected == ()
    assert not set(train.ids) & set(test.ids)
    assert not set(train.digests) & set(test.digests)
