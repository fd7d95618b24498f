"""The arms of the DiffAug experiment: equal pictures, equal views, equal steps; only what a view is differs.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192; the controls noise and linear are this project's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.methods.deepaugment import DeepAugment
from rediffuse.training.backbones import Classifier
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
        bank: whose views it looks at, of `BANKS`; None for none.
        build: from an extra of that bank (None without one) to the objective.
        control: the arm that it is compared with: as many views, without the denoised one.
    """

    name: str
    bank: str | None
    build: Callable[[Extra | None], Objective]
    control: str | None = None


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
        Arm(name=PLAIN, bank=None, build=_sum),
        Arm(name=PLAIN_FLOPS, bank=None, build=_sum, control=PLAIN),
        Arm(name=NOISE, bank=NOISE, build=_sum, control=PLAIN),
        Arm(name=LINEAR, bank=LINEAR, build=_sum, control=NOISE),
        Arm(name=DIFFAUG, bank=DIFFAUG, build=_sum, control=NOISE),
        Arm(name="augmix", bank=None, build=_augmix, control=PLAIN),
        Arm(name="augmix-diffaug", bank=DIFFAUG, build=_augmix, control="augmix"),
        Arm(name="deepaugment", bank=None, build=_deepaugment, control=PLAIN),
        Arm(name="deepaugment-diffaug", bank=DIFFAUG, build=_deepaugment, control="deepaugment"),
    )
}
"""In the order of tables. The gain that counts is that of diffaug over noise."""


def denoiser_of(bank: str, denoiser: Denoiser, images: Tensor) -> Denoiser:
    """What brings a bank's noisy pictures back: the network, a filter fitted to these pictures (N, 3, H, W) uint8, or nothing."""
    if bank == DIFFAUG:
        return denoiser
    if bank == LINEAR:
        return WienerDenoiser.fit(images, denoiser.schedule)
    return NoDenoiser(denoiser.schedule, size=SIZE)


def objective_of(arm: Arm, bank: Bank | None, draws: int) -> Objective:
    """What a step of an arm looks at; bank: filled with `draws` views of each picture."""
    return arm.build(None if bank is None else Extra(method=bank, draws=draws))


def equal_flops(settings: TrainSettings, classifier: Classifier, denoiser: Denoiser, pictures: int, draws: int) -> TrainSettings:
    """Plain training for as many steps as cost what the diffaug arm costs, bank included: the price of all its denoiser calls.

    The bank is shared by arms and seeds; here one training pays for it alone, which is the dearest case.
    """
    cost = step_cost(plain(2), classifier, (SIZE, SIZE))
    step = settings.batch * PASSES * cost.samples * cost.classifier
    bank = pictures * draws * denoiser_operations(denoiser, (SIZE, SIZE))
    return replace(settings, steps=settings.steps + round(bank / step))
