"""Every operation of AugMix against Pillow, the backend that it is defined on, and against torchvision where that can be imported."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from rediffuse.methods.picture_operations import ALL_OPERATIONS, OPERATIONS, grey

LEVELS = (0.1, 0.7, 1.0, 1.7, 2.6, 2.999, 4.4, 7.5, 9.999)


def bilinear(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


# What the paper's operations do at a level of 0 to 10, in calls of Pillow; a sign of -1 turns or moves the other way.
PILLOW: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "autocontrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "posterize": lambda image, level, sign: ImageOps.posterize(image, 4 - int(level * 4 / 10)),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
    "rotate": lambda image, level, sign: image.rotate(sign * int(level * 30 / 10), resample=Image.Resampling.BILINEAR),
    "shear_x": lambda image, level, sign: bilinear(image, 1, sign * level * 0.3 / 10, 0, 0, 1, 0),
    "shear_y": lambda image, level, sign: bilinear(image, 1, 0, 0, sign * level * 0.3 / 10, 1, 0),
    "translate_x": lambda image, level, sign: bilinear(image, 1, 0, sign * int(level * image.width / 3 / 10), 0, 1, 0),
    "translate_y": lambda image, level, sign: bilinear(image, 1, 0, 0, 0, 1, sign * int(level * image.height / 3 / 10)),
    "color": lambda image, level, sign: ImageEnhance.Color(image).enhance(level * 1.8 / 10 + 0.1),
    "contrast": lambda image, level, sign: ImageEnhance.Contrast(image).enhance(level * 1.8 / 10 + 0.1),
    "brightness": lambda image, level, sign: ImageEnhance.Brightness(image).enhance(level * 1.8 / 10 + 0.1),
    "sharpness": lambda image, level, sign: ImageEnhance.Sharpness(image).enhance(level * 1.8 / 10 + 0.1),
}
SAME_TO_THE_PIXEL = {"autocontrast", "equalize", "posterize", "solarize", "translate_x", "translate_y"}


def pictures(height: int, width: int) -> Tensor:
    """Whole numbers (N, 3, H, W): noise, a dull ramp, few colours, one colour, two values, a smooth picture with an edge."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(90, 140, width)[None, None].repeat(3, 0).repeat(height, 1)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([120 + 90 * np.sin(x / 5 + shift) * np.cos(y / 7) for shift in (0, 1, 2)]) + 40 * (x > width / 2)
    stack = [
        generator.integers(0, 256, (3, height, width)),
        ramp,
        generator.choice([3, 77, 200], (3, height, width)),
        np.full((3, height, width), 131),
        generator.choice([0, 255], (3, height, width), p=[0.95, 0.05]),
        smooth,
    ]
    return torch.from_numpy(np.stack(stack).clip(0, 255).round()).float()


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).byte().numpy())


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def run(name: str, images: Tensor, level: float, sign: int) -> Tensor:
    count = len(images)
    levels, signs = torch.full((count,), level, dtype=torch.float64), torch.full((count,), sign, dtype=torch.float64)
    return ALL_OPERATIONS[name](images, levels, signs)


@pytest.mark.parametrize("size", [(32, 32), (24, 37)])
@pytest.mark.parametrize("name", ALL_OPERATIONS)
def test_every_operation_is_that_of_pillow(name: str, size: tuple[int, int]) -> None:
    images = pictures(*size)
    before = images.clone()
    changed = 0.0
    for level in LEVELS:
        for sign in (1, -1):
            ours = run(name, images, level, sign)
            theirs = torch.stack([from_pillow(PILLOW[name](to_pillow(image), level, sign)) for image in images])
            error = (ours - theirs).abs()
            if name in SAME_TO_THE_PIXEL:
                assert torch.equal(ours, theirs), (level, sign)
            else:  # a value that lies on a whole number but for rounding may be cut off to the one below
                assert float(error.max()) <= 1, (level, sign)
                assert float((error > 0).double().mean()) < 2e-3, (level, sign)
            changed = max(changed, float((theirs - images).abs().mean()))
    assert changed > 1  # or nothing was compared
    assert torch.equal(images, before)  # the input is left alone


def test_a_batch_of_different_levels_is_a_loop_over_samples() -> None:
    images = pictures(16, 16)
    levels = torch.tensor([0.3, 1.2, 2.9, 3.4, 8.0, 9.9], dtype=torch.float64)
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64)
    for name, operation in ALL_OPERATIONS.items():
        alone = [operation(images[row : row + 1], levels[row : row + 1], signs[row : row + 1]) for row in range(len(images))]
        assert torch.equal(operation(images, levels, signs), torch.cat(alone)), name


@pytest.mark.parametrize("name", ALL_OPERATIONS)
def test_results_are_bytes(name: str) -> None:
    found = run(name, pictures(9, 11), 9.3, -1)
    assert torch.equal(found, found.round().clamp(0, 255))


def test_grey_is_that_of_pillow() -> None:
    images = pictures(20, 20)
    for image, ours in zip(images, grey(images), strict=True):
        assert np.array_equal(ours[0].byte().numpy(), np.array(to_pillow(image).convert("L")))


def test_the_paper_leaves_out_what_corrupts() -> None:
    assert set(ALL_OPERATIONS) - set(OPERATIONS) == {"color", "contrast", "brightness", "sharpness"}
    assert len(OPERATIONS) == 9


TO_THE_PIXEL_OF_TORCHVISION = {"equalize", "posterize", "solarize", "translate_x", "translate_y"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_torchvision_agrees(name: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2.functional", exc_type=(ImportError, RuntimeError))  # type: ignore[arg-type]
    images, level = pictures(32, 32), 4.0
    moved, slid = int(level * 32 / 3 / 10), math.degrees(math.atan(level * 0.3 / 10))

    def affine(across: int = 0, down: int = 0, shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """Theirs says where a pixel goes, ours where it comes from; shears hold at the corner, as in Pillow."""
        how = transforms.InterpolationMode.BILINEAR
        return transforms.affine(images, 0, [-across, -down], 1.0, list(shear), interpolation=how, center=[0, 0])

    theirs: dict[str, Callable[[], Tensor]] = {
        "autocontrast": lambda: transforms.autocontrast(images.byte()).float(),
        "equalize": lambda: transforms.equalize(images.byte()).float(),
        "posterize": lambda: transforms.posterize(images.byte(), 3).float(),
        "solarize": lambda: transforms.solarize(images.byte(), 256 - int(level * 25.6)).float(),
        "rotate": lambda: transforms.rotate(images, int(level * 3), interpolation=transforms.InterpolationMode.BILINEAR),
        "shear_x": lambda: affine(shear=(slid, 0.0)),
        "shear_y": lambda: affine(shear=(0.0, slid)),
        "translate_x": lambda: affine(across=moved),
        "translate_y": lambda: affine(down=moved),
    }
    ours, other = run(name, images, level, 1), theirs[name]()
    if name in TO_THE_PIXEL_OF_TORCHVISION:
        assert torch.equal(ours, other.round())
    else:  # theirs does not cut off, and fills differently at the edge
        assert float((ours - other)[:, :, 8:-8, 8:-8].abs().max()) <= 1.001
    assert float((ours - images).abs().mean()) > 1
