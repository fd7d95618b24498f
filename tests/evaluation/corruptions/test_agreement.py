"""Ours beside imagecorruptions (extra `corruptions`), at 224 px, on photos."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from benchmarks.corruptions import SAME, SIDE, compare, sample_pictures

from rediffuse.evaluation.corruptions.apply import FIXED
from rediffuse.evaluation.corruptions.constants import ALL
from rediffuse.evaluation.corruptions.frost import frost_overlays

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
