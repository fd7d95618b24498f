"""Fitting to a square and back, against invariances: exact where it can be, in place, undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from rediffuse.data.geometry import Fit, Geometry
from rediffuse.data.images import to_tensor
from rediffuse.errors import ConfigError, DataError

MODES = ("pad", "crop", "squash")


def smooth(width: int, height: int) -> Image.Image:
    """A picture that resampling hardly changes: gradients."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * (x + 0.5) / width, 255 * (y + 0.5) / height, 255 * ((x + 0.5) / width + (y + 0.5) / height) / 2]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_the_models_size_passes_bit_by_bit(draw, mode):
    image, fit = draw(1, (64, 64)), Fit(mode=mode, size=64)
    tensor, geometry = fit.to_model(image)
    assert torch.equal(tensor, to_tensor(image))
    assert fit.undo(tensor, geometry).tobytes() == image.tobytes()


@given(width=st.integers(1, 64), tall=st.booleans())
def test_padding_alone_is_undone_exactly(draw, width, tall):
    """The longer side is the model's: nothing is resampled."""
    image, fit = draw(2, (width, 64) if tall else (64, width)), Fit(size=64)
    tensor, geometry = fit.to_model(image)
    assert tensor.shape == (3, 64, 64)
    assert fit.undo(tensor, geometry, "source").tobytes() == image.tobytes()
    assert fit.undo(tensor, geometry, "model").tobytes() == image.tobytes()


@given(width=st.integers(1, 300), height=st.integers(1, 300), mode=st.sampled_from(MODES))
def test_any_shape(width, height, mode):
    fit = Fit(mode=mode, size=32)
    image = Image.new("RGB", (width, height), (10, 200, 30))
    tensor, geometry = fit.to_model(image)
    assert tensor.shape == (3, 32, 32)
    assert torch.equal(tensor, to_tensor(Image.new("RGB", (32, 32), (10, 200, 30))))  # a flat picture stays flat, padding included
    undone = fit.undo(tensor, geometry)
    assert undone.size == ((32, 32) if mode == "crop" else (width, height))
    assert Geometry.from_row(geometry.to_row()) == geometry


@pytest.mark.parametrize("mode", ["pad", "squash"])
@pytest.mark.parametrize("size", [(200, 120), (40, 90), (64, 20)])
def test_undone_pictures_are_where_they_were(mode, size):
    fit = Fit(mode=mode, size=64)
    image = smooth(*size)
    tensor, geometry = fit.to_model(image)
    error = np.abs(np.asarray(fit.undo(tensor, geometry)).astype(int) - np.asarray(image))
    assert geometry.geometry == "preserved"
    assert error.mean() < 1.5
    assert error.max() <= 16  # at borders, where a kernel has half its support


def test_pad_reflects_at_the_edge(draw):
    image = draw(3, (8, 4))
    tensor, geometry = Fit(size=8).to_model(image)
    assert (geometry.left, geometry.top, geometry.width, geometry.height) == (0, 2, 8, 4)
    rows = to_tensor(image)  # (3, 4, 8)
    assert torch.equal(tensor, rows[:, [2, 1, 0, 1, 2, 3, 2, 1]])


def test_crop_is_the_centre_and_not_undone(draw):
    image = draw(4, (100, 64))
    fit = Fit(mode="crop", size=64)
    tensor, geometry = fit.to_model(image)
    assert torch.equal(tensor, to_tensor(image)[:, :, 18:82])
    assert geometry.geometry == "unknown"
    assert fit.undo(tensor, geometry, "source").size == (64, 64)


