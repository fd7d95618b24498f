"""The one writer of results, its reader, and the tables made of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.provenance import command_line, hardware, module_command
from rediffuse.evaluation.results import Figure, read_result, render_headline, render_table, write_result
from rediffuse.evaluation.statistics import t_interval
from rediffuse.writing import write_json


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [{"arm": "standard", "shots": 1, "accuracy": 0.25}, {"arm": "da-fusion", "shots": 1, "accuracy": 0.5}]
    gain = t_interval([0.1, 0.3])
    path = write_result("compare_toy", {"gain": gain, "seconds_each": 2.0}, rows, 12.34, command="rediffuse compare toy", folder=tmp_path)
    assert path == tmp_path / "compare_toy.json"
    stored = json.loads(path.read_text())
    assert set(stored) == {"name", "command", "commit", "date", "hardware", "seconds", "notes", "headline", "rows"}
    assert stored["headline"] == {
        "gain": {"value": gain.value, "low": gain.low, "high": gain.high, "basis": "seeds"},
        "seconds_each": {"value": 2.0, "low": None, "high": None, "basis": ""},
    }
    found = read_result(path)
    assert found.rows == rows
    assert found.headline["seconds_each"] == Figure(value=2.0)
    assert found.command == "rediffuse compare toy"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hardware_is_named() -> None:
    found = hardware()
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    assert found["processor"]
    assert set(found) == {"processor", "cores", "instruction_sets", "device", "torch", "python"}


def test_a_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/rediffuse", "compare", "my photos"])
    assert command_line() == "rediffuse compare 'my photos'"


def test_a_module_is_named_as_it_is_run() -> None:
    told = ["--data", "/home/someone/photos", "--out", "results", "--label", "a b"]
    assert module_command("rediffuse.recipes.toy", told) == "python -m rediffuse.recipes.toy --data photos --out results --label 'a b'"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_names_that_are_no_file_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_result(name, {}, [], 0, folder=tmp_path)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no result at"):
        read_result(tmp_path / "gone.json")
    foreign = tmp_path / "foreign.json"
    for text in ("{", '{"rows": []}', "[1]"):
        foreign.write_text(text)
        with pytest.raises(DataError, match="is not a result file"):
            read_result(foreign)


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_tables_are_markdown(tmp_path: Path) -> None:
    rows = [{"arm": "a|b", "shots": 1, "accuracy": 0.123456}, {"arm": "c", "shots": 2}]
    assert render_table(rows).splitlines() == ["| arm | shots | accuracy |", "|---|---:|---:|", "| a\\|b | 1 | 0.1235 |", "| c | 2 |  |"]
    assert render_table([{"seeds": [0.123456, -1.0]}]).splitlines()[2] == "| 0.1235, -1 |"
    assert render_table(rows, {"shots": "n"}).splitlines() == ["| n |", "|---:|", "| 1 |", "| 2 |"]
    path = write_result("toy", {"gain": t_interval([0.1, 0.3]), "one": 1.0}, rows, 1, folder=tmp_path)
    lines = render_headline(read_result(path)).splitlines()
    assert lines[2].startswith("| gain | 0.2 | -1.071 to 1.471 |")
    assert lines[3] == "| one | 1 |  |"
