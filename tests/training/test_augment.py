"""Standard views: what they keep, what they may do, and that they are a function of their key."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from rediffuse.errors import ConfigError
from rediffuse.training.augment import CropViews, StandardViews, apply_views, generator_of
from rediffuse.training.preprocessing import resize

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_view_that_may_do_nothing_is_the_picture() -> None:
    law = StandardViews(smallest=1, stretch=1, rotation=0, flips=False)
    views = law.draw(6, generator_of("x"))
    assert torch.allclose(views, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3), atol=1e-6)
    assert torch.allclose(apply_views(IMAGES, views, (16, 16)), IMAGES, atol=1e-5)


def test_flips_alone_give_the_picture_or_its_mirror() -> None:
    law = StandardViews(smallest=1, stretch=1, rotation=0)
    seen = apply_views(IMAGES, law.draw(6, generator_of("flips")), (16, 16))
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(seen, IMAGES, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 6


def test_a_turn_by_ninety_degrees_is_a_rotation_of_the_grid() -> None:
    views = torch.tensor([[0.0, -1, 0], [1, 0, 0]]).expand(6, 2, 3)
    assert torch.allclose(apply_views(IMAGES, views, (16, 16)), IMAGES.rot90(1, (2, 3)), atol=1e-5)


def test_fine_stripes_do_not_come_through_as_coarse_ones() -> None:
    """Stripes of 4 pixels are grey at an eighth of the size, in a view of every kind as in the picture itself."""
    striped = (torch.arange(256) // 2 % 2).float().expand(6, 3, 256, 256)
    for law in (StandardViews(), StandardViews(smallest=1, stretch=1, rotation=0), CropViews()):
        seen = law.apply(striped, law.draw(6, generator_of("stripes")), (32, 32))
        assert float(seen[:, :, 4:-4, 4:-4].std()) < 0.02, law  # CropViews pads with zeros
    views = StandardViews(smallest=1, stretch=1, rotation=0, flips=False).draw(6, generator_of("whole"))
    smooth = resize(torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)), (64, 48))
    for size in ((16, 16), (16, 96), (96, 16)):
        expected = resize(resize(smooth, (min(64, size[0]), min(48, size[1]))), size)
        assert torch.allclose(apply_views(smooth, views, size), expected, atol=1e-5)


def test_pictures_that_are_no_larger_than_their_views_are_sampled_as_they_are() -> None:
    views = StandardViews().draw(6, generator_of("same"))
    for size in ((16, 16), (16, 20), (24, 24)):
        grid = F.affine_grid(views, [6, 3, *size], align_corners=False)
        expected = F.grid_sample(IMAGES, grid, padding_mode="reflection", align_corners=False)
        assert torch.equal(apply_views(IMAGES, views, size), expected)


def test_draws_keep_their_law() -> None:
    views = StandardViews(smallest=0.25, stretch=4 / 3, rotation=15).draw(4000, generator_of("law"))
    linear = views[:, :, :2].double()
    area = linear.det().abs()
    assert 0.2 < float(area.min()) < 0.27
    assert float(area.max()) <= 1 + 1e-6
    assert abs(float((linear.det() < 0).double().mean()) - 0.5) < 4 * math.sqrt(0.25 / 4000)
    angle = torch.atan2(linear[:, 1, 1], -linear[:, 0, 1]).rad2deg() - 90
    assert float(angle.abs().max()) <= 15 + 1e-3
    assert float(angle.abs().max()) > 14
    # A crop lies in the picture (before it is turned).
    sides = linear.norm(dim=1)
    assert bool((views[:, :, 2].abs() <= 1 - sides + 1e-5).all())


def test_place_turn_and_stretch_of_a_crop_are_uniform() -> None:
    views = StandardViews(smallest=0.25, stretch=4 / 3, rotation=15).draw(4000, generator_of("law")).double()
    linear, sides = views[:, :, :2], views[:, :, :2].norm(dim=1)
    inside = linear.det().abs() < 0.5  # there no side was cut off at 1
    angle = torch.atan2(-linear[:, 0, 1], linear[:, 1, 1]).rad2deg()
    ratio = (sides[inside, 0] / sides[inside, 1]).log()
    drawn = {"angle": (angle, 15), "ratio": (ratio, math.log(4 / 3))}
    for axis, name in enumerate("xy"):
        drawn[name] = views[inside, axis, 2] / (1 - sides[inside, axis]), 1
    for name, (values, end) in drawn.items():
        assert stats.kstest(values.numpy(), stats.uniform(-end, 2 * end).cdf).pvalue > 1e-3, name


def test_flips_change_no_other_number() -> None:
    with_flips = StandardViews().draw(32, generator_of("same"))
    without = StandardViews(flips=False).draw(32, generator_of("same"))
    assert torch.equal(with_flips[:, :, 1:], without[:, :, 1:])
    assert torch.equal(with_flips[:, :, 0].abs(), without[:, :, 0].abs())


def test_a_generator_is_a_function_of_its_key() -> None:
    first, again, other = (torch.rand(4, generator=generator_of(*key)) for key in (("a", 1), ("a", 1), ("a", 2)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("option", "value"), [("smallest", 0.0), ("smallest", 1.5), ("stretch", 0.9), ("rotation", -1.0)])
def test_settings_outside_their_range(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option}.*got {value}"):
        StandardViews(**{option: value})


def test_pad_and_crop_gives_every_window_of_the_padded_picture() -> None:
    """Against a loop over windows cut by hand."""
    law = CropViews(padding=2)
    many = IMAGES[:1].expand(600, -1, -1, -1)
    seen = law.apply(many, law.draw(600, generator_of("windows")), (16, 16))
    padded = torch.nn.functional.pad(IMAGES[0], (2,) * 4)
    windows = [padded[:, top : top + 16, left : left + 16] for top in range(5) for left in range(5)]
    windows += [window.flip(-1) for window in windows]
    counts = [sum(torch.equal(view, window) for view in seen) for window in windows]
    assert sum(counts) == 600
    assert min(counts) > 0  # 50 windows, each missed with a chance of 5e-6
    assert abs(sum(counts[25:]) - 300) < 5 * math.sqrt(150)


def test_crops_without_freedom_are_the_picture_also_at_another_size() -> None:
    law = CropViews(padding=0, flips=False)
    drawn = law.draw(6, generator_of("still"))
    assert torch.equal(law.apply(IMAGES, drawn, (16, 16)), IMAGES)
    enlarged = law.apply(IMAGES, drawn, (32, 32))
    assert enlarged.shape == (6, 3, 32, 32)
    assert torch.allclose(enlarged.mean((2, 3)), IMAGES.mean((2, 3)), atol=0.02)
    assert torch.equal(CropViews(flips=False).draw(6, generator_of("still")), CropViews().draw(6, generator_of("still")))
    with pytest.raises(ConfigError, match="padding is in pixels and must be at least 0, got -1"):
        CropViews(padding=-1)
