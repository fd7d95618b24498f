"""Figures of unknown inputs: against scikit-learn set by set, paired intervals against known laws, and the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from rediffuse.errors import ConfigError
from rediffuse.evaluation.ood.metrics import auroc, fpr95
from rediffuse.evaluation.ood.resampling import Ranked, resampled_auroc
from rediffuse.evaluation.ood.result import judge
from rediffuse.evaluation.ood.scoring import Scored, ScoredSet

SCORES = ("msp", "energy", "knn", "react", "ash_b", "scale")


def drawn(shift: float = 1.0, *, same: bool = False, images: int = 300, seed: int = 0, scores: tuple[str, ...] = SCORES) -> Scored:
    """Two classifiers on known images and three unknown sets; the first sees them `shift` further apart than the second."""
    generator = np.random.default_rng(seed)
    sets = []
    for name, group, mean in (("cifar", "known", 1.0), ("a", "near", 0.0), ("b", "near", 0.5), ("c", "far", -0.5)):
        base = generator.normal(mean, 1, (1, images, len(scores)))
        other = base + generator.normal(0, 0.3, base.shape)
        values = np.concatenate([base if same else base + shift * (group == "known"), base if same else other])
        sets.append(ScoredSet(name=name, group=group, values=torch.from_numpy(values)))  # type: ignore[arg-type]
    return Scored(models=("ours", "theirs"), scores=scores, sets=tuple(sets), settings={"size": 8})


def test_rows_and_means_are_those_of_a_second_library() -> None:
    scored = drawn()
    found = judge(scored, resamples=20)
    values = {}
    for row in found.rows:
        place = scored.models.index(row.model), scored.scores.index(row.score)
        known = scored.sets[0].values[place[0], :, place[1]].numpy()
        unknown = next(part for part in scored.sets if part.name == row.set).values[place[0], :, place[1]].numpy()
        truth = np.repeat([1, 0], [known.size, unknown.size])
        values[row.model, row.set, row.score] = roc_auc_score(truth, np.concatenate([known, unknown]))
        assert row.auroc.value == pytest.approx(values[row.model, row.set, row.score], abs=1e-12)
        assert row.fpr95 == fpr95(known, unknown)
        assert row.images == 300
    near = np.mean([values["ours", name, score] for name in "ab" for score in ("msp", "energy", "knn")])
    paper = np.mean([values["theirs", "c", score] for score in ("ash_b", "msp", "react", "scale")])
    ours, theirs = found.mean("ours", "near"), found.mean("theirs", "far", "paper")
    assert ours is not None
    assert theirs is not None
    assert ours.auroc.value == pytest.approx(near)
    assert theirs.auroc.value == pytest.approx(paper)
    gain = found.gain("ours", "theirs", "near", "energy")
    assert gain is not None
    assert gain.value == pytest.approx(np.mean([values["ours", n, "energy"] - values["theirs", n, "energy"] for n in "ab"]))
    back = found.gain("theirs", "ours", "near", "energy")
    assert back is not None
    assert (back.value, back.low, back.high) == (-gain.value, -gain.high, -gain.low)  # type: ignore[operator]


def test_weighted_ranks_are_those_of_repeated_images() -> None:
    generator = np.random.default_rng(0)
    known, unknown = generator.integers(0, 9, 40).astype(float), generator.integers(0, 9, 30).astype(float)
    first, second = generator.integers(0, 4, 40), generator.integers(0, 4, 30)
    wanted = auroc(np.repeat(known, first), np.repeat(unknown, second))
    found = Ranked(known, [known, unknown]).auroc(first.astype(float), [first.astype(float), second.astype(float)])
    assert found == pytest.approx([0.5, wanted], abs=1e-12)


def test_a_classifier_against_itself_differs_by_nothing_seen() -> None:
    """Unseen images may differ: as many as 300 can hide."""
    found, least = judge(drawn(same=True), resamples=30), 1 - stats.binomtest(300, 300).proportion_ci(0.95).low
    for gain in found.gains:
        assert (gain.auroc.value, gain.auroc.low, gain.auroc.high) == (0, pytest.approx(-least), pytest.approx(least))
    assert found.headline()["near_auroc_gain"].value == 0.0  # type: ignore[union-attr]


def parted(known: int, *unknown: int) -> Scored:
    """Two classifiers and two scores that part known and unknown images wholly."""
    sizes = {"known": known, **{f"far {place}": size for place, size in enumerate(unknown)}}
    sets = [
        ScoredSet(name=name, group="far" if place else "known", values=torch.rand(2, size, 2, dtype=torch.float64) - 2 * bool(place))
        for place, (name, size) in enumerate(sizes.items())
    ]
    return Scored(models=("ours", "theirs"), scores=("msp", "energy"), sets=tuple(sets))


@pytest.mark.parametrize(("known", "unknown"), [(12, (12,)), (12, (200,)), (200, (12,)), (12, (200, 200)), (5000, (12, 12))])
def test_images_that_are_all_parted_are_no_certainty(known: int, unknown: tuple[int, ...]) -> None:
    """Pairs of images are no more images than there are: the ends are Clopper and Pearson's of nothing seen in the smaller set."""
    found = judge(parted(known, *unknown), resamples=20)
    least = stats.binomtest(12, 12).proportion_ci(0.95).low
    rows = [row.auroc for row in found.rows]
    assert {(row.value, round(row.low or 0, 9), row.high) for row in rows} == {(1, round(least, 9), 1)}
    if known > 12 and len(unknown) == 2:  # a mean over two sets of 12 says as much as 24 images, or as half of one set
        least = 1 - max(1 - 0.025 ** (1 / 24), (1 - least) / 2)
    for mean in found.means:
        assert (mean.auroc.value, mean.auroc.low, mean.auroc.high) == (1, pytest.approx(least), 1)
    for gain in found.gains:
        assert (gain.auroc.value, gain.auroc.low, gain.auroc.high) == (0, pytest.approx(least - 1), pytest.approx(1 - least))


