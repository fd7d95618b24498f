"""Blurs, zooms and samplings against scipy, closed forms and symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rediffuse.evaluation.corruptions.kernels import blur_matrix, correlate, disk, gaussian, mirrored, sampled, smeared, zoomed

PICTURE = np.random.default_rng(0).uniform(0, 255, (2, 3, 37, 37)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0, 0.05, 0.4, 1.3, 6])
@pytest.mark.parametrize("edge", ["nearest", "reflect"])
def test_a_gaussian_is_scipys(sigma: float, edge: str) -> None:
    found = gaussian(PICTURE, sigma, truncate=3, edge=edge)
    expected = ndimage.gaussian_filter(PICTURE.astype(np.float64), (0, 0, sigma, sigma), mode=edge, truncate=3)
    assert np.allclose(found, expected, atol=1e-3)
    assert np.allclose(blur_matrix(37, sigma, truncate=3, edge=edge).sum(axis=1), 1)


def test_a_reach_of_many_sides_folds_back() -> None:
    wide = blur_matrix(16, 60.0, truncate=3, edge="reflect")
    assert np.allclose(wide @ np.arange(16), ndimage.gaussian_filter1d(np.arange(16.0), 60, truncate=3, mode="reflect"))


def test_indices_fold_as_numpy_pads() -> None:
    line = np.arange(5)
    for repeat, mode in ((True, "symmetric"), (False, "reflect")):
        assert (line[mirrored(np.arange(-4, 9), 5, repeat_edge=repeat)] == np.pad(line, 4, mode=mode)).all()


@pytest.mark.parametrize(("radius", "softness"), [(0.3, 0.4), (0.5, 0.6), (1, 0.2), (1.5, 0.1), (2.5, 0.01), (3, 0.1), (6, 0.5)])
def test_a_disk_is_a_soft_disk(radius: float, softness: float) -> None:
    kernel = disk(radius, softness)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel.T)
    assert np.allclose(kernel, kernel[::-1, ::-1])
    middle = kernel.shape[0] // 2
    distance = np.hypot(*np.mgrid[-middle : middle + 1, -middle : middle + 1])
    assert kernel[distance > radius + 1.5].sum() < 1e-12
    if radius > 3:  # what is deeper inside than the softening reaches has one weight
        inside = kernel[distance < radius - 1.5]
        assert np.allclose(inside, inside[0])


def test_the_published_disks_that_touch_their_grid_brighten() -> None:
    line = np.arange(-8, 9)
    hard = (line[:, None] ** 2 + line**2 <= 64).astype(np.float64)
    weights = np.exp(-np.array([1, 0, 1]) / (2 * 0.25))
    soft = ndimage.convolve1d(
        ndimage.convolve1d(hard / hard.sum(), weights / weights.sum(), 0, mode="mirror"), weights / weights.sum(), 1, mode="mirror"
    )
    assert np.allclose(disk(8, 0.5), soft)
    assert disk(8, 0.5).sum() == pytest.approx(1.01298, abs=1e-5)


def test_a_correlation_is_scipys() -> None:
    kernel = disk(3, 0.5)
    expected = [[ndimage.correlate(plane.astype(np.float64), kernel, mode="mirror") for plane in picture] for picture in PICTURE]
    assert np.allclose(correlate(PICTURE, kernel), expected, atol=1e-3)
    constant = np.full((1, 3, 32, 32), 77, dtype=np.float32)
    assert np.allclose(correlate(constant, kernel), 77, atol=1e-4)


@pytest.mark.parametrize("factor", [1, 1.06, 1.25, 1.75, 3, 4.5])
def test_a_zoom_is_scipys(factor: float) -> None:
    side = PICTURE.shape[-1]
    crop = int(np.ceil(side / factor))
    start = (side - crop) // 2
    plane = PICTURE[1, 2].astype(np.float64)
    whole = ndimage.zoom(plane[start : start + crop, start : start + crop], factor, order=1)
    first = (len(whole) - side) // 2
    assert np.allclose(zoomed(PICTURE, factor)[1, 2], whole[first : first + side, first : first + side], atol=1e-3)


@pytest.mark.parametrize(("repeat", "mode"), [(True, "reflect"), (False, "mirror")])
def test_sampling_is_scipys(repeat: bool, mode: str) -> None:
    y, x = np.random.default_rng(1).uniform(-15, 52, (2, 2, 37, 37))
    found = sampled(PICTURE, y, x, repeat_edge=repeat)
    for row in range(2):
        expected = ndimage.map_coordinates(PICTURE[row, 1].astype(np.float64), (y[row], x[row]), order=1, mode=mode)
        assert np.allclose(found[row, 1], expected, atol=1e-2)


def test_a_smear_runs_along_its_angle() -> None:
    point = np.zeros((1, 41, 41), dtype=np.float32)
    point[0, 20, 20] = 1
    weights = np.exp(-0.5 * (np.arange(13) / 2.0) ** 2)
    weights /= weights.sum()
    flat, down = smeared(point, 6, 2.0, 0)[0], smeared(point, 6, 2.0, -90)[0]
    assert np.allclose(flat[20, 8:21][::-1], weights, atol=1e-5)
    assert np.allclose(down[20:33, 20], weights, atol=1e-5)
    assert flat.sum() == pytest.approx(1, abs=1e-4)
    constant = np.full((3, 41, 41), 91, dtype=np.float32)
    assert np.allclose(smeared(constant, 9, 2.5, 33), 91, atol=1e-2)
