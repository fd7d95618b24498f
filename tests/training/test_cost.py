"""Operations against counts by hand; the clock against a clock that is made up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.training.classifier import Classifier
from rediffuse.training.cost import StepClock, operations_of, step_cost
from rediffuse.training.objectives import Extra, Objective, plain
from rediffuse.training.preprocessing import Preprocessing

LEARNED = 2 * 8 * 8 * 3 * 5 * 9 + 2 * 5 * 4
"""One 3x3 convolution from 3 to 5 channels on 8x8 places, and a linear layer from 5 to 4; a multiply-add is two."""
DENOISED = 2 * 8 * 8 * 3 * 3 * 9


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, pixel_values: Tensor) -> object:
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.head(self.convolution(pixel_values).mean((2, 3))))


class Filter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        found: Tensor = self.out(x)
        return found


def classifier() -> Classifier:
    return Classifier(Net(), Preprocessing(height=8, width=8), "abcd")


def diffaug(fraction: float = 1.0) -> DiffAug:
    return DiffAug(PixelDenoiser(Filter(), NoiseSchedule.from_betas(linear_betas()), head="out", size=8), fraction=fraction)


@pytest.mark.parametrize(
    ("objective", "samples", "calls"),
    [
        (plain(), 1, 0),
        (plain(3), 3, 0),
        (Objective(extras=(Extra(method=diffaug()),)), 2, 1),
        (Objective(extras=(Extra(method=diffaug(0.5), share=0.4),)), 1.4, 0.2),
        (Objective(extras=(Extra(method=Bank(diffaug(), rate=0.25)),)), 2, 0.25),
        (Objective(extras=(Extra(method=Bank(diffaug(), source="original")),)), 2, 0),
        (Objective(stand_ins=(Extra(method=diffaug()),), augmix=AugMix()), 3, 0.5),
    ],
)
def test_operations_are_those_counted_by_hand(objective: Objective, samples: float, calls: float) -> None:
    cost = step_cost(objective, classifier(), (8, 8))
    assert cost.classifier == LEARNED
    assert cost.samples == pytest.approx(samples)
    assert cost.calls == pytest.approx(calls)
    assert cost.denoiser == pytest.approx(calls * DENOISED)
    assert cost.ratio == pytest.approx(calls * DENOISED / (3 * samples * LEARNED))
    assert ("no denoiser" in cost.line()) == (calls == 0)


def test_products_of_attention_are_counted() -> None:
    """4 places of 8 numbers in 2 heads: four projections, and for each head the scores and the mean of the values."""
    layer = nn.Linear(16, 32, bias=False)
    assert operations_of(lambda: layer(torch.zeros(4, 16))) == 2 * 4 * 16 * 32
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    x = torch.zeros(1, 4, 8)
    products = 2 * (2 * 2 * 4 * 4 * 4)
    assert operations_of(lambda: attention(x, x, x)) == 2 * 4 * 8 * 32 + products
    query = torch.zeros(1, 2, 4, 4)  # as the networks of transformers call it
    assert operations_of(lambda: nn.functional.scaled_dot_product_attention(query, query, query)) == products


def test_counting_changes_nothing() -> None:
    net = classifier().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step_cost(Objective(extras=(Extra(method=diffaug()),)), net, (8, 8))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_clock_leaves_the_first_step_out_and_speaks_once() -> None:
    said: list[str] = []
    passed: list[int] = []
    now = iter([100.0, 100.5, 101.0, 101.5, 102.0, 102.5])
    clock = StepClock(said.append, 64, lambda done, _: passed.append(done), clock=lambda: next(now))
    for done in range(201, 207):  # a training that goes on at its 200th step
        clock(done, 400)
    assert said == ["A step of 64 photos takes 0.5 s; the 196 that are left about 2 min."]
    assert passed == list(range(201, 207))


def test_nothing_is_said_of_no_steps() -> None:
    said: list[str] = []
    clock = StepClock(said.append, 64)
    for done in range(1, 5):
        clock(done, 4)
    assert said == []


def test_the_clock_times_again_once_the_bank_is_full() -> None:
    """64 pictures of warm-up, 8 a step: eight long steps, then short ones."""
    said: list[str] = []
    now = [0.0]
    bank = Bank(diffaug(), rate=0.25, capacity=64)
    clock = StepClock(said.append, 8, clock=lambda: now[0], banks=[bank])
    for done in range(1, 21):
        now[0] += 2.0 if bank.lacking else 0.5
        bank(torch.rand(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64))
        clock(done, 40)
    assert said == [
        "A step of 8 photos takes 2 s while the bank fills, which lacks 32 views; those after it take less.",
        "A step of 8 photos takes 0.5 s; the 29 that are left about 14 s.",
    ]


@pytest.mark.parametrize(("pictures", "calls"), [(50, 1.0), (100, 1.0), (200, 0.5 + 0.5 * 0.1), (100_000, 0.1009)])
def test_few_pictures_are_all_denoised_while_the_bank_fills(pictures: int, calls: float) -> None:
    bank = Bank(diffaug(), rate=0.1, warmup=100)
    cost = step_cost(Objective(extras=(Extra(method=bank),)), classifier(), (8, 8), pictures)
    assert cost.calls == pytest.approx(calls)
    assert cost.denoiser == pytest.approx(calls * DENOISED)
