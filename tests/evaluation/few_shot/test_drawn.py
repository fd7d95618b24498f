"""What of a folder is drawn, whatever part of it was asked for last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rediffuse.evaluation.few_shot.cells import CellResult, CellStore, Stage
from rediffuse.evaluation.few_shot.drawn import Drawn, choose_drawn, stages_of
from rediffuse.evaluation.few_shot.settings import CompareSettings

SCRATCH, FORTY = ("scratch", "scratch"), ("forty", "/features")


def settings(**changes: Any) -> CompareSettings:
    usual = {"seeds": (0, 1, 2, 3), "shots": (1, 2), "arms": ("standard", "da-fusion"), "levels": (SCRATCH,)}
    return CompareSettings(**{**usual, **changes})


def finish(store: CellStore, asked: CompareSettings) -> None:
    for cell in asked.cells():
        store.write(CellResult(cell=cell, predictions=(0,), accuracy=1.0, top1=1.0, alpha=0.0, real=1, synthetic=0, seconds=1.0))


def plan(*calls: CompareSettings) -> dict[str, Any]:
    """As `CellStore.claim` leaves it: the values of all calls, levels with a hash."""
    found: dict[str, Any] = {
        name: list(dict.fromkeys(v for call in calls for v in getattr(call, name))) for name in ("seeds", "shots", "arms")
    }
    return {**found, "levels": list({name: [name, f"hash of {name}"] for call in calls for name, _ in call.levels}.values())}


def draw(tmp_path: Path, asked: CompareSettings, *before: CompareSettings, makes: bool = True) -> Drawn:
    store = CellStore(tmp_path, 1)
    for call in (*before, asked):
        finish(store, call)
    return choose_drawn(asked, plan(*before, asked), store, makes=makes)


def test_what_was_asked_for_alone_is_drawn_without_a_word(tmp_path: Path) -> None:
    asked = settings(seeds=(3, 1), arms=("da-fusion", "standard"))
    assert draw(tmp_path, asked) == Drawn(settings=asked, notes=())
    assert choose_drawn(asked, None, CellStore(tmp_path / "new", 1), makes=True) == Drawn(settings=asked, notes=())


def test_asked_for_fewer_all_is_drawn_all_the_same(tmp_path: Path) -> None:
    full = settings(arms=("standard", "real-guidance", "da-fusion"), levels=(SCRATCH, FORTY))
    found = draw(tmp_path, settings(seeds=(0, 1), shots=(1,)), full)
    own = found.settings
    assert (own.seeds, own.shots, own.arms) == (full.seeds, full.shots, full.arms)
    assert [name for name, _ in own.levels] == ["scratch", "forty"]
    said = "seeds 0, 1, 2, 3; shots 1, 2; arms standard, real-guidance, da-fusion; levels scratch, forty"
    assert found.notes == (f"The folder held more of this comparison, which is drawn too: {said}.",)


def test_what_would_bring_missing_cells_is_named_and_not_drawn(tmp_path: Path) -> None:
    found = draw(tmp_path, settings(seeds=(0, 1), shots=(1, 4)), settings())
    assert (found.settings.seeds, found.settings.shots) == ((0, 1), (1, 2, 4))
    assert found.notes == (
        "The folder held more of this comparison, which is drawn too: shots 1, 2, 4.",
        "8 finished cells of the folder are not drawn, for want of others; ask for all at once to see them: seeds 0, 1, 2, 3.",
    )
    # The first call again draws what it drew before.
    again = choose_drawn(settings(), plan(settings(), settings(shots=(1, 4))), CellStore(tmp_path, 1), makes=True)
    assert again.settings == settings()
    assert again.notes[0].startswith("4 finished cells of the folder are not drawn")


def test_arms_of_a_model_that_was_not_given_are_named_and_not_drawn(tmp_path: Path) -> None:
    found = draw(tmp_path, settings(arms=("standard",), seeds=(0,)), settings(), makes=False)
    assert (found.settings.arms, found.settings.seeds) == (("standard",), (0, 1, 2, 3))
    assert "8 finished cells of the folder are not drawn" in found.notes[1]
    assert "arms standard, da-fusion" in found.notes[1]


@pytest.mark.parametrize(
    ("shots", "counted"),
    [
        ((1, 2, 4), {("da-fusion", 1), ("da-fusion", 2), ("da-fusion", 4), ("real-guidance", 2), ("real-guidance", 4)}),
        ((1, 2), {("da-fusion", 1), ("da-fusion", 2), ("real-guidance", 2)}),
        ((1,), {("da-fusion", 1), ("real-guidance", 2)}),  # its copies were made for two shots
    ],
)
def test_the_work_of_what_is_drawn_is_counted(shots: tuple[int, ...], counted: set[tuple[str, int]]) -> None:
    made = [("da-fusion", 1), ("da-fusion", 2), ("da-fusion", 4), ("real-guidance", 2), ("real-guidance", 4)]
    stages = [Stage(name="generate", arm=arm, shots=n, seed=seed, seconds=1.0, images=n) for arm, n in made for seed in (0, 1)]
    found = stages_of(stages, settings(seeds=(1,), shots=shots, arms=("standard", "real-guidance", "da-fusion")))
    assert {(stage.arm, stage.shots) for stage in found} == counted
    assert {stage.seed for stage in found} == {1}
