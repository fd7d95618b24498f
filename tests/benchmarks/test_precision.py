"""The table of half precision errors: published figures of rounding, and a result file from a small model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny_pixel import tiny_pixel
from torch import Tensor, nn

from benchmarks import precision
from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.load import load
from rediffuse.denoisers.pixel import PixelDenoiser
from rediffuse.denoisers.schedules import linear_betas

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
# Root mean square of x0_hat when an epsilon of unit variance is rounded, float16 and bfloat16, by t.
ROUNDING = {450: (0.0005, 0.004), 700: (0.0025, 0.020), 900: (0.013, 0.10), 999: (0.033, 0.26)}


class Noise(nn.Module):
    """Puts out what it is given through a head that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1, bias=False)
        self.head.weight.data = torch.eye(3).view(3, 3, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.head(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
        return out


@pytest.mark.parametrize(("place", "dtype"), [(0, torch.float16), (1, torch.bfloat16)])
def test_rounding_alone_is_what_was_published(place: int, dtype: torch.dtype) -> None:
    exact, half = (PixelDenoiser(Noise(), SCHEDULE, head="head", dtype=numbers) for numbers in (torch.float32, dtype))
    rows = precision.measure(exact, half, torch.zeros(16, 3, 32, 32), times=tuple(ROUNDING))
    for row in rows:
        assert row["rounding"] == pytest.approx(ROUNDING[row["t"]][place], rel=0.15)
        assert row["half_head"] == pytest.approx(row["rounding"])
        assert row["epsilon"] == row["x0_hat"] == 0  # nothing but the head is there, and it is exact


@pytest.mark.parametrize(("place", "numbers"), [(0, "float16"), (1, "bfloat16")])
def test_the_bundled_denoiser_loses_less_than_a_half_precision_head(place: int, numbers: str) -> None:
    exact, half = (load("cifar10-32", device="cpu", dtype=name) for name in ("float32", numbers))
    assert isinstance(exact, PixelDenoiser)
    assert isinstance(half, PixelDenoiser)
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    times = tuple(t for t in ROUNDING if t != 700)
    for row in precision.measure(exact, half, nn.functional.interpolate(images, size=(32, 32), mode="bicubic").clamp(0, 1), times=times):
        assert 0 < row["x0_hat"] < ROUNDING[row["t"]][place]


def test_a_model_gives_a_result(tmp_path: Path) -> None:
    folder = tiny_pixel(tmp_path / "model")
    assert precision.main(["--model", str(folder), "--images", "4", "--device", "cpu", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "bench_precision_model.json").read_text())
    assert {(row["numbers"], row["t"]) for row in result["rows"]} == {(name, t) for name in precision.NUMBERS for t in precision.TIMES}
    for row in result["rows"]:
        assert row["x0_hat"] == pytest.approx(row["ratio"] * row["epsilon"], rel=1e-3)
        assert row["clamped"] <= row["x0_hat"]
    errors = {row["numbers"]: row["epsilon"] for row in result["rows"] if row["t"] == 450}
    assert errors["float16"] < errors["bfloat16"] / 4  # three more bits


def test_only_pixel_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert precision.main(["--model", str(tiny_pixel(tmp_path / "model", num_class_embeds=3)), "--device", "cpu"]) == 2
    assert "unconditional pixel model" in capsys.readouterr().err
