"""The page of an evaluation: every figure that it shows is one that was found, for one model and for two."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.evaluation.suite.toys import DATA, MODELS, NAMES, asked

from rediffuse.evaluation.accuracy import measure
from rediffuse.evaluation.corruptions.constants import COMMON
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.statistics import Interval
from rediffuse.evaluation.suite.evaluate import evaluate
from rediffuse.evaluation.suite.result import Evaluation
from rediffuse.evaluation.suite.settings import PARTS, UNKNOWN
from rediffuse.reports.evaluation import render_page
from rediffuse.reports.evaluation_cards import cards
from rediffuse.reports.evaluation_tables import MOST_CLASSES, better, confusion, heat_map
from rediffuse.reports.robust_figures import severity_curve
from rediffuse.reports.words import percent, points


def corrupted(shares: dict[str, float]) -> CorruptionResult:
    """Models that are right on a share of 100 images under everything."""
    right = np.stack([np.tile(np.arange(100) < round(100 * share), (15, 5, 1)) for share in shares.values()])
    return CorruptionResult(
        name="made up", models=tuple(shares), corruptions=COMMON, severities=(1, 2, 3, 4, 5), right=right, clean=right[:, 0, 0],
        comparable=tuple(name != "frost" for name in COMMON), side=32,
    )  # fmt: skip


def test_a_page_of_everything_is_one_file_that_asks_for_nothing() -> None:
    found = evaluate(MODELS, DATA, **asked())
    page = render_page(found)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Without " not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0[1-9a-f]0[1-9a-f]0[1-9a-f]", page)  # every stand-in became a colour of the page
    assert found.certified is not None
    assert f"ceiling {found.certified.ceiling(0.25):.2f}" in page
    assert "no change of an image within its L2 radius" in page
    assert "wrong with a chance of up to alpha: of 4 of a classifier at one σ, up to 0.004 are to be expected" in page
    for row in found.certified.table():
        if row["sigma"] == 0.25 and row["radius"] == 0.0:
            assert percent(row["certified_accuracy"]) in page
    assert found.attacked is not None
    assert "Projected gradients within L∞ 8/255 in 2 steps and L2 0.5 in 1 steps" in page
    heads = re.findall(r"<th[^>]*>(before|after [^<]+|without gradient)</th>", page)
    assert heads == ["before", "after L∞ 8/255", "without gradient", "after L2 0.5", "without gradient"]
    for attacked in found.attacked.values():
        assert all(percent(row["attacked_accuracy"]) in page for row in attacked.table())
    assert found.corruptions is not None
    for value in found.corruptions.table("first").flatten():
        assert f">{percent(float(value))}<" in page
    assert len(cards(found)) == 8
    assert {card["kicker"]: card["of"] for card in cards(found) if "of" in card} == {"DiffAug ensemble": "first", "DDA": "first"}
    holds_unknown_inputs(page, found)
    assert re.search(r"; at severity \d: \d", page)
    assert "No robustness against adversaries is claimed" in page
    assert "N = 24 draws" in page
    assert "4 images" in page


def holds_unknown_inputs(page: str, found: Evaluation) -> None:
    """A histogram a model, the means over near and far sets, and what each set gave."""
    assert found.unknown is not None
    (section,) = (part for part in page.split("<h2") if ">Unknown inputs</h2>" in part)
    assert [f"energy, {model}" in section for model in found.models] == [True, True]
    assert section.count("<svg") == 2
    for place in range(2):
        assert f'id="unknown-{place}-' in section
    assert [re.sub(r"<.*?>", "", head) for head in re.findall(r"<th[^>]*>((?:near|far) [^<]+)</th>", section)][:4] == [
        "near AUROC", "near FPR95", "far AUROC", "far FPR95",
    ]  # fmt: skip
    for name in ("near (near, 6)", "far (far, 6)"):
        assert section.count(name) == 2
    for model in found.models:
        for group in ("near", "far"):
            mean = found.unknown.mean(model, group, "energy")  # type: ignore[arg-type]
            assert mean is not None
            assert percent(mean.auroc.value) in section
            assert percent(mean.fpr95) in section


@pytest.mark.parametrize(
    ("interval", "lower", "said"),
    [((0.1, 0.2), False, "helps"), ((0.1, 0.2), True, "hurts"), ((-0.2, -0.1), True, "helps"), ((-0.1, 0.1), True, "no evidence")],
)
def test_less_error_is_better(interval: tuple[float, float], lower: bool, said: str) -> None:
    low, high = interval
    assert better(Interval(value=(low + high) / 2, low=low, high=high), lower=lower) == said


def test_the_heat_map_is_deeper_where_more_is_right() -> None:
    found = corrupted({"a": 0.2, "b": 0.9})
    first, second = (heat_map(found, model)["rows"][0]["cells"][0] for model in ("a", "b"))
    assert (first["value"], second["value"]) == ("20.0", "90.0")
    assert first["heat"] < second["heat"] <= 100
    names = [row["name"] for row in heat_map(found, "a")["rows"]]
    assert "frost *" in names
    assert "snow" in names
    assert names[-1] == "mean"


def test_the_severity_curve_holds_no_name_and_both_models() -> None:
    drawn = severity_curve(corrupted({"</svg><script>": 0.2, "b": 0.9}), "x-")
    assert "script" not in drawn
    assert "var(--da-fusion)" in drawn
    assert "var(--real-guidance)" in drawn


def test_confusions_of_many_classes_become_a_list() -> None:
    few = confusion("net", measure([0, 1, 1], [0, 1, 0], NAMES))
    assert [cell["value"] for cell in few["rows"][0]["cells"]] == ["50", "50", ""]
    many = [f"class {number}" for number in range(MOST_CLASSES + 1)]
    listed = confusion("net", measure([1, 1, 2, 3], [0, 0, 0, 3], many))
    assert [(row["name"], row["cells"][0]["value"], row["cells"][1]["value"]) for row in listed["rows"]] == [
        ("class 0", "class 1", "2"),
        ("class 0", "class 2", "1"),
    ]
    cranes = confusion("net", measure([0, 2], [0, 0], ["crane", "owl", "crane"]))
    assert [row["name"] for row in cranes["rows"]] == ["crane #0", "owl", "crane #2"]


def test_classes_without_images_are_not_counted_as_shown() -> None:
    """Said in the line under the title, beside the mean over classes, and among the limits."""
    few = DATA.subset([row for row, label in enumerate(DATA.labels) if label != 1])
    page = render_page(evaluate(MODELS[:1], few, **asked("few-shot")))
    assert "6 images of 2 of the 3 classes that first knows at 32 pixels" in page
    assert "The mean over classes is over the 2 that have images here." in page
    said = "hese photos show 2 of the 3 classes of first, none of dog; means over classes leave them out"
    assert said in page[page.index("<h2>Limits</h2>") :]
    whole = render_page(evaluate(MODELS[:1], DATA, **asked("few-shot")))
    assert "9 images of 3 classes at 32 pixels" in whole
    assert "mean over classes is over" not in whole
    assert "hese photos show" not in whole


def test_a_card_of_two_models_says_the_difference() -> None:
    found = evaluate(MODELS, DATA, **asked("few-shot"))
    card = cards(found)[0]
    assert found.calibration is not None
    gain = found.calibration.difference("first", "second", "accuracy")
    assert card["big"] == points(gain.value)
    assert card["word"].split(" ", 1)[1].lower() in ("better", "worse", "no evidence")
    alone = cards(evaluate(MODELS[:1], DATA, **asked("few-shot")))[0]
    assert alone["word"] == ""
    assert alone["unit"] == "%"


def test_the_page_names_the_scores_that_could_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "robust", (UNKNOWN,))  # type: ignore[index]
    page = render_page(evaluate(MODELS[:1], DATA, **asked("robust")))
    assert "Unknown inputs: left out: knn, because its k is 50 and there are 15 training images." in page
    assert "Fitted to 15 training images: ReAct, Mahalanobis." in page
