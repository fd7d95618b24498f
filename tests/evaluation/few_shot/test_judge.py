"""How the probability of a copy is chosen: by photos that were held out of all that is trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.training import toys
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.evaluation.few_shot import judge as judge_module
from rediffuse.evaluation.few_shot.arms import Copies
from rediffuse.evaluation.few_shot.cells import CellStore
from rediffuse.evaluation.few_shot.judge import Judge
from rediffuse.evaluation.few_shot.settings import AUTO_ALPHAS, STANDARD, Cell, CompareSettings
from rediffuse.training.pool import PixelBank, Pool, labels_of

REAL = toys.striped(3, classes=2)
MADE = toys.copies_of(REAL, 2)
TEST = toys.striped(2, classes=2, seed=7, start=100)


def judge(out: Path, kind: type[Judge] = Judge) -> Judge:
    settings = CompareSettings(shots=(3,), arms=(STANDARD,), alpha="auto", size=16)
    store = CellStore(out, 10)
    return kind(REAL, TEST, settings, Copies(REAL, None, settings, store, False), store)


def cell(shots: int = 3) -> Cell:
    return Cell(level="scratch", arm=STANDARD, shots=shots, seed=0)


def chosen(out: Path, right: Callable[[float, int], bool]) -> float:
    """The alpha of a judge that trains nothing, and is right on a fold where `right(alpha, fold)` says so."""
    asked: list[float] = []

    class Stub(Judge):
        def predict(self, cell: Cell, real: ImageSet, made: ImageSet | None, alpha: float, held: ImageSet | None = None) -> list[int]:
            assert held is not None  # test images choose nothing
            asked.append(alpha)
            good = right(alpha, (len(asked) - 1) // len(AUTO_ALPHAS))
            return [label if good else 1 - label for label in labels_of(held).tolist()]

    found = judge(out, Stub).alpha(cell(), REAL, MADE)
    assert asked == [*AUTO_ALPHAS] * 3  # three shots are three folds
    return found


@pytest.mark.parametrize(
    ("right", "best"),
    [
        (lambda alpha, _: alpha == 0.25, 0.25),
        (lambda alpha, fold: alpha == (0.75 if fold == 2 else 0.25), 0.25),  # folds add up, the last does not decide
        (lambda alpha, _: alpha in (0.5, 0.75), 0.5),
        (lambda *_: True, 0.0),
        (lambda *_: False, 0.0),
    ],
)
def test_the_best_alpha_is_chosen_and_the_least_of_equals(tmp_path: Path, right: Callable[[float, int], bool], best: float) -> None:
    assert chosen(tmp_path, right) == best


def test_one_shot_leaves_nothing_to_hold_out(tmp_path: Path) -> None:
    few = REAL.subset([0, 3])
    assert judge(tmp_path).alpha(cell(shots=1), few, MADE) == 0.5


def test_neither_held_out_photos_nor_their_copies_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(pictures: Tensor) -> list[bytes]:
        return [picture.numpy().tobytes() for picture in pictures]

    bank = PixelBank(16)
    photo = dict(zip(keys(bank.of(REAL)), REAL.ids, strict=True)) | dict(zip(keys(bank.of(MADE)), MADE.sources, strict=True))
    every: list[set[str | None]] = []

    def learn(_: object, pool: Pool, **__: object) -> SimpleNamespace:
        rows = [
            *range(len(pool.labels)),
            *(row for own, count in zip(pool.copies, pool.counts, strict=True) for row in own[:count].tolist()),
        ]
        known = [photo[key] for key in keys(pool.items[rows])]
        assert len(known) == 3 * len(set(known))  # each photo, and two copies of it

        def predict(images: Tensor) -> Tensor:
            every.append({photo[key] for key in keys(images)})
            assert not every[-1] & set(known)
            assert every[-1] | set(known) == set(REAL.ids)
            return torch.zeros(len(images), 2)

        return SimpleNamespace(predict=predict)

    monkeypatch.setattr(judge_module, "open_backbone", lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr(judge_module, "fit_network", learn)
    judge(tmp_path).alpha(cell(), REAL, MADE)
    assert len(every) == 3 * len(AUTO_ALPHAS)
    assert set.union(*every) == set(REAL.ids)
