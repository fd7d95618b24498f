"""Each corruption against its closed form or the library that defines it; and what no order, company or worker may change."""

from __future__ import annotations

import colorsys
import io
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.corruptions.toys import pictures
from torch import Tensor

from rediffuse.data.images import hash_pixels
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.apply import corrupt, pixel_keys
from rediffuse.evaluation.corruptions.constants import ALL, COMMON, GROUPS, SEVERITIES, SIZES, constants, published_size
from rediffuse.evaluation.corruptions.digital import elastic_transform
from rediffuse.evaluation.corruptions.kernels import blur_matrix
from rediffuse.evaluation.corruptions.weather import plasma

IMAGES = pictures(5)
GREY = torch.full((60, 3, 32, 32), 120, dtype=torch.uint8)


def _hsv(images: Tensor) -> np.ndarray:
    flat = images.permute(0, 2, 3, 1).reshape(-1, 3).double().div(255)
    return np.array([colorsys.rgb_to_hsv(*pixel) for pixel in flat.tolist()])


def test_the_names_are_the_papers() -> None:
    assert len(COMMON) == 15
    assert len(ALL) == 19
    assert [len(GROUPS[group]) for group in ("noise", "blur", "weather", "digital", "extra")] == [3, 4, 4, 4, 4]
    assert all(constants(name, severity, size) for name in ALL for severity in SEVERITIES for size in SIZES)


@pytest.mark.parametrize("name", ALL)
def test_neither_order_nor_company_changes_a_bit(name: str) -> None:
    for severity in (1, 5):
        whole = corrupt(IMAGES, name, severity)
        assert whole.dtype == torch.uint8
        assert whole.shape == IMAGES.shape
        assert not torch.equal(whole, IMAGES)
        assert torch.equal(corrupt(IMAGES.flip(0), name, severity).flip(0), whole)
        assert torch.equal(torch.cat([corrupt(image[None], name, severity) for image in IMAGES]), whole)


def _all(images: Tensor) -> list[Tensor]:
    return [corrupt(images, name, 3) for name in COMMON]


def test_another_process_makes_the_same() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        theirs = pool.submit(_all, IMAGES[2:4]).result()
    assert all(torch.equal(mine[2:4], other) for mine, other in zip(_all(IMAGES), theirs, strict=True))


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    for name in ALL:
        corrupt(IMAGES[:1], name, 2)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_randomness_comes_from_the_key_and_the_seed() -> None:
    twice = IMAGES[[0, 0]]
    same, other = corrupt(twice, "fog", 3), corrupt(twice, "fog", 3, keys=["a", "b"])
    assert torch.equal(same[0], same[1])
    assert not torch.equal(other[0], other[1])
    assert not torch.equal(corrupt(twice, "fog", 3, seed=1), same)
    row = np.ascontiguousarray(IMAGES[0].permute(1, 2, 0).numpy())
    assert pixel_keys(IMAGES[:1].numpy()) == [hash_pixels(32, 32, row.tobytes())]


@pytest.mark.parametrize("name", ALL)
def test_float_and_bytes_are_the_same_picture(name: str) -> None:
    levels = corrupt(IMAGES, name, 4)
    floats = corrupt(IMAGES.float() / 255, name, 4)
    assert floats.dtype == torch.float32
    assert torch.equal(floats.mul(255).round().to(torch.uint8), levels)
    between = corrupt(IMAGES.double() / 255, name, 4, whole=False)
    assert between.dtype == torch.float64
    assert float((between * 255 - levels).abs().max()) <= 1 + 1e-3


@pytest.mark.parametrize(("side", "deviations"), [(32, (0.04, 0.10)), (64, (0.04, 0.18)), (224, (0.08, 0.38))])
def test_gaussian_noise_has_its_deviation(side: int, deviations: tuple[float, float]) -> None:
    grey = torch.full((4, 3, side, side), 0.5)
    found = corrupt(grey, "gaussian_noise", 1, keys=list("abcd"), whole=False) - 128 / 255
    assert float(found.std()) == pytest.approx(deviations[0], rel=0.03)
    assert abs(float(found.mean())) < 0.004
    clipped = corrupt(grey, "gaussian_noise", 5, keys=list("abcd"), whole=False)
    share = float((clipped == 1).double().mean())
    assert share == pytest.approx(float(torch.special.ndtr(torch.tensor(-(1 - 128 / 255) / deviations[1]))), abs=0.01)


