"""Ensembles beside their classifiers: what is missing under corruption is there for a reason that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.suite.toys import DATA, MODELS, SIDE

from rediffuse.errors import DataError
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.suite import joining
from rediffuse.evaluation.suite.columns import Columns, ask_columns
from rediffuse.reports.robust_tables import columns_table


def ask(model: Judged, *, size: int = SIDE, keep: Path | None = None) -> Columns:
    """A classifier beside itself."""
    twin = Judged(model.network, model.classes, name=f"{model.name}, again")
    return ask_columns("twin", [model], [twin], DATA, size=size, fit="pad", severities=(5,), seed=0, keep=keep)


def test_a_kept_block_that_cannot_be_read_is_no_missing_corruption(tmp_path: Path) -> None:
    assert ask(MODELS[0], keep=tmp_path / "twin").corrupted is not None
    (tmp_path / "twin-corrupted" / "fog-5.kept").write_bytes(b"half a block")
    with pytest.raises(DataError, match=r"fog-5\.kept cannot be read: .*remove it"):
        ask(MODELS[0], keep=tmp_path / "twin")


def test_joined_columns_tell_why_any_of_them_lacks_corrupted_images() -> None:
    whole, small = ask(MODELS[0]), ask(MODELS[1], size=16)
    assert (whole.reason, small.corrupted) == ("", None)
    assert "16 px are too small to corrupt" in small.reason
    names = [model.name for model in MODELS]
    for found in ([whole, small], [small, whole]):
        joined = joining.columns(found, names)
        assert joined.corrupted is None
        assert joined.reason == small.reason
        assert "corrupted" not in columns_table(joined)["columns"]
    assert joining.columns([small, small], names[1:]).reason == small.reason
