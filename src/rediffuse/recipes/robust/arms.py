"""The arms of the DiffAug experiment: an arm and its controls have equal pictures, views and steps; only what a view is differs.

AugMix and DeepAugment look at more views than plain and are controls of their own; plain-flops takes more steps.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192; the controls noise and linear are this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.methods.deepaugment import DeepAugment
from rediffuse.methods.diffaug import DiffAug
from rediffuse.training.classifier import Classifier
from rediffuse.training.cost import PASSES, denoiser_operations, step_cost
from rediffuse.training.objectives import Extra, Objective, augmix, deepaugment, plain
from rediffuse.training.presets import usual_severity
from rediffuse.training.settings import TrainSettings

NOISE, LINEAR, DIFFAUG = "noise", "linear", "diffaug"
BANKS = (NOISE, LINEAR, DIFFAUG)
"""Views that are made once, with the same times and the same noise, and shared by arms and seeds."""
PLAIN, PLAIN_FLOPS = "plain", "plain-flops"
SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training.

    Args:
        name: in tables.
        bank: whose shared views it looks at, of `BANKS`; None for none.
        online: from (denoiser, seed) to views that are made in training, in the place of a shared bank.
        build: from an extra of that bank (None without one) to the objective.
        against: the arms that it is compared with: first its own control, which lacks the denoiser alone where the table says no other.
    """

    name: str
    build: Callable[[Extra | None], Objective]
    bank: str | None = None
    against: tuple[str, ...] = ()
    online: Callable[[Denoiser, int], Extra] | None = None


def _clean() -> Extra:
    return Extra(source="independent")


def _with(extra: Extra | None) -> Extra:
    return _clean() if extra is None else extra


def _augmix(extra: Extra | None) -> Objective:
    return augmix(AugMix(usual_severity(SIZE)), _with(extra))


def _deepaugment(extra: Extra | None) -> Objective:
    return deepaugment([Extra(method=DeepAugment(), source="independent")], _with(extra))


def _sum(extra: Extra | None) -> Objective:
    return plain(2) if extra is None else Objective(extras=(extra,))


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name=PLAIN, build=_sum),
        Arm(name=PLAIN_FLOPS, build=_sum, against=(PLAIN,)),
        Arm(name=NOISE, bank=NOISE, build=_sum, against=(PLAIN,)),
        Arm(name=LINEAR, bank=LINEAR, build=_sum, against=(NOISE, PLAIN)),
        Arm(name=DIFFAUG, bank=DIFFAUG, build=_sum, against=(NOISE, LINEAR, PLAIN, PLAIN_FLOPS)),
        Arm(name="augmix", build=_augmix),
        Arm(name="augmix-diffaug", bank=DIFFAUG, build=_augmix, against=("augmix",)),
        Arm(name="deepaugment", build=_deepaugment),
        Arm(name="deepaugment-diffaug", bank=DIFFAUG, build=_deepaugment, against=("deepaugment",)),
    )
}
"""In the order of tables. Noise of this law helps under noise and hurts elsewhere, and a Wiener filter already mends that: what counts for
diffaug is its smallest gain, over noise, filter and plain. AugMix and DeepAugment see more views than plain, and are
controls themselves."""


def _fresh(share: float) -> Callable[[Denoiser, int], Extra]:
    return lambda denoiser, seed: Extra(method=DiffAug(denoiser), source="independent", share=share)


def _banked(rate: float, source: Literal["denoised", "original"] = "denoised", share: float = 1.0) -> Callable[[Denoiser, int], Extra]:
    return lambda denoiser, seed: Extra(method=Bank(DiffAug(denoiser), rate, source=source, seed=seed), share=share)


def _quarter(extra: Extra | None) -> Objective:
    return plain(2) if extra is None else Objective(extras=(replace(extra, share=0.25),))


FULL, REPEATED, REPEATED_QUARTER = "full", "repeated", "repeated-5-quarter"
CONTROLS = (REPEATED, PLAIN)
CHEAPER: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        ARMS[PLAIN],
        Arm(name=REPEATED, build=_sum, online=_banked(0.1, "original"), against=(PLAIN,)),
        Arm(name=REPEATED_QUARTER, build=_sum, online=_banked(0.05, "original", share=0.25), against=(PLAIN,)),
        Arm(name=FULL, build=_sum, online=_fresh(1.0), against=(PLAIN, REPEATED)),
        Arm(name="quarter", build=_sum, online=_fresh(0.25), against=(PLAIN, REPEATED)),
        Arm(name="bank-25", build=_sum, online=_banked(0.25), against=CONTROLS),
        Arm(name="bank-10", build=_sum, online=_banked(0.1), against=CONTROLS),
        Arm(name="bank-5", build=_sum, online=_banked(0.05), against=CONTROLS),
        Arm(name="bank-5-quarter", build=_sum, online=_banked(0.05, share=0.25), against=(REPEATED_QUARTER, *CONTROLS)),
        replace(ARMS[DIFFAUG], against=CONTROLS),
        Arm(name=f"{DIFFAUG}-quarter", build=_quarter, bank=DIFFAUG, against=CONTROLS),
    )
}
"""Ways to pay less for DiffAug; `diffaug` is that of a bank which was made before, and with plain the cell of the other experiment, where
both share a store. Every view but its own starts from a crop of its own, as a bank's do. Each is held first against its own control. Of
full and quarter, which repeat nothing, that is two clean views a picture; of bank-10 two of which the second comes from a bank of re-crops
that no denoiser has seen, at the same rate; of bank-5-quarter such a bank of its own rate and share: these lack the denoiser alone, but for
quarter, which looks at 1.25 views. The other banks are held against bank-10's control, and differ from it in rate or share too."""


def denoiser_of(bank: str, denoiser: Denoiser, images: Tensor) -> Denoiser:
    """What brings a bank's noisy pictures back: the network, a filter fitted to these pictures (N, 3, H, W) uint8, or nothing."""
    if bank == DIFFAUG:
        return denoiser
    if bank == LINEAR:
        return WienerDenoiser.fit(images, denoiser.schedule).to(denoiser.device)
    return NoDenoiser(denoiser.schedule, size=SIZE).to(denoiser.device)


def equal_flops(settings: TrainSettings, classifier: Classifier, denoiser: Denoiser, pictures: int, draws: int) -> TrainSettings:
    """Plain training for as many steps as cost what the diffaug arm costs, bank included: the price of all its denoiser calls.

    The bank is shared by arms and seeds; here one training pays for it alone, which is the dearest case.
    """
    cost = step_cost(plain(2), classifier, (SIZE, SIZE))
    step = settings.batch * PASSES * cost.samples * cost.classifier
    bank = pictures * draws * denoiser_operations(denoiser, (SIZE, SIZE))
    return replace(settings, steps=settings.steps + round(bank / step))
