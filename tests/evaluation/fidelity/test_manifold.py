"""Precision, recall, density and coverage against plain loops, in any blocks, with memory bound by the block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rediffuse.errors import DataError
from rediffuse.evaluation.fidelity import manifold as room
from rediffuse.evaluation.fidelity.manifold import manifold, squared_distances

GENERATOR = torch.Generator().manual_seed(0)
REAL, MADE = torch.randn(60, 3, generator=GENERATOR), torch.randn(45, 3, generator=GENERATOR) * 0.7 + 0.4


def loops(real: Tensor, made: Tensor, near: int, wide: int) -> tuple[float, float, float, float]:
    a, b = real.double().numpy(), made.double().numpy()

    def radius(points: np.ndarray, row: int, k: int) -> float:
        return sorted(float(np.linalg.norm(points[row] - other)) for place, other in enumerate(points) if place != row)[k - 1]

    def within(x: np.ndarray, centres: np.ndarray, radii: list[float]) -> list[bool]:
        return [float(np.linalg.norm(x - centre)) <= own for centre, own in zip(centres, radii, strict=True)]

    balls, others = [radius(a, row, near) for row in range(len(a))], [radius(b, row, near) for row in range(len(b))]
    wider = [radius(a, row, wide) for row in range(len(a))]
    hits = np.array([within(x, a, wider) for x in b])
    precision = np.mean([any(within(x, a, balls)) for x in b])
    recall = np.mean([any(within(x, b, others)) for x in a])
    return float(precision), float(recall), float(hits.sum() / (wide * len(b))), float(hits.any(0).mean())


@pytest.mark.parametrize("blocks", [(1024, 4096), (7, 11), (45, 1)])
def test_figures_are_those_of_plain_loops_in_any_blocks(monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]) -> None:
    monkeypatch.setattr(room, "ROWS", blocks[0])
    monkeypatch.setattr(room, "COLUMNS", blocks[1])
    for near, wide in ((3, 5), (1, 2)):
        found = manifold(REAL, MADE, neighbours=near, density_neighbours=wide)
        assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(loops(REAL, MADE, near, wide))


def test_a_set_covers_itself_and_nothing_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "COLUMNS", 13)
    own = manifold(REAL, REAL.flip(0))
    assert (own.precision, own.recall, own.coverage) == (1, 1, 1)
    # Each feature lies in its own ball and in those of the features that have it among their k nearest: k + 1 a ball.
    assert own.density == pytest.approx(6 / 5)
    apart = manifold(REAL, MADE + 100)
    assert (apart.precision, apart.recall, apart.density, apart.coverage) == (0, 0, 0, 0)
    numbers = manifold(REAL + 1e3, MADE + 1e3, dtype=torch.float32)
    exact = manifold(REAL, MADE)
    assert numbers.precision == pytest.approx(exact.precision, abs=0.03)  # REAL + 1000 in float32 is rounded already
    assert numbers.coverage == pytest.approx(exact.coverage, abs=0.03)


def test_copies_of_one_image_lie_on_it() -> None:
    copies = torch.cat([REAL[:1]] * 9)
    found = manifold(torch.cat([copies, REAL]), copies, dtype=torch.float32)  # balls of radius 0
    assert found.precision == 1
    assert squared_distances(REAL + 1e3, REAL + 1e3).diagonal().abs().max() == 0


def test_memory_is_bound_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.largest = max(self.largest, out.numel())
            return out

    monkeypatch.setattr(room, "ROWS", 32)
    monkeypatch.setattr(room, "COLUMNS", 64)
    features = torch.randn(300, 4, generator=GENERATOR)
    for count in (150, 300):
        with Watch() as watch:
            manifold(features[:count], features[:count].flip(0))
        assert watch.largest <= 32 * (64 + 6)  # a block beside its nearest; all distances would be 90,000


def test_sets_without_a_manifold_are_refused() -> None:
    with pytest.raises(DataError, match="5 neighbours need more images than that on each side, got 60 and 5"):
        manifold(REAL, MADE[:5])
    with pytest.raises(DataError, match="one extractor"):
        manifold(REAL, MADE[:, :2])