@pytest.mark.parametrize("shape", [(640, 427), (427, 640), (601, 402), (300, 427)])
@pytest.mark.parametrize("place", [0, 1])
def test_a_longer_short_side_is_the_published_way_to_224(shape, place):
    """Pillow's own resize and cut, at the sizes that torchvision's Resize(256) and CenterCrop(224) ask for; they differ in the filter."""
    image = Image.fromarray(load_sample_images().images[place]).resize(shape)
    width, height = (256 * side // min(shape) for side in shape)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    found, geometry = Fit(mode="crop:0.875", size=224).to_model(image)

    def beside(resampling, other=found):
        wanted = image.resize((width, height), resampling).crop((left, top, left + 224, top + 224))
        return 255 * float((other - to_tensor(wanted)).abs().mean())

    assert beside(Image.Resampling.LANCZOS) == 0
    assert beside(Image.Resampling.BILINEAR) < 4
    assert beside(Image.Resampling.BILINEAR, Fit(mode="crop", size=224).to_model(image)[0]) > 20
    assert (geometry.left, geometry.top, geometry.width, geometry.height, geometry.geometry) == (0, 0, 224, 224, "unknown")
    square = image.crop((0, 0, 224, 224))
    assert not torch.equal(Fit(mode="crop:0.875", size=224).to_model(square)[0], to_tensor(square))
    assert torch.equal(Fit(mode="crop:1", size=224).to_model(square)[0], to_tensor(square))


@pytest.mark.parametrize(("share", "size", "short"), [(0.875, 299, 341), (0.965, 224, 232), (0.95, 320, 336), (0.9, 260, 288), (1, 64, 64)])
def test_short_sides_are_those_of_other_libraries(share, size, short):
    """timm: floor(size / crop_pct); transformers: int(size / crop_pct). The share that nine digits of a file's sizes give is the same."""
    assert Fit(mode=f"crop:{share}", size=size).short_side == short == int(size / share)
    assert Fit(mode=f"crop:{size / short:.9g}", size=size).short_side == short


def test_every_short_side_comes_back_from_its_share():
    for size in (32, 63, 224, 299, 384):
        found = [Fit(mode=f"crop:{size / short:.9g}", size=size).short_side for short in range(size, 3 * size)]
        assert found == list(range(size, 3 * size))


@pytest.mark.parametrize("shape", [(90, 64), (64, 91), (77, 130), (65, 64), (48, 48), (33, 200)])
@pytest.mark.parametrize("mode", ["crop:0.875", "crop:0.7", "crop:0.51"])
def test_a_margin_is_what_lies_around_the_crop(draw, shape, mode):
    image, fit = draw(3, shape), Fit(mode=mode, size=48)
    held, before = fit.with_margin(image), round((fit.short_side - 48) / 2)
    assert held.shape == (3, fit.short_side, fit.short_side)
    assert torch.equal(held[:, before : before + 48, before : before + 48], fit.to_model(image)[0])
    whole = Fit(mode="crop", size=fit.short_side).to_model(image)[0]
    assert float((held - whole).abs().mean()) < 0.3  # to a pixel on the long side
    assert (held != 0).flatten(1).any(1).all()


def test_model_size_keeps_the_aspect(draw):
    fit = Fit(size=64)
    tensor, geometry = fit.to_model(draw(5, (200, 100)))
    assert fit.undo(tensor, geometry, "model").size == (64, 32)
    squash = Fit(mode="squash", size=64)
    assert squash.undo(*squash.to_model(draw(5, (200, 100))), "model").size == (64, 64)


@pytest.mark.parametrize("mode", ["pad", "squash"])
def test_boxes_fit_at_the_models_size_once_they_are_scaled(mode):
    """Both coordinates are written in the picture: what a scaled place shows is what the place showed."""
    image, fit = smooth(200, 120), Fit(mode=mode, size=64)
    tensor, geometry = fit.to_model(image)
    undone = fit.undo(tensor, geometry, "model")
    assert geometry.geometry == "preserved"
    for x, y in ((30, 20), (100, 60), (170, 100)):
        place = (x * undone.width // image.width, y * undone.height // image.height)
        assert undone.getpixel(place)[:2] == pytest.approx(image.getpixel((x, y))[:2], abs=255 / 32)


def test_other_modes_of_image(draw):
    tensor, _ = Fit(size=16).to_model(draw(6, (16, 16), mode="RGBA"))
    assert tensor.shape == (3, 16, 16)


def test_bad_settings():
    with pytest.raises(ConfigError, match=r"pad, crop, squash, or crop:SHARE .* such as crop:0\.875; got 'stretch'"):
        Fit(mode="stretch", size=64)
    with pytest.raises(ConfigError, match=r"multiple of 8 .* got 60; nearest: 56, 64"):
        Fit(size=60, multiple_of=8)
    with pytest.raises(ConfigError, match="at least 1"):
        Fit(size=0)
    for mode in ("pad:0.5", "crop:", "crop:half", "crop:0", "crop:1.2", "crop:nan", ":0.5", ""):
        with pytest.raises(ConfigError, match=f"from 0.1 to 1, such as crop:0.875; got '{mode}'"):
            Fit(mode=mode, size=64)
    fit = Fit(size=8)
    _, geometry = fit.to_model(Image.new("RGB", (8, 4)))
    with pytest.raises(DataError, match=r"\(3, 8, 8\) .* got \(3, 16, 16\)"):
        fit.undo(torch.zeros(3, 16, 16), geometry)
    with pytest.raises(ConfigError, match="source or model"):
        fit.undo(torch.zeros(3, 8, 8), geometry, "both")
