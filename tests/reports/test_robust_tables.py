"""The differences of two models under corruption, of their ensembles, entropies and under attack: each is the one that was found."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.evaluation.suite.toys import DATA, MODELS, asked
from tests.reports.test_evaluation import corrupted

from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.statistics import share
from rediffuse.evaluation.suite.evaluate import evaluate
from rediffuse.evaluation.suite.result import Evaluation
from rediffuse.reports.evaluation import render_page
from rediffuse.reports.evaluation_tables import corruption_gains
from rediffuse.reports.robust_tables import attack_table, columns_table, entropy_table
from rediffuse.reports.words import accuracy_range, points, points_range


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(MODELS, DATA, **asked(near=[], far=[]))


def gains(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in table["rows"] if row["gain"]}


def test_each_corruption_has_its_difference() -> None:
    made = corrupted({"a": 0.2, "b": 0.9})
    rows = {row["name"]: row for row in corruption_gains(made, "a", "b")["rows"]}
    assert len(rows) == 15
    gain = made.difference("a", "b", corruptions=("frost",))
    assert rows["frost *"]["word"] == "▼ worse"
    assert [(cell["value"], cell["range"]) for cell in rows["frost *"]["cells"]] == [(points(gain.value), points_range(gain))] * 2


def test_the_ensembles_of_two_models_are_compared(found: Evaluation) -> None:
    assert found.ensemble is not None
    assert found.adapted is not None
    for each in (found.ensemble, found.adapted):
        ours, theirs = (column for _, column in each.pairs)
        row = gains(columns_table(each))[f"{each.kind}: first over second"]
        assert each.corrupted is not None
        expected = [each.clean_gain(ours, theirs), each.clean.difference(ours, theirs, "ece"), each.corrupted.difference(ours, theirs)]
        assert [(cell["value"], cell["range"]) for cell in row["cells"]] == [(points(gain.value), points_range(gain)) for gain in expected]
        assert row["word"]


def test_an_attack_compares_like_with_like(found: Evaluation) -> None:
    assert found.attacked is not None
    rows = gains(attack_table(found.attacked, found.pair))
    victims = {"first over second": ("first", "second")}
    victims["DiffAug ensemble: first over second"] = ("first, DiffAug ensemble", "second, DiffAug ensemble")
    assert list(rows) == list(victims)
    for name, pair in victims.items():
        expected = [points(each.difference(*pair).value) for each in found.attacked.values()]
        assert [cell["value"] for cell in rows[name]["cells"]] == ["", expected[0], "", expected[1], ""]
    assert not gains(attack_table(found.attacked, None))


def curve(*last: float, classes: tuple[int, int] = (3, 3)) -> EntropyCurve:
    """Two models whose entropy on twelve images ends about there."""
    rise = np.linspace(0, 1, 5, dtype=np.float32)
    entropies = np.stack([np.stack([rise * end + 0.001 * image for image in range(12)]) for end in last])
    return EntropyCurve(times=(0, 250, 500, 750, 999), sigma=(0, 1, 2, 3, 4), models=("a", "b"), classes=classes, entropies=entropies)


def test_more_entropy_is_better_where_almost_nothing_is_left() -> None:
    table = entropy_table(curve(1.0, 0.4))
    assert table["columns"] == ["the image itself", "t = 500", "t = 999"]
    row = gains(table)["minus b"]
    assert [cell["value"] for cell in row["cells"]] == ["+0.00", "+0.30", "+0.60"]
    assert row["word"] == "▲ better"
    assert gains(entropy_table(curve(0.4, 1.0)))["minus b"]["word"] == "▼ worse"
    assert gains(entropy_table(curve(1.0, 0.4, classes=(3, 2))))["minus b"]["word"] == ""


def test_what_the_last_views_still_say_stands_beside_the_entropy() -> None:
    right = np.zeros((2, 12, 5), dtype=bool)
    right[0, :6, -1] = right[1, :3, -1] = True
    table = entropy_table(replace(curve(1.0, 0.4), right=right))
    assert table["columns"][-1] == "named rightly at t = 999, %"
    assert [row["cells"][-1]["value"] for row in table["rows"]] == ["50.0", "25.0", "+25.0"]
    assert table["rows"][0]["cells"][-1]["range"] == accuracy_range(share(right[0, :, -1]))
    assert "as the paper reads it" in table["caption"]


def test_the_page_has_the_differences_of_two_models_only(found: Evaluation) -> None:
    page = render_page(found)
    assert "Without unknown inputs: no sets of unknown images were given" in page
    for row in ("first over second, each corruption", "minus second", "DDA: first over second", ">first over second<"):
        assert row in page
    assert not re.search(r"<p[^>]*>[^<]*\d %", page)  # a line may end there
    alone = render_page(evaluate(MODELS[:1], DATA, **asked("few-shot")))
    assert '<tr class="gain">' not in alone
