"""The table of predictions, read back by other readers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.test_time.prediction_table import check_table, plain_text, table_columns, write_table
from rediffuse.evaluation.test_time.predictions import Predictions


@pytest.mark.parametrize("text", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "\na", "  =a", "＝a"])
def test_what_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert plain_text(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "1-2.png", "'=1", "p(=1)", "ä", "<a>"])
def test_other_text_stays(text: str) -> None:
    assert plain_text(text) == text


def test_columns_and_files_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('a\n,"b".png', "c;d.png")
    images = ImageSet.of([Example(id=name, image=Image.new("RGB", (2, 2)), label=None) for name in names], classes=())
    probabilities = torch.tensor([[0.25, 0.75], [1 / 3, 2 / 3]])
    found = Predictions(
        members=("raw", "t=50"), probabilities=probabilities, decisions=torch.ones(2, 2, dtype=torch.int64), asked=torch.tensor([1, 2])
    )
    path = write_table(tmp_path / "new" / "t.csv", found, images, ("x", "y"))
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "predicted", "probability", "asked"],
            [names[0], "y", "0.75", "1"],
            [names[1], "y", "0.666667", "2"],
        ]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match=r"u\.parquet: no space is left"):
        write_table(tmp_path / "new" / "u.parquet", found, images, ("x", "y"))
    assert [child.name for child in (tmp_path / "new").iterdir()] == ["t.csv"]


def test_classes_of_one_name_keep_their_columns() -> None:
    images = ImageSet.of([Example(id="a.png", image=Image.new("RGB", (2, 2)), label=None)], classes=())
    found = Predictions(
        members=("raw",), probabilities=torch.tensor([[0.2, 0.5, 0.3]]), decisions=torch.tensor([[1]]), asked=torch.tensor([1])
    )
    columns = table_columns(found, images, ("crane", "fish", "crane"), True)
    assert [columns[name] for name in ("p(crane #0)", "p(fish)", "p(crane #2)")] == [[0.2], [0.5], [0.3]]


def test_places_that_are_taken_or_unknown(tmp_path: Path) -> None:
    check_table(tmp_path / "a.PARQUET")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ConfigError, match="exists already"):
        check_table(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"a\.csv is no folder"):
        check_table(tmp_path / "a.csv" / "new" / "b.csv")
    with pytest.raises(ConfigError, match=r"'a\.xlsx'"):
        check_table(tmp_path / "a.xlsx")
