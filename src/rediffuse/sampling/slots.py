"""What the slots of a batch hold on the device, and the one step that all of them take together.

Everything that differs between slots is a row of numbers; a step gathers the rows and is the same few operations for every solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.sampling.table import StepTable


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """The rows of several tables under each other, then one for empty slots, whose numbers are all 0. Each (R,), history (R, m); float32.

    Attributes:
        belief_x, belief_x0: what is remembered is belief_x * x + belief_x0 * x0_hat, so that x0_hat and noise need no branch.
        next_alpha, next_sigma: the level of the next call (1 and 0 after the last), to which a masked source is noised.
        t, x, saved, noise, history, push, save: as in StepTable.
    """

    t: Tensor
    belief_x: Tensor
    belief_x0: Tensor
    x: Tensor
    saved: Tensor
    noise: Tensor
    history: Tensor
    push: Tensor
    save: Tensor
    next_alpha: Tensor
    next_sigma: Tensor

    @classmethod
    def stack(cls, tables: Sequence[StepTable], schedule: NoiseSchedule) -> Self:
        """All tables, on the CPU; shorter memories are filled up with zeros."""
        memory = max(table.history.shape[1] for table in tables)
        parts = [_of_table(table, memory, schedule) for table in tables]
        nothing = {name: torch.zeros_like(value[:1]) for name, value in parts[0].items()} | {"push": torch.ones(1, dtype=torch.bool)}
        joined = {name: torch.cat([part[name] for part in (*parts, nothing)]) for name in nothing}
        return cls(**{name: value.float() if value.is_floating_point() else value for name, value in joined.items()})

    def to(self, device: torch.device) -> Self:
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def index(self, rows: Tensor) -> Self:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def _of_table(table: StepTable, memory: int, schedule: NoiseSchedule) -> dict[str, Tensor]:
    alpha, sigma = (level.double().cpu()[table.t] for level in (schedule.alpha, schedule.sigma))
    as_noise = table.remembers == "noise"  # (x - alpha x0_hat) / sigma
    return {
        "t": table.t,
        "belief_x": 1 / sigma if as_noise else torch.zeros_like(sigma),
        "belief_x0": -alpha / sigma if as_noise else torch.ones_like(sigma),
        "x": table.x,
        "saved": table.saved,
        "noise": table.noise,
        "history": torch.nn.functional.pad(table.history, (0, memory - table.history.shape[1])),
        "push": table.push,
        "save": table.save,
        "next_alpha": torch.cat([alpha[1:], alpha.new_ones(1)]),
        "next_sigma": torch.cat([sigma[1:], sigma.new_zeros(1)]),
    }


class Slots:
    """The state of a batch, all float32: x (B, C, H, W), and only where a table or a job needs them earlier beliefs, saved x, source,
    start noise, mask."""

    def __init__(self, size: int, shape: Sequence[int], tables: Sequence[StepTable], masked: bool, device: torch.device) -> None:
        def zeros() -> Tensor:
            return torch.zeros(size, *shape, device=device)

        self.x = zeros()
        self.past = [zeros() for _ in range(max(table.history.shape[1] for table in tables) - 1)]  # newest first
        self.saved = zeros() if any(bool(table.save.any()) for table in tables) else None
        self.source = zeros() if masked else None
        self.start_noise = zeros() if masked else None
        self.mask = torch.ones(size, 1, *shape[1:], device=device) if masked else None

    def move(self, order: Tensor) -> None:
        """Slot i becomes what slot order[i] was; there are as many slots as `order` has entries."""
        self.past = [belief[order] for belief in self.past]
        for name in ("x", "saved", "source", "start_noise", "mask"):
            value: Tensor | None = getattr(self, name)
            setattr(self, name, None if value is None else value[order])

    def enter(self, slots: Tensor, x: Tensor, source: Tensor, noise: Tensor, mask: Tensor | None) -> None:
        """New occupants (n, C, H, W) of `slots` (n,). Nothing of the old ones stays: 0 times a NaN would still be a NaN."""
        self.x[slots] = x
        for kept in (*self.past, *([] if self.saved is None else [self.saved])):
            kept[slots] = 0
        if self.mask is not None and self.source is not None and self.start_noise is not None and mask is not None:
            self.source[slots], self.start_noise[slots], self.mask[slots] = source, noise, mask

    def step(self, row: Rows, x0_hat: Tensor, noise: Tensor | None, *, all_push: bool) -> None:
        """x <- row.x x + row.saved x_saved + sum_k row.history[k] h[k] + row.noise noise, then the mask.

        Args: row: one row a slot; noise: None if no row adds any; all_push: whether every row pushes, known without asking the device.
        """
        x = self.x
        belief = _wide(row.belief_x) * x + _wide(row.belief_x0) * x0_hat
        new = _wide(row.x) * x
        beliefs = [belief, *self.past]
        for k, remembered in enumerate(beliefs):
            new = new + _wide(row.history[:, k]) * remembered
        if self.saved is not None:
            self.saved = torch.where(_wide(row.save), x, self.saved)
            new = new + _wide(row.saved) * self.saved
        if noise is not None:
            new = new + _wide(row.noise) * noise
        if self.mask is not None and self.source is not None and self.start_noise is not None:
            outside = _wide(row.next_alpha) * self.source + _wide(row.next_sigma) * self.start_noise
            new = torch.lerp(outside, new, self.mask)  # exact at 0 and at 1
        if all_push:
            self.past = beliefs[:-1]
        else:
            self.past = [torch.where(_wide(row.push), newer, older) for newer, older in zip(beliefs, self.past, strict=False)]
        self.x = new


def _wide(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)