def test_other_noises_have_their_moments() -> None:
    keys = [str(place) for place in range(len(GREY))]
    level = 120 / 255
    shot = corrupt(GREY.float() / 255, "shot_noise", 5, keys=keys, whole=False)
    assert float(shot.var()) == pytest.approx(level / 50, rel=0.03)
    assert float(shot.mean()) == pytest.approx(level, rel=0.005)
    speckle = corrupt(GREY.float() / 255, "speckle_noise", 5, keys=keys, whole=False)
    assert float(speckle.std()) == pytest.approx(level * 0.2, rel=0.03)
    impulse = corrupt(GREY, "impulse_noise", 5, keys=keys)
    for value, share in ((0, 0.035), (255, 0.035), (120, 0.93)):
        assert float((impulse == value).double().mean()) == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize("severity", [1, 4])
def test_brightness_adds_to_value_alone(severity: int) -> None:
    before, after = _hsv(IMAGES[:2]), _hsv(corrupt(IMAGES[:2].double() / 255, "brightness", severity, whole=False).mul(255))
    assert np.allclose(after[:, 2], np.minimum(before[:, 2] + constants("brightness", severity, 32)[0], 1), atol=1e-5)
    assert np.allclose(after[:, :2], before[:, :2], atol=1e-4)
    black = torch.zeros(1, 3, 32, 32)
    assert torch.allclose(corrupt(black, "brightness", severity, whole=False), torch.tensor(constants("brightness", severity, 32)[0]))


@pytest.mark.parametrize("severity", [1, 4, 5])
def test_saturate_moves_saturation_alone(severity: int) -> None:
    factor, summand = constants("saturate", severity, 32)
    before, after = _hsv(IMAGES[:2]), _hsv(corrupt(IMAGES[:2].double() / 255, "saturate", severity, whole=False).mul(255))
    coloured = before[:, 1] > 0.02
    assert np.allclose(after[:, 2], before[:, 2], atol=1e-5)
    assert np.allclose(after[:, 1], (before[:, 1] * factor + summand).clip(0, 1), atol=1e-4)
    assert np.allclose(after[coloured, 0], before[coloured, 0], atol=2e-3)
    red = corrupt(GREY[:1].float() / 255, "saturate", 5, whole=False)[0, :, 0, 0]
    assert torch.allclose(red, torch.tensor([1, 0.8, 0.8]) * 120 / 255)


def test_contrast_is_the_distance_to_the_mean() -> None:
    values = IMAGES.double() / 255
    mean = values.mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(corrupt(values, "contrast", 2, whole=False), (values - mean) * 0.5 + mean, atol=1e-6)


