"""The table: read as it is published, written so that it is read the same, and never mistaken for another's."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rediffuse.errors import DataError
from rediffuse.evaluation.certify.rows import HEADER, Certificate, append, finished, read_rows, rewrite

ROWS = [
    Certificate(index=0, label=3, predict=3, radius=0.12499999999, seconds=1.5),
    Certificate(index=1, label=0, predict=-1, radius=0.0, seconds=90061.25),
    Certificate(index=2, label=1, predict=2, radius=1e-05, seconds=0.0),
]


def test_a_published_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "published.tsv"
    file.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"
        "0\t3\t3\t1.35\t1\t0:00:16.334563\n"
        "20\t0\t-1\t0.0\t0\t0:02:06\n"
        "40\t1\t5\t0.0623\t0\t1 day, 1:00:01\n"
    )
    found = read_rows(file)
    assert [(row.index, row.label, row.predict, row.radius, row.correct) for row in found] == [
        (0, 3, 3, 1.35, True), (20, 0, -1, 0.0, False), (40, 1, 5, 0.0623, False),
    ]  # fmt: skip
    assert [row.seconds for row in found] == pytest.approx([16.334563, 126, 90001])


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "own.tsv"
    rewrite(file, ROWS[:1])
    append(file, ROWS[1:])
    assert list(read_rows(file)) == ROWS
    with file.open(newline="") as text:
        columns = list(csv.DictReader(text, delimiter="\t"))
    assert [(row["idx"], row["predict"], row["correct"]) for row in columns] == [("0", "3", "1"), ("1", "-1", "0"), ("2", "2", "0")]
    assert float(columns[0]["radius"]) < 0.125  # three digits would have made it more than was certified


def test_a_torn_line_counts_as_not_written(tmp_path: Path) -> None:
    file, labels = tmp_path / "own.tsv", [row.label for row in ROWS]
    assert finished(file, labels) == []
    rewrite(file, ROWS)
    assert finished(file, labels) == ROWS
    text = file.read_text()
    for cut in range(len(HEADER), len(text)):
        file.write_text(text[:cut])
        assert finished(file, labels) == ROWS[: text[:cut].count("\n") - 1]
    file.write_text(HEADER[:7])
    assert finished(file, labels) == []


def test_a_table_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    file = tmp_path / "own.tsv"
    rewrite(file, ROWS)
    with pytest.raises(DataError, match=r"line 3 is of another run: image 1 with label 0 there, 1 with 7 here"):
        finished(file, [3, 7, 1])
    with pytest.raises(DataError, match="3 certificates there, 2 images here"):
        finished(file, [3, 0])
    for text, problem in (
        ("a\tb\n", "first line must be idx label"),
        (HEADER + "0\t3\tcat\t1\t1\t0:00:01\n", "line 2 is no certificate"),
        (HEADER + "0\t3\t3\t1\n", "line 2 is no certificate"),
        (HEADER + "0\t3\t3\t1\t1\tsoon\n", "line 2 is no certificate"),
        (HEADER + "0\t3\t3\t1\t0\t0:00:01\n", "contradicts itself"),
        (HEADER + "0\t3\t3\tnan\t1\t0:00:01\n", "contradicts itself"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=problem):
            read_rows(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "none.tsv")
