"""Draws as tables and back; streams of their own; the check at the door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.base import Draw, Method, check_images, plain


@dataclass(frozen=True, eq=False, kw_only=True)
class ShiftDraw(Draw):
    shift: Tensor = field(metadata={"dtype": torch.float32})
    seed: Tensor = field(metadata={"dtype": torch.int64})


class Shift(Method[ShiftDraw]):
    """Brightens by a random amount: the smallest method there is."""

    name = "shift"

    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> ShiftDraw:
        generator = self.generator() if generator is None else generator
        seed = torch.randint(2**62, (batch_size,), generator=generator)
        return ShiftDraw(shift=torch.rand(batch_size, generator=generator), seed=seed)

    def apply(self, images: Tensor, draw: ShiftDraw) -> Tensor:
        return (check_images(images) + draw.shift.view(-1, 1, 1, 1)).clamp(0, 1)


def made(*shifts: float) -> ShiftDraw:
    return ShiftDraw(shift=torch.tensor(shifts), seed=torch.arange(len(shifts)) + 2**53 + 1)


def test_rows_and_back_are_exact():
    draw = made(0.1, 1 / 3, 0.7)
    rows = draw.to_rows()
    assert rows[0] == {"shift": 0.1, "seed": 2**53 + 1}
    back = ShiftDraw.from_rows([{**row, "file_name": "other columns are ignored"} for row in rows])
    assert torch.equal(back.shift, draw.shift)
    assert torch.equal(back.seed, draw.seed)
    assert len(ShiftDraw.from_rows([])) == 0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_plain_numbers_read_back_as_the_same_float32(value: float):
    tensor = torch.tensor([value], dtype=torch.float32)
    assert torch.equal(torch.tensor(plain(tensor), dtype=torch.float32), tensor)


def test_plain_numbers_are_those_that_people_write():
    assert plain(torch.tensor([0.7, 0.1, 0.25])) == [0.7, 0.1, 0.25]
    assert int(50 * plain(torch.tensor([0.7]))[0]) == 35 != int(50 * float(torch.tensor(0.7)))


def test_index_takes_rows_in_order_and_twice():
    draw = made(0.1, 0.2, 0.3)
    assert plain(draw.index([2, 0, 0]).shift) == [0.3, 0.1, 0.1]
    assert plain(draw.index(slice(1, None)).shift) == [0.2, 0.3]
    assert plain(draw.index(torch.tensor([1])).shift) == [0.2]
    assert len(draw.index([])) == 0
    assert plain(draw.index(torch.tensor([False, False, True])).shift) == [0.3]


def test_fields_are_checked():
    with pytest.raises(ConfigError, match=r"seed of ShiftDraw must be a \(B,\) tensor of torch.int64, got torch.float32 \(1,\)"):
        ShiftDraw(shift=torch.zeros(1), seed=torch.zeros(1))
    with pytest.raises(ConfigError, match="one length"):
        ShiftDraw(shift=torch.zeros(1), seed=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="got float"):
        ShiftDraw(shift=0.5, seed=torch.zeros(1, dtype=torch.int64))  # type: ignore[arg-type]


def test_a_stream_is_repeatable_and_its_own():
    before = torch.get_rng_state()
    one, two = Shift().manual_seed(5), Shift().manual_seed(5)
    images = torch.rand((4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    first, second = one(images), one(images)
    assert torch.equal(first, two(images))
    assert not torch.equal(first, second)
    assert not torch.equal(first, Shift()(images))
    assert torch.equal(torch.get_rng_state(), before)


def test_forward_passes_the_rest_through_and_takes_single_images():
    method = Shift().manual_seed(0)
    labels, names = torch.tensor([1, 2]), ["a", "b"]
    views, same, also = method(torch.zeros(2, 3, 2, 2), labels, names)
    assert same is labels
    assert also is names
    assert views.shape == (2, 3, 2, 2)
    boxes = {"boxes": "any"}
    assert method(torch.zeros(2, 3, 2, 2), boxes)[1] is boxes
    view, label = method(torch.zeros(3, 2, 2), 7)
    assert view.shape == (3, 2, 2)
    assert label == 7
    assert method(torch.zeros(3, 2, 2)).shape == (3, 2, 2)


class Zeros(Dataset[Any]):
    def __init__(self, method: Shift) -> None:
        self.method = method

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return self.method(torch.zeros(3, 1, 1))


def test_workers_draw_differently():
    method = Shift().manual_seed(0)
    method(torch.zeros(3, 1, 1))  # the parent's stream has begun
    batches = list(DataLoader(Zeros(method), batch_size=None, num_workers=2, generator=torch.Generator().manual_seed(0)))
    assert len({float(view[0, 0, 0]) for view in batches}) == 8


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 4, 4), r"shape \(B, 3, H, W\)"),
        (torch.zeros(1, 4, 4, 3), "channels come first"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "images.float\\(\\) / 255"),
        (torch.full((1, 3, 4, 4), -0.5), "from -0.5 to -0.5"),
        (torch.full((1, 3, 4, 4), 255.0), "from 255 to 255"),
        (torch.full((1, 3, 4, 4), float("nan")), "from nan to nan"),
        (torch.zeros(1, 3, 4, 6), "multiples of 4 for this model, got 4 x 6; resize to 4 x 8"),
    ],
)
def test_wrong_images_are_named(images: Tensor, words: str):
    with pytest.raises(DataError, match=words):
        check_images(images, 4)


def test_right_images_pass_as_they_are():
    for images in (torch.zeros(0, 3, 4, 4), torch.ones(2, 3, 8, 4), torch.full((1, 3, 4, 4), 1.0005)):
        assert check_images(images, 4) is images
