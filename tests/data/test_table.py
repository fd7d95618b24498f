"""Tables of files, tables of embedded pictures, and what is said of bad ones."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rediffuse.data import open_images, table
from rediffuse.errors import DataError


def reasons(images) -> dict[str, str]:
    return {line.id: line.reason for line in images.rejected}


@pytest.fixture
def photos(draw, tmp_path):
    for number in range(4):
        draw(number).save(tmp_path / f"{number}.png")
    return tmp_path


def write_csv(path, rows, **options):
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        csv.writer(file, **options).writerows(rows)
    return path


def embedded(path, images, labels=None, names=None, rows_a_group=2, **more):
    """A shard as `datasets` writes it."""
    columns = {"image": pa.array(images, type=pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if labels is not None:
        columns["label"] = pa.array(labels)
    shard = pa.table(columns | {name: pa.array(values) for name, values in more.items()})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        shard = shard.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(shard, path, row_group_size=rows_a_group)
    return path


def test_csv_of_file_and_label(photos):
    path = write_csv(photos / "t.csv", [["file", "label"], ["2.png", "dog"], ["0.png", "cat"], ["1.png", "dog"]])
    images = table(path)
    assert images.classes == ("cat", "dog")
    assert images.ids == ("2.png", "0.png", "1.png")
    assert images.labels == (1, 0, 1)


@pytest.mark.parametrize(("file", "label"), [("file_name", "class"), ("path", "category"), ("image", "label"), ("filename", "class_name")])
def test_usual_column_names(photos, file, label):
    assert table(write_csv(photos / "t.csv", [["n", label, file], ["7", "cat", "0.png"]])).classes == ("cat",)


def test_given_columns(photos):
    path = write_csv(photos / "t.csv", [["picture", "kind", "label"], ["0.png", "x", "wrong"]])
    assert table(path, file_column="picture", label_column="kind").classes == ("x",)
    with pytest.raises(DataError, match=r"no column 'file_' .*picture, kind, label"):
        table(path, file_column="file_")
    with pytest.raises(DataError, match="file_column=NAME"):
        table(path)


def test_cells_are_quoted_as_csv_says(draw, tmp_path):
    names = ['a, "b".png', "line\nbreak.png", "-x.png", "ü ñ.png"]
    labels = ["bird, small", 'the "big" one', "--help", "名前"]
    for number, name in enumerate(names):
        draw(number).save(tmp_path / name)
    images = table(write_csv(tmp_path / "t.csv", [["file", "label"], *zip(names, labels, strict=True)]))
    assert images.ids == tuple(names)
    assert [images.classes[label] for label in images.labels] == labels


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_byte_order_marks(photos, delimiter):
    path = write_csv(photos / "t.csv", [["file", "label"], ["0.png", "cat"]], delimiter=delimiter, encoding="utf-8-sig")
    assert table(path).classes == ("cat",)


def test_numbers_are_classes_in_their_order(photos):
    path = write_csv(photos / "t.csv", [["file", "label"], ["0.png", "10"], ["1.png", "9"], ["2.png", "-1"]])
    assert table(path).classes == ("-1", "9", "10")


def test_rows_that_cannot_be_used(photos, draw):
    draw(1).save(photos.parent / "outside.png")
    rows = [["0.png", "cat"], ["../outside.png", "cat"], ["gone.png", "cat"], ["1.png", ""], ["", "cat"]]
    rows += [["2.png", "cat"], ["2.png", "cat"], ["3.png", "cat"], ["3.png", "dog"]]
    path = write_csv(photos / "t.csv", [["file", "label"], *rows])
    images = table(path)
    assert images.ids == ("0.png", "2.png")
    said = reasons(images)
    assert "leaves the folder" in said["../outside.png"]
    assert "no such file" in said["gone.png"]
    assert "no label" in said["1.png"]
    assert "no picture" in said["row 5"]
    assert "more than once" in said["2.png"]
    assert "2 different labels" in said["3.png"]
    assert "../outside.png" in table(path, allow_outside=True).ids


def test_absolute_paths_inside_become_relative(photos):
    assert table(write_csv(photos / "t.csv", [["file", "label"], [str(photos / "0.png"), "cat"]])).ids == ("0.png",)


def test_a_link_out_of_the_folder_leaves_it(photos, draw):
    draw(1).save(photos.parent / "secret.png")
    (photos / "link.png").symlink_to(photos.parent / "secret.png")
    images = table(write_csv(photos / "t.csv", [["file", "label"], ["0.png", "cat"], ["link.png", "cat"]]))
    assert "leaves" in reasons(images)["link.png"]


def test_tables_without_labels(photos):
    path = write_csv(photos / "t.csv", [["file", "weight"], ["0.png", "3"]])
    with pytest.raises(DataError, match=r"no label column .*labelled=False"):
        table(path)
    images = table(path, labelled=False)
    assert (images.classes, images.labels) == ((), (None,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("file,label\n", "no rows"),
        ("file,label\na, b.png,cat\n", "row 2 .* 3 cells"),
        ('file,label\n"a.png,cat\n', "cannot be read as csv"),
        ("file,b\n0.png,cat\n", "no label column"),
        (b"file,label\n\xe9.png,cat\n", "not UTF-8"),
    ],
)
def test_tables_that_are_none(tmp_path, text, says):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=says):
        table(path)


def test_paths_that_are_no_tables(tmp_path, draw):
    with pytest.raises(DataError, match="does not exist"):
        table(tmp_path / "gone.csv")
    draw().save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"\.csv, \.tsv or \.parquet"):
        table(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"no \.parquet file"):
        table(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        table(tmp_path / "x.parquet")


def test_parquet_of_file_and_label(photos):
    pq.write_table(pa.table({"file": ["0.png", "1.png", None], "label": ["b", "a", "a"]}), photos / "t.parquet")
    images = table(photos / "t.parquet")
    assert (images.ids, images.classes, images.labels) == (("0.png", "1.png"), ("a", "b"), (1, 0))
    assert "no picture" in reasons(images)["row 3"]


def test_embedded_pictures_with_names_in_the_schema(draw, encode, tmp_path):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(5)]
    path = embedded(tmp_path / "train-00000-of-00001.parquet", cells, [2, 0, 2, 0, 2], ["zebra", "unused", "ape"])
    images = table(path)
    assert images.classes == ("zebra", "unused", "ape")  # the order of the schema, not of the alphabet
    assert images.labels == (2, 0, 2, 0, 2)
    assert images.ids[0] == "train-00000-of-00001/000000"
    assert [example.image.tobytes() for example in images] == [draw(number).tobytes() for number in range(5)]


def test_names_in_the_schema_over_labels_that_are_words(draw, encode, tmp_path):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(3)]
    images = table(embedded(tmp_path / "a.parquet", cells, ["dog", "cat", "bird"], ["cat", "dog"]))
    assert (images.classes, images.labels) == (("cat", "dog"), (1, 0))
    assert reasons(images) == {"a/000002": "label 'bird' is outside the 2 class names"}


@pytest.mark.parametrize("names", [5, "cat", {"0": "cat"}])
def test_notes_of_the_schema_that_are_no_list_of_names_are_passed_over(draw, encode, tmp_path, names):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(2)]
    assert table(embedded(tmp_path / "a.parquet", cells, [3, 7], names)).classes == ("3", "7")


def test_ids_come_from_the_id_column_then_from_paths(draw, encode, tmp_path):
    cells = [{"bytes": encode(draw(number)), "path": f"{number}.png"} for number in range(2)]
    assert table(embedded(tmp_path / "a.parquet", cells, [0, 1])).ids == ("0.png", "1.png")
    assert table(embedded(tmp_path / "b.parquet", cells, [0, 1], id=["x", "y"])).ids == ("x", "y")
    same = [{"bytes": cell["bytes"], "path": "image.png"} for cell in cells]
    assert table(embedded(tmp_path / "c.parquet", same, [0, 1])).ids == ("c/000000", "c/000001")


def test_an_id_column_that_is_not_unique_names_no_pictures(draw, encode, tmp_path):
    """Such as the number of a patient with several photos: all are read, under the names of pictures without an id."""
    cells = [{"bytes": encode(draw(number)), "path": f"{number}.png"} for number in range(3)]
    several = table(embedded(tmp_path / "a.parquet", cells, [0, 0, 1], id=[7, 7, 8]))
    assert (several.ids, several.rejected) == (("0.png", "1.png", "2.png"), ())
    bare = [cell | {"path": None} for cell in cells]
    assert table(embedded(tmp_path / "b.parquet", bare, [0, 0, 1], id=["x", "x", "y"])).ids == ("b/000000", "b/000001", "b/000002")


def test_bad_embedded_cells(draw, encode, tmp_path):
    good = {"bytes": encode(draw(1)), "path": None}
    cells = [good, {"bytes": b"", "path": None}, {"bytes": None, "path": None}, None, good, good]
    images = table(embedded(tmp_path / "a.parquet", cells, [0, 0, 0, 0, 7, None], ["cat"]))
    assert images.ids == ("a/000000",)
    said = reasons(images)
    assert "0 bytes" in said["a/000001"]
    assert "no picture" in said["a/000002"]
    assert "no picture" in said["a/000003"]
    assert "label 7 is outside" in said["a/000004"]
    assert "no label" in said["a/000005"]


def test_a_test_split_without_labels(draw, encode, tmp_path):
    cells = [{"bytes": encode(draw(number)), "path": None} for number in range(2)]
    images = table(embedded(tmp_path / "a.parquet", cells, [-1, -1], ["cat", "dog"]))
    assert (images.labels, images.classes) == ((None, None), ("cat", "dog"))


def test_embedded_paths_stay_inside(draw, tmp_path):
    (tmp_path / "in").mkdir()
    draw(1).save(tmp_path / "in" / "x.png")
    draw(2).save(tmp_path / "out.png")
    cells = [{"bytes": None, "path": "x.png"}, {"bytes": None, "path": "../out.png"}]
    images = table(embedded(tmp_path / "in" / "a.parquet", cells, [0, 0]))
    assert images.ids == ("x.png",)
    assert "leaves" in reasons(images)["../out.png"]


@pytest.mark.parametrize("name", ["LABELS.PARQUET", "Labels.Csv"])
def test_endings_in_capitals(photos, name):
    if name.endswith("PARQUET"):
        pq.write_table(pa.table({"file": ["0.png"], "label": ["cat"]}), photos / name)
    else:
        write_csv(photos / name, [["file", "label"], ["0.png", "cat"]])
    assert table(photos / name).classes == ("cat",)


def test_plain_binary_and_ambiguous_columns(draw, encode, tmp_path):
    data = [encode(draw(1)), encode(draw(2))]
    pq.write_table(pa.table({"jpg": data, "class": ["b", "a"]}), tmp_path / "one.parquet")
    assert table(tmp_path / "one.parquet").labels == (1, 0)
    pq.write_table(pa.table({"left": data, "right": data, "class": ["b", "a"]}), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="left, right"):
        table(tmp_path / "two.parquet")
    assert table(tmp_path / "two.parquet", file_column="right").classes == ("a", "b")


def test_labels_where_there_are_any(photos):
    """For predictions: no column, an empty cell, or all labels."""
    bare = write_csv(photos / "bare.csv", [["file", "width"], ["2.png", "3"], ["0.png", "3"]])
    assert table(bare, labelled=None).labels == (None, None)
    some = table(write_csv(photos / "some.csv", [["file", "label"], ["2.png", "dog"], ["0.png", ""], ["1.png", "cat"]]), labelled=None)
    assert some.labels == (1, None, 0)
    assert some.classes == ("cat", "dog")
    assert some.rejected == ()
    assert open_images(bare, labelled=None).ids == ("2.png", "0.png")
    with pytest.raises(DataError, match="no label column"):
        open_images(bare)
