"""What a training step costs before it is made: operations of classifier and denoiser; and, from its first steps, seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.denoisers.base import Denoiser
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.progress import counted, roughly
from rediffuse.training.classifier import Classifier, evaluating
from rediffuse.training.objectives import Extra, Objective

PASSES = 3
"""A training step costs a network three forward passes: one, and two backward."""
IMAGE_PASSES = 2
"""A call with its gradient in the image, and none in the weights, costs two."""
TIMED = 3
"""Steps whose time is taken for the others', after one that also sets things up."""


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


def step_cost(objective: Objective, classifier: Classifier, size: tuple[int, int], pictures: float = math.inf) -> StepCost:
    """Count a step's operations, from one pass of one picture through each network.

    Args:
        size: (height, width) of the views.
        pictures: those of all steps together; of few, more are made while a bank fills.
    """
    picture = torch.zeros(1, 3, *size, device=classifier.device)
    with evaluating(classifier):
        learned = operations_of(lambda: classifier(picture))
    places: list[tuple[Extra, float]] = [(extra, extra.share) for extra in objective.extras]
    places += [(extra, 1 / (1 + len(objective.stand_ins))) for extra in objective.stand_ins]
    calls = spent = 0.0
    for extra, share in places:
        found = _denoiser_of(extra, share * pictures)
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
    """Floating-point operations of a call, by torch's own counter: products of matrices, attention's among them, and convolutions."""
    # The counter has no formula for the processor's fused attention; as plain products it is counted, and alike on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


class StepClock:
    """A `progress` that says, once the first steps are made, how long one takes and all will.

    While a bank fills, steps take longer: it says so, and times them again once they are as they stay.

    Args:
        tell: called with one sentence.
        batch: pictures a step.
        then: a further `progress`.
        clock: seconds.
        banks: those that the steps fill.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        batch: int,
        then: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        banks: Sequence[Bank] = (),
    ) -> None:
        self._tell, self._batch, self._then, self._clock, self._banks = tell, batch, then, clock, banks
        self._filling: bool | None = None  # when the last step was over
        self._stamps: list[float] = []

    def __call__(self, done: int, total: int) -> None:
        lacking = max([0, *(bank.lacking for bank in self._banks)])
        if (lacking > 0) != self._filling:
            self._filling, self._stamps = lacking > 0, []
        if len(self._stamps) <= TIMED:
            self._stamps.append(self._clock())
            if len(self._stamps) > TIMED and done < total:
                self._say((self._stamps[-1] - self._stamps[0]) / TIMED, total - done, lacking)
        if self._then is not None:
            self._then(done, total)

    def _say(self, each: float, left: int, lacking: int) -> None:
        step = f"A step of {self._batch} photos takes {each:.2g} s"
        if lacking:
            self._tell(f"{step} while the bank fills, which lacks {counted(lacking, 'view')}; those after it take less.")
        else:
            self._tell(f"{step}; the {left:,} that are left about {roughly(each * left)}.")


def _denoiser_of(extra: Extra, pictures: float) -> tuple[Denoiser, float] | None:
    """The denoiser behind a view, and which part of so many pictures goes through it."""
    if isinstance(extra.method, DiffAug):
        return extra.method.denoiser, extra.method.fraction
    if isinstance(extra.method, Bank) and extra.method.method is not None and extra.method.source == "denoised":
        filling = min(1.0, extra.method.lacking / pictures)
        return extra.method.method.denoiser, filling + (1 - filling) * extra.method.rate
    return None