def test_the_spread_of_draws_is_that_of_fresh_test_sets() -> None:
    gaps, spreads = [], []
    for seed in range(40):
        scored = drawn(0.3, seed=seed, images=150, scores=("energy",))
        value, draws = resampled_auroc(scored, 60, seed)
        gaps.append(value[0, 0, 0] - value[1, 0, 0])
        spreads.append((draws[:, 0, 0, 0] - draws[:, 1, 0, 0]).std())
    assert np.mean(spreads) == pytest.approx(np.std(gaps), rel=0.3)


def test_a_draw_is_one_image_fewer_than_the_set() -> None:
    """Of two images one is drawn: it lies above all that is unknown or below, never both."""
    known, unknown = torch.tensor([0.0, 2.0]).view(1, 2, 1), torch.ones(1, 2, 1)
    sets = ScoredSet(name="known", group="known", values=known), ScoredSet(name="a", group="near", values=unknown)
    value, draws = resampled_auroc(Scored(models=("ours",), scores=("msp",), sets=sets), 40)
    assert value.item() == 0.5
    assert set(draws.flatten().tolist()) == {0.0, 1.0}


def test_a_figure_rests_on_its_smallest_set() -> None:
    scored = drawn(images=40)
    few = replace(scored, sets=(*scored.sets[:3], replace(scored.sets[3], values=scored.sets[3].values[:, :5])))
    found = judge(few, resamples=10)
    bases = {row.set: row.auroc.basis for row in found.rows}
    assert bases == {"a": "one training run", "b": "one training run", "c": "too few test images"}
    assert {mean.auroc.basis for mean in found.means if mean.group == "far"} == {"too few test images"}
    assert {gain.auroc.basis for gain in found.gains if gain.group == "near"} == {"one training run"}


def test_histograms_count_every_image_once() -> None:
    scored = drawn()
    scored.sets[3].values[0, 0, 0] = -1e6  # far outside the edges: counted in the first bin
    for histogram in judge(scored, resamples=5, bins=7).histograms:
        assert len(histogram.edges) == 8
        assert {name: sum(counts) for name, counts in histogram.counts.items()} == dict.fromkeys(("cifar", "a", "b", "c"), 300)


def test_a_mean_over_scores_that_were_not_asked_is_not_reported() -> None:
    found = judge(drawn(scores=("msp", "energy")), resamples=5)
    assert found.mean("ours", "near") is None
    assert found.mean("ours", "near", "msp") is not None
    assert found.gain("ours", "theirs", "near") is None
    assert found.headline() == {}
    with pytest.raises(ConfigError, match="resamples"):
        judge(drawn(), resamples=0)


def test_the_file_holds_tables_and_headline(tmp_path: Path) -> None:
    found = judge(drawn(), resamples=10)
    stored = json.loads(found.save("ood_toy", tmp_path, command="none").read_text())
    assert set(stored["headline"]) == {
        "near_auroc", "near_auroc_gain", "near_auroc_paper", "near_auroc_gain_paper",
        "far_auroc", "far_auroc_gain", "far_auroc_paper", "far_auroc_gain_paper",
    }  # fmt: skip
    assert {row["table"] for row in stored["rows"]} == {"row", "mean", "gain", "histogram"}
    assert stored["headline"]["near_auroc_gain"]["low"] > 0
    assert stored["notes"][0] == "known: cifar, 300 images"
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["auroc"]["basis"] == "one training run"
