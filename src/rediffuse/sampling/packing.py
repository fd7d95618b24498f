"""Which slot of which denoiser call runs which step of which variant: a pure function of lengths and batch size.

Variants of unequal length (strengths .25 to 1) share full batches: a slot that has finished one variant takes the next. No model, no
numerics: a plan can be priced and tested before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError


@dataclass(frozen=True, eq=False, kw_only=True)
class Packing:
    """A timetable.

    Attributes:
        batch: slots of a full call.
        sizes: (calls,) int64, slots that each call runs; it never grows, and takes few values (`batch_sizes`).
        table: (entries, 4) int64, one row a useful slot-call, sorted by call and slot: call, slot, variant, step.
    """

    batch: int
    sizes: NDArray[np.int64]
    table: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of denoiser calls."""
        return len(self.sizes)

    @property
    def slot_use(self) -> float:
        """Useful slot-calls as a share of all that are paid for; 1 if there is nothing to do."""
        return len(self.table) / int(self.sizes.sum()) if len(self) else 1.0

    def grid(self, column: int) -> NDArray[np.int64]:
        """(calls, batch): `column` of the table (2 variant, 3 step) by call and slot, -1 where a slot is empty."""
        dense = np.full((len(self), self.batch), -1, dtype=np.int64)
        dense[self.table[:, 0], self.table[:, 1]] = self.table[:, column]
        return dense


def pack(lengths: Sequence[int], batch: int) -> Packing:
    """Pack variants of these lengths into calls of at most `batch` slots.

    Longest first (Graham's rule for parallel machines; equal lengths in the order given); a freed slot is refilled at once and a variant
    stays in its slot. When none waits, the batch shrinks as variants finish, through the sizes of `batch_sizes` alone, so that a
    compiled or tuned model meets few shapes; at each shrink the variants move up to the first slots, in order. Few variants are also
    tried in half and a quarter of the slots: 40 of mixed length in 32 slots leave a long tail, in 16 they pack without a gap.

    Args:
        lengths: (variants,) denoiser calls that each needs, at least 1.
        batch: slots of a full call, at least 1.
    Returns: every (variant, step) exactly once, steps in order in consecutive calls.
    Raises: ConfigError.
    """
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
        raise ConfigError(f"batch must be a whole number of at least 1, got {batch!r}")
    wanted = np.asarray(lengths, dtype=np.int64).reshape(-1)
    if len(wanted) and wanted.min() < 1:
        raise ConfigError(f"every variant needs at least 1 call, got {wanted.min()} for variant {wanted.argmin()}")
    widths = [size for size in batch_sizes(int(batch)) if 4 * size >= batch] if len(wanted) < 4 * batch else [int(batch)]
    return min((_fill(wanted, int(batch), width) for width in widths), key=_cost)


def batch_sizes(batch: int) -> tuple[int, ...]:
    """The sizes that a call may have, falling: the full batch and the powers of two below it."""
    return (batch, *(1 << power for power in reversed(range((batch - 1).bit_length()))))


def _cost(packing: Packing) -> float:
    """In slots: a call is taken to cost a sixteenth of a full batch besides its own slots (launches, weights that are read)."""
    return float(packing.sizes.sum()) + len(packing) * packing.batch / 16


def _fill(wanted: NDArray[np.int64], batch: int, width: int) -> Packing:
    """Longest first into `width` slots."""
    queue = np.argsort(-wanted, kind="stable")
    ladder = np.array([size for size in reversed(batch_sizes(batch)) if size <= width])
    variant = np.full(width, -1, dtype=np.int64)
    step = np.zeros(width, dtype=np.int64)
    size, waiting = width, 0
    calls, sizes = [np.empty((0, 4), dtype=np.int64)], list[int]()
    while waiting < len(queue) or (variant >= 0).any():
        free = np.flatnonzero(variant < 0)[: len(queue) - waiting]
        variant[free], step[free] = queue[waiting : waiting + len(free)], 0
        waiting += len(free)
        fitting = int(ladder[np.searchsorted(ladder, (variant >= 0).sum())])
        if fitting < size:
            size = fitting
            order = np.argsort(variant < 0, kind="stable")
            variant, step = variant[order], step[order]
        busy = np.flatnonzero(variant >= 0)
        calls.append(np.stack([np.full(len(busy), len(sizes)), busy, variant[busy], step[busy]], axis=1))
        sizes.append(size)
        step[busy] += 1
        variant[busy[step[busy] == wanted[variant[busy]]]] = -1
    return Packing(batch=batch, sizes=np.array(sizes, dtype=np.int64), table=np.concatenate(calls))
