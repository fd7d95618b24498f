"""A solver is a table of numbers; a job is one image's way through such a table.

Every solver here is linear in what it has seen, so one row of coefficients says everything about a step:

    x  <-  row.x * x + row.saved * x_saved + sum_k row.history[k] * h[k] + row.noise * z

h[k] is the k-th newest remembered belief of the denoiser (as x0_hat or as noise). Slots of one batch may stand at different
rows of different tables: that is what lets strengths .25 to 1 share full batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rediffuse.denoisers.base import Condition


@dataclass(frozen=True, eq=False, kw_only=True)
class StepTable:
    """The calls of one trajectory, first to last; n calls, a memory of m beliefs. Coefficients in float64, cast to float32 in use.

    Attributes:
        start: index t of the level to which the source is noised; None when the trajectory starts from pure noise at level t[0].
        t: (n,) int64, the index handed to the denoiser at each call.
        remembers: whether the memory holds x0_hat ("x0") or the implied noise ("noise").
        x, saved, noise: (n,) coefficients of the current x, of the saved x and of fresh noise.
        history: (n, m) coefficients of the remembered beliefs, newest (this call's own) first.
        push: (n,) bool, whether this call's belief stays in memory for later calls.
        save: (n,) bool, whether the x before this call becomes x_saved; the same row reads it already.
    """

    start: int | None
    t: Tensor
    remembers: Literal["x0", "noise"]
    x: Tensor
    saved: Tensor
    noise: Tensor
    history: Tensor
    push: Tensor
    save: Tensor

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplingJob:
    """One image to be sampled.

    Attributes:
        source: (C, H, W) encoded source in the denoiser's space; for a job from noise without a mask only its shape counts.
        table: the steps to take; its length is the number of denoiser calls.
        condition: one row, or None for unconditional denoisers.
        seed: non-negative int64; the start noise and the noise of every step are a function of it alone.
        mask: (1, H, W) in [0, 1] at the resolution of x, 1 where the image may change; None changes all.
    """

    source: Tensor
    table: StepTable
    condition: Condition | None
    seed: int
    mask: Tensor | None = None
