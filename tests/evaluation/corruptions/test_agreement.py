"""Ours beside imagecorruptions (extra `corruptions`), at 224 px, on photos."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from benchmarks.corruptions import SAME, SIDE, compare, sample_pictures
from tests.evaluation.corruptions.toys import pictures

from rediffuse.evaluation.corruptions.apply import FIXED
from rediffuse.evaluation.corruptions.constants import ALL
from rediffuse.evaluation.corruptions.digital import _affine
from rediffuse.evaluation.corruptions.frost import frost_overlays
from rediffuse.evaluation.corruptions.kernels import sampled

pytestmark = pytest.mark.skipif(find_spec("imagecorruptions") is None, reason="the extra `corruptions` is not installed")


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return sample_pictures()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("severity", [1, 5])
def test_pictures_agree(photos: torch.Tensor, name: str, severity: int) -> None:
    found = compare(photos, name, severity, draws=1)
    if name in FIXED or name in SAME:
        assert found["mean_difference"] < 2
    else:
        assert found["mean_ratio"] == pytest.approx(1, abs=0.01)
        assert abs(found["psnr_difference"]) < 1


def test_frost_is_photographed() -> None:
    assert frost_overlays(SIDE).comparable
    assert len(frost_overlays(SIDE).photos) == 5
    assert frost_overlays(32).photos[0].shape == (3, 120, 180)
    assert not frost_overlays(SIDE, "drawn").comparable


def test_moved_corners_are_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    shifts = np.random.default_rng(0).uniform(-4, 4, (1, 3, 2))
    y, x = _affine(shifts, 64)
    picture = pictures(1, side=64)
    found = sampled(picture.numpy().astype(np.float32), y, x, repeat_edge=False)[0]
    before = np.array([[32 + 21, 32 + 21], [32 + 21, 32 - 21], [32 - 21, 32 - 21]], dtype=np.float32)
    matrix = cv2.getAffineTransform(before, (before + shifts[0]).astype(np.float32))
    image = picture[0].permute(1, 2, 0).numpy().astype(np.float32)
    expected = cv2.warpAffine(image, matrix, (64, 64), borderMode=cv2.BORDER_REFLECT_101)
    assert np.abs(found.transpose(1, 2, 0) - expected).mean() < 0.5  # its coordinates are whole 32nds of a pixel
