"""Crops against slicing by hand, and their law."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from rediffuse.methods.crops import CropDraw, crop, draw_crops


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("padding", "height", "width"), [(0, 4, 6), (2, 5, 5), (4, 8, 6)])
def test_a_crop_is_a_slice_of_the_padded_picture(dtype: torch.dtype, padding: int, height: int, width: int):
    images = torch.randint(256, (20, 3, height, width), generator=stream()).to(dtype)
    draw = draw_crops(20, padding, True, stream(1))
    found = crop(images, draw, padding)
    assert found.dtype is dtype
    for row, (image, made) in enumerate(zip(images, found, strict=True)):
        padded = torch.zeros(3, height + 2 * padding, width + 2 * padding, dtype=dtype)
        padded[:, padding : padding + height, padding : padding + width] = image
        top, left = int(draw.top[row]), int(draw.left[row])
        cut = padded[:, top : top + height, left : left + width]
        assert torch.equal(made, cut.flip(2) if draw.mirror[row] else cut)


def test_the_middle_is_the_picture_itself():
    images, middle = torch.rand((2, 3, 4, 4), generator=stream()), torch.full((2,), 3)
    assert torch.equal(crop(images, CropDraw(top=middle, left=middle, mirror=middle < 0), 3), images)


def test_places_are_uniform_and_half_are_mirrored():
    draw = draw_crops(20_000, 4, True, stream(2))
    for value in (draw.top, draw.left):
        assert chisquare(torch.bincount(value, minlength=9).numpy()).pvalue > 1e-3
    assert abs(float(draw.mirror.double().mean()) - 0.5) < 0.02
    never = draw_crops(20_000, 4, False, stream(2))
    assert not never.mirror.any()
    assert torch.equal(never.left, draw.left)
