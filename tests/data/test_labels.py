"""Labels are the same by every door."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rediffuse.data import open_images
from rediffuse.data.labels import LABEL_COLUMNS, read_labels
from rediffuse.errors import DataError


@pytest.mark.parametrize("cells", [["9", "10", "1", "2"], [9, 10, 1, 2]])
def test_numbers_have_one_order_by_every_door(draw, encode, tmp_path, cells):
    datasets = pytest.importorskip("datasets")
    pictures = [{"bytes": encode(draw(number)), "path": None} for number in range(4)]
    pq.write_table(pa.table({"image": pictures, "label": cells}), tmp_path / "t.parquet")
    for number in range(4):
        draw(number).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{cell}" for number, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *lines]))
    rows = datasets.Dataset.from_dict({"image": [draw(number) for number in range(4)], "label": cells})
    for source in (rows.cast_column("image", datasets.Image()), tmp_path / "t.parquet", tmp_path / "t.csv"):
        images = open_images(source)
        assert (images.classes, images.labels) == (("1", "2", "9", "10"), (2, 3, 0, 1))


@pytest.mark.parametrize("first", range(len(LABEL_COLUMNS) - 1))
def test_columns_have_one_order_by_every_door(draw, encode, tmp_path, first):
    datasets = pytest.importorskip("datasets")
    labels = {name: [name] for name in reversed(LABEL_COLUMNS[first:])}
    pq.write_table(pa.table({"image": [{"bytes": encode(draw(1)), "path": None}], **labels}), tmp_path / "t.parquet")
    rows = datasets.Dataset.from_dict({"image": [draw(1)], **labels}).cast_column("image", datasets.Image())
    assert open_images(rows).classes == open_images(tmp_path / "t.parquet").classes == (LABEL_COLUMNS[first],)


@pytest.mark.parametrize("cells", [[0.0, 10.0, 2.0, None], [0, 10.0, 2, math.nan], ["0.0", "10.0", "2.0", ""]])
def test_whole_numbers_that_became_floats_are_whole_numbers(cells):
    """As pandas makes them where a cell of the column is empty."""
    labels = read_labels(cells)
    assert (labels.classes, labels.indices) == (("0", "2", "10"), [0, 2, 1, None])
    assert read_labels([-1.0, 3.0]).classes == ("-1", "3")
    assert read_labels(["-1.0", "3.0"]).classes == ("-1", "3")


@pytest.mark.parametrize(
    ("cells", "classes"),
    [([0.5, 10.0, 2.0], ("0.5", "10.0", "2.0")), (["1.0", "1.5"], ("1.0", "1.5")), (["v1.0", "1.0"], ("1.0", "v1.0"))],
)
def test_other_numbers_and_words_stay_as_they_are(cells, classes):
    assert read_labels(cells).classes == classes
    assert read_labels([True, False]).classes == ("False", "True")


def test_cells_over_names_are_indices_or_names():
    labels = read_labels([1, "cat", 0.0, -1, None, "", math.nan, "bird", 7, 0.5], ("cat", "dog"))
    assert labels.indices == [1, 0, 0, *[None] * 7]
    assert labels.classes == ("cat", "dog")
    assert {row for row, reason in labels.missing.items() if reason == "no label in this row"} == {3, 4, 5, 6}
    assert [labels.missing[row] for row in (7, 8)] == [f"label {cell} is outside the 2 class names" for cell in ("'bird'", 7)]
    assert 9 in labels.missing


def test_rows_without_a_label_are_no_fault_where_none_has_one():
    assert read_labels([-1, None], ("cat",)).missing == {}
    assert read_labels([None, ""]).missing == {}
    assert read_labels(["", "b", "a"]).missing == {0: "no label in this row"}


def test_several_labels_in_a_cell_are_refused():
    with pytest.raises(DataError, match=r"one value a row, got \[1, 2\]"):
        read_labels([1, [1, 2]])
