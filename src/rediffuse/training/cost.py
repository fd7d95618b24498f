"""What a training step costs before it is made: operations of classifier and denoiser; and, from its first steps, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.denoisers.base import Denoiser
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.progress import roughly
from rediffuse.training.backbones import Classifier, evaluating
from rediffuse.training.objectives import Extra, Objective

PASSES = 3
"""A training step costs a network three forward passes: one, and two backward."""
TIMED = range(2, 5)
"""Steps whose time is taken for the others': the first of all also sets things up."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Operations of one step for one picture of the batch, one multiply-add as two.

    classifier: floating-point operations of a forward pass; samples: pictures that it learns from; denoiser: operations of all denoiser
    calls; calls: how many there are on average.
    """

    classifier: float
    samples: float
    denoiser: float
    calls: float

    @property
    def ratio(self) -> float:
        """Denoiser to classifier."""
        return self.denoiser / (PASSES * self.samples * self.classifier)

    def line(self) -> str:
        """The cost in a sentence."""
        learned = PASSES * self.samples * self.classifier / 1e9
        own = f"A step costs the classifier {learned:.3g} GFLOP a photo ({self.samples:g} views"
        if not self.calls:
            return f"{own}); there is no denoiser."
        return f"{own}) and the denoiser {self.denoiser / 1e9:.3g} ({self.calls:g} calls): {self.ratio:.2g} denoiser to 1 classifier."


def step_cost(objective: Objective, classifier: Classifier, size: tuple[int, int]) -> StepCost:
    """Count a step's operations, from one pass of one picture through each network. size: (height, width) of the views."""
    picture = torch.zeros(1, 3, *size, device=classifier.device)
    with evaluating(classifier):
        learned = operations_of(lambda: classifier(picture))
    places: list[tuple[Extra, float]] = [(extra, extra.share) for extra in objective.extras]
    places += [(extra, 1 / (1 + len(objective.stand_ins))) for extra in objective.stand_ins]
    calls = spent = 0.0
    for extra, share in places:
        found = _denoiser_of(extra)
        if found is not None:
            denoiser, part = found
            calls += share * part
            spent += share * part * denoiser_operations(denoiser, size)
    return StepCost(classifier=learned, samples=objective.samples, denoiser=spent, calls=calls)


def denoiser_operations(denoiser: Denoiser, size: tuple[int, int]) -> float:
    """Floating-point operations of a denoiser's call on one picture; those of a Fourier transform are not counted."""
    x = torch.zeros(1, denoiser.channels, *size, device=denoiser.device)
    t = torch.zeros(1, dtype=torch.int64, device=denoiser.device)
    return operations_of(lambda: denoiser(x, t))


def operations_of(call: Callable[[], object]) -> float:
    """Floating-point operations of a call, by torch's own counter: products of matrices and convolutions."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())


class StepClock:
    """A `progress` that says, once the first steps are made, how long one takes and all will.

    Args:
        tell: called with one sentence.
        batch: pictures a step.
        then: a further `progress`.
        clock: seconds.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        batch: int,
        then: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tell, self._batch, self._then, self._clock = tell, batch, then, clock
        self._calls = 0
        self._stamps: list[float] = []

    def __call__(self, done: int, total: int) -> None:
        self._calls += 1
        if self._calls <= TIMED.stop - 1:
            self._stamps.append(self._clock())
            if self._calls == min(TIMED.stop - 1, total) and len(self._stamps) > 1:
                each = (self._stamps[-1] - self._stamps[0]) / (len(self._stamps) - 1)
                left = roughly(each * (total - done))
                self._tell(f"A step of {self._batch} photos takes {each:.2g} s; the {total - done:,} that are left about {left}.")
        if self._then is not None:
            self._then(done, total)


def _denoiser_of(extra: Extra) -> tuple[Denoiser, float] | None:
    """The denoiser behind a view, and which part of the pictures goes through it."""
    if isinstance(extra.method, DiffAug):
        return extra.method.denoiser, extra.method.fraction
    if isinstance(extra.method, Bank) and extra.method.method is not None and extra.method.source == "denoised":
        return extra.method.method.denoiser, extra.method.rate
    return None
