"""The timetable without any model: everything once, in order, one variant a slot, few gaps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rediffuse.errors import ConfigError
from rediffuse.sampling.packing import Packing, batch_sizes, pack

lengths_and_batch = st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=120), st.integers(1, 40))


def stratified(count: int, steps: int) -> list[int]:
    """Calls of `count` variants at the strengths 1, .75, .5, .25 in turn."""
    return [max(1, int(steps * strength)) for strength in (1.0, 0.75, 0.5, 0.25)] * (count // 4)


@settings(max_examples=200, deadline=None)
@given(lengths_and_batch)
def test_every_step_once_and_in_order(case: tuple[list[int], int]) -> None:
    lengths, batch = case
    packing = pack(lengths, batch)
    assert len(packing.table) == sum(lengths)
    for variant, length in enumerate(lengths):
        rows = packing.table[packing.table[:, 2] == variant]
        assert rows[:, 3].tolist() == list(range(length))
        assert (np.diff(rows[:, 0]) == 1).all()  # once begun, it takes part in every call


@settings(max_examples=200, deadline=None)
@given(lengths_and_batch)
def test_slots(case: tuple[list[int], int]) -> None:
    lengths, batch = case
    packing = pack(lengths, batch)
    places = packing.table[:, :2]
    assert len(np.unique(places, axis=0)) == len(places)  # never two variants in one slot in a call
    assert (packing.table[:, 1] < packing.sizes[packing.table[:, 0]]).all()
    assert set(packing.sizes.tolist()) <= set(batch_sizes(batch))
    assert all(later <= earlier for earlier, later in pairwise(packing.sizes.tolist()))
    busy = np.bincount(packing.table[:, 0], minlength=len(packing))
    assert (busy >= 1).all()
    assert packing.slot_use == pytest.approx(sum(lengths) / packing.sizes.sum())
    moves = [
        (row[1] != before[1], packing.sizes[row[0]] < packing.sizes[before[0]])
        for variant in range(len(lengths))
        for before, row in pairwise(packing.table[packing.table[:, 2] == variant])
    ]
    assert all(shrunk for moved, shrunk in moves if moved)  # a variant stays in its slot but where the batch shrinks


@settings(max_examples=100, deadline=None)
@given(lengths_and_batch)
def test_a_slot_never_waits_while_a_variant_does(case: tuple[list[int], int]) -> None:
    lengths, batch = case
    packing = pack(lengths, batch)
    first_call = {int(variant): int(call) for call, _, variant, step in packing.table if step == 0}
    busy = np.bincount(packing.table[:, 0], minlength=len(packing))
    last_start = max(first_call.values())
    assert (busy[:last_start] == packing.sizes[:last_start]).all()
    started = [lengths[variant] for variant in sorted(first_call, key=lambda v: (first_call[v], v))]
    calls = sorted(first_call.values())
    assert all(
        early >= late for (early, late), (one, two) in zip(pairwise(started), pairwise(calls), strict=True) if one != two
    )  # longest first


@settings(max_examples=100, deadline=None)
@given(lengths_and_batch, st.randoms(use_true_random=False))
def test_a_function_of_its_arguments(case: tuple[list[int], int], chance: Any) -> None:
    lengths, batch = case
    once, again = pack(lengths, batch), pack(np.array(lengths), batch)  # type: ignore[arg-type]
    assert np.array_equal(once.table, again.table)
    assert np.array_equal(once.sizes, again.sizes)
    shuffled = list(lengths)
    chance.shuffle(shuffled)
    other = pack(shuffled, batch)  # the same work in another order costs the same
    assert np.array_equal(once.sizes, other.sizes)
    assert np.array_equal(once.table[:, [0, 1, 3]], other.table[:, [0, 1, 3]])


@pytest.mark.parametrize("steps", [20, 25, 50])
@pytest.mark.parametrize("batch", [4, 8, 16, 20, 32, 64])
def test_strengths_of_four_quarters_share_full_batches(steps: int, batch: int) -> None:
    """Two full batches or more, and 40 variants or more: at least .95 of what is paid for is used."""
    for multiple in (2, 3, 4, 8, 10):
        count = multiple * batch  # a multiple of 4, as stratified variants are
        if count >= 40:
            assert pack(stratified(count, steps), batch).slot_use >= 0.95


def test_plan_order_would_waste_a_third() -> None:
    """What packing is for: the same 40 variants in chunks of 20 as they come, each as long as its longest."""
    lengths = stratified(40, 25)
    chunks = [lengths[start : start + 20] for start in range(0, 40, 20)]
    assert sum(lengths) / sum(20 * max(chunk) for chunk in chunks) < 0.65
    assert pack(lengths, 20).slot_use > 0.97


def test_few_variants_run_in_a_smaller_batch() -> None:
    assert set(pack([5] * 3, 32).sizes.tolist()) == {4}  # not 29 empty slots
    assert pack([5] * 3, 1).sizes.tolist() == [1] * 15
    forty = pack(stratified(40, 25), 32)
    assert forty.slot_use > 0.95


def test_tails_shrink_through_fixed_sizes() -> None:
    assert batch_sizes(1) == (1,)
    assert batch_sizes(20) == (20, 16, 8, 4, 2, 1)
    assert batch_sizes(32) == (32, 16, 8, 4, 2, 1)
    packing = pack([40, 30, 20, 10, 5, 4, 3, 2], 8)
    assert packing.sizes.max() <= 8
    assert packing.sizes[-1] == 1


def test_grid_is_the_table_by_slot() -> None:
    packing = pack([3, 1, 2], 2)
    assert packing.grid(2).shape == (len(packing), 2)
    rebuilt = [
        (call, slot, int(packing.grid(2)[call, slot]), int(packing.grid(3)[call, slot]))
        for call in range(len(packing))
        for slot in range(2)
        if packing.grid(2)[call, slot] >= 0
    ]
    assert rebuilt == [tuple(row) for row in packing.table.tolist()]


def test_nothing_to_pack() -> None:
    packing = pack([], 8)
    assert isinstance(packing, Packing)
    assert (len(packing), packing.slot_use, packing.table.shape) == (0, 1.0, (0, 4))


@pytest.mark.parametrize(
    ("lengths", "batch", "message"),
    [
        ([1], 0, "batch must be a whole number of at least 1, got 0"),
        ([1], 2.5, "got 2.5"),
        ([3, 0, 2], 4, "every variant needs at least 1 call, got 0 for variant 1"),
    ],
)
def test_refusals(lengths: list[int], batch: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pack(lengths, batch)