def test_jpeg_is_pillows() -> None:
    for severity, quality in enumerate((80, 65, 58, 50, 40), start=1):
        file = io.BytesIO()
        Image.fromarray(IMAGES[1].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(corrupt(IMAGES, "jpeg_compression", severity)[1], expected)


def test_pixelate_leaves_blocks() -> None:
    images = pictures(1, side=64)
    blocks = images.double().reshape(1, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    expected = blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (
        float((corrupt(images, "pixelate", 5).double() - expected).abs().max()) <= 1
    )  # half the side at 64 px; Pillow rounds along each axis


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur", "glass_blur", "pixelate", "contrast"])
def test_a_constant_picture_stays(name: str) -> None:
    for severity in SEVERITIES:
        assert torch.equal(corrupt(GREY[:2], name, severity), GREY[:2])


def test_glass_brings_pixels_from_near_and_makes_none() -> None:
    place = torch.arange(32 * 32).reshape(32, 32)
    coded = torch.stack([place // 32 * 8, place % 32 * 8, torch.zeros_like(place)])[None].to(torch.uint8)
    found = corrupt(coded, "glass_blur", 1)  # sigma .05 blurs nothing; moves of one pixel at most
    moves = (found.int() - coded.int()) // 8
    assert set(moves[0, :2, 2:-2, 2:-2].unique().tolist()) >= {-1, 0}
    assert int(moves[:, 0].min()) >= -1  # a pixel comes from the row above or its own: what lies below was moved before
    assert not moves[0, 2].any()
    assert set(found[0, 0].unique().tolist()) <= set(coded[0, 0].unique().tolist())


def test_motion_runs_at_any_angle_up_to_45_degrees() -> None:
    point = torch.zeros(300, 3, 33, 33, dtype=torch.uint8)
    point[:, :, 16, 16] = 255
    found = corrupt(point, "motion_blur", 5, keys=list(map(str, range(300))))[:, 0].double()
    y, x = torch.meshgrid(torch.arange(33.0).double() - 16, torch.arange(33.0).double() - 16, indexing="ij")
    angle = torch.atan2((found * y).sum((1, 2)), (found * x).sum((1, 2)).abs()).rad2deg().abs()
    assert float(angle.max()) > 38
    assert float(angle.median()) == pytest.approx(22.5, abs=6)  # of a uniform angle


def test_fog_and_frost_are_the_picture_under_something() -> None:
    white = torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
    keys = list("abcdefgh")
    fog = corrupt(white.float() / 255, "fog", 4, keys=keys, whole=False)
    assert float(fog.max()) == pytest.approx(1, abs=1e-5)  # (1 + c cloud) / (1 + c), and the cloud reaches 1 and 0
    assert float(fog.min()) >= 0.5 - 1e-5
    assert torch.equal(fog[:, 0], fog[:, 2])
    black = torch.zeros_like(white)
    frost = corrupt(black, "frost", 3, keys=keys)
    lighter = corrupt(black + 100, "frost", 3, keys=keys)
    assert float((lighter.double() - frost - 90).abs().max()) <= 1  # weights .9 and .4
    assert int(frost.max()) <= 0.4 * 255


def test_photos_of_frost_are_cut_anywhere() -> None:
    found = corrupt(torch.zeros(60, 3, 32, 32, dtype=torch.uint8), "frost", 3, keys=list(map(str, range(60))))
    assert len(found.flatten(1).unique(dim=0)) > 50  # of five photos


def test_clouds_are_smoother_the_faster_their_detail_decays() -> None:
    rough = [np.abs(np.diff(plasma([np.random.default_rng(0)], 64, decay)[0], axis=1)).mean() for decay in (1.5, 3.0)]
    assert rough[0] > 2 * rough[1]


def test_snow_whitens_what_no_flake_hits() -> None:
    share = constants("snow", 1, 32)[-1]
    found = corrupt(GREY[:8] // 2 / 255, "snow", 1, keys=list("abcdefgh"), whole=False) * 255
    assert float(found.min()) == pytest.approx(share * 60 + (1 - share) * (1.5 * 60 + 127.5), abs=0.01)


def test_snow_falls_twice_and_turned() -> None:
    black = torch.zeros(6, 3, 32, 32)
    found = corrupt(black, "snow", 1, keys=list("abcdef"), whole=False) - 0.05 * 0.5  # what whitening makes of black
    assert torch.allclose(found, found.flip(2, 3), atol=1e-6)
    assert torch.equal(found[:, 0], found[:, 1])
    assert 0 < float((found > 0.01).double().mean()) < 0.5


def test_elastic_moves_what_is_there() -> None:
    for severity in SEVERITIES:
        assert torch.equal(corrupt(GREY[:2], "elastic_transform", severity), GREY[:2])
        found = corrupt(IMAGES, "elastic_transform", severity)
        assert float(found.double().mean()) == pytest.approx(float(IMAGES.double().mean()), rel=0.05)


def test_elastic_moves_as_far_as_smoothed_noise_of_its_strength() -> None:
    strength, smoothness, _ = constants("elastic_transform", 3, 32)
    ramp = np.broadcast_to(np.arange(32, dtype=np.float32) * 8, (200, 3, 32, 32)).copy()
    moved = elastic_transform(ramp, [np.random.default_rng(key) for key in range(200)], (strength, smoothness, 0)) / 8
    middle = (moved - np.arange(32))[:, 0, 16, 16]
    kept = float((blur_matrix(32, smoothness, truncate=3, edge="reflect")[16] ** 2).sum())  # of a variance 1/3, along one axis
    assert middle.std() == pytest.approx(strength * kept / 3**0.5, rel=0.2)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_water_lightens_and_mud_is_brown(severity: int) -> None:
    grey = torch.full((6, 3, 64, 64), 120, dtype=torch.uint8)
    found = corrupt(grey, "spatter", severity, keys=list("abcdef")).double() - 120
    touched = found.abs().sum(1) > 0
    assert 0.0 < float(touched.double().mean()) < 0.9
    added = found.permute(0, 2, 3, 1)[touched]
    if constants("spatter", severity, 64)[-1] == 0:
        assert float(added.min()) >= 0
        strong = added[added[:, 1] > 40]
        assert torch.allclose(strong[:, 0] / strong[:, 1], torch.tensor(175 / 238, dtype=torch.float64), atol=0.05)
    else:
        assert float((added[:, 2] - added[:, 0]).max()) <= 0
        assert float(added[:, 2].min()) >= 20 - 120 - 1


def test_other_sizes_take_the_nearest_published_one() -> None:
    assert [published_size(side) for side in (32, 45, 46, 64, 119, 120, 224, 500)] == [32, 32, 64, 64, 64, 224, 224, 224]
    assert corrupt(pictures(1, side=50), "frost", 2).shape == (1, 3, 50, 50)
    assert corrupt(pictures(1, side=400), "frost", 2).shape == (1, 3, 400, 400)  # larger than the photos: they are enlarged


def test_the_docs_table_the_constants(root: Path) -> None:
    text = (root / "docs" / "corruptions.md").read_text(encoding="utf-8")
    table = text[: text.index("<!-- results:")]  # tables of results name corruptions too
    rows = {cells[1].strip(): cells[3:6] for line in table.splitlines() if len(cells := line.split("|")) == 7}
    for name in ALL:
        for size, cell in zip(SIZES, rows[name], strict=True):
            several = cell.split(";") if ";" in cell else cell.split()
            told = [tuple(float(number) for number in part.split()) for part in several]
            assert told == [constants(name, severity, size) for severity in SEVERITIES]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ConfigError, match=r"no corruption is called 'fogg'; did you mean fog\? There are gaussian_noise, .*saturate"):
        corrupt(IMAGES, "fogg", 1)
    for severity in (0, 6, 2.5, True):
        with pytest.raises(ConfigError, match="severity must be a whole number from 1 to 5"):
            corrupt(IMAGES, "fog", severity)
    for images, match in (
        (IMAGES[..., :-1], "must be square, got 31 x 32"),
        (IMAGES[..., :31, :31], "31 px are too small to corrupt; 32 px is the least"),
        (IMAGES[0], r"must be \(B, 3, side, side\)"),
        (IMAGES[:, :1], r"must be \(B, 3, side, side\)"),
        (IMAGES.float(), "must lie in \\[0, 1\\].*divide by 255"),
        (IMAGES.float() * float("nan"), "must lie in"),
        (IMAGES.int(), "uint8 or float"),
    ):
        with pytest.raises(DataError, match=match):
            corrupt(images, "fog", 1)
    with pytest.raises(ConfigError, match="5 pictures, 2 keys"):
        corrupt(IMAGES, "fog", 1, keys=["a", "b"])
    with pytest.raises(ConfigError, match="whole=True"):
        corrupt(IMAGES, "fog", 1, whole=False)
    assert corrupt(IMAGES[:0], "fog", 1).shape == (0, 3, 32, 32)
