"""The pixel denoiser's trainer: a fair split, times that cover the schedule, pieces that make the whole, a folder that loads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes.tiny_runs import assert_same, trained, write_pictures

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.load import load
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.denoisers.unet2d import UNet2DDenoiser
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.errors import DataError, ModelError
from rediffuse.recipes.bundled import card, cifar10, common, export, judge_cifar10
from rediffuse.recipes.cifar10_split import read_split, split_rows

SCHEDULE = NoiseSchedule.from_betas(linear_betas())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_pictures(tmp_path / "data", "train", 42, size=32)
    monkeypatch.setitem(cifar10.UNET, "block_out_channels", (16, 16, 16))
    monkeypatch.setitem(cifar10.UNET, "attention_head_dim", 16)
    monkeypatch.setattr(cifar10, "GRID", 2)
    monkeypatch.setattr(cifar10, "cosine_rate", lambda *_, **__: 1.0)  # a piece then does not depend on where the end was put
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4711)
        yield tmp_path
        assert torch.initial_seed() == 4711  # no trainer seeds the global random state


def run(folder: Path, out: str, steps: int, minutes: float | None = None) -> None:
    cifar10.train(folder / "data", folder / out, minutes, steps, batch=8, device="cpu", held=6)


def test_the_split_holds_out_as_many_of_every_class_and_never_changes() -> None:
    labels = torch.randint(0, 10, (50_000,), generator=torch.Generator().manual_seed(0))
    first, second = split_rows(labels)
    assert (len(first), len(second)) == (45_000, 5_000)
    assert labels[second].bincount().tolist() == [500] * 10
    assert sorted(torch.cat([first, second]).tolist()) == list(range(50_000))
    again = split_rows(labels.tolist())
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    other = split_rows(labels, seed=11)[1]
    assert not torch.equal(second, other)
    for held in (5_001, 50_000):
        with pytest.raises(DataError, match=f"{held} pictures of 10 classes"):
            split_rows(labels, held)


def test_the_split_of_the_real_pictures(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    files = sorted((shared_data / "cifar10").glob("train-*.parquet"))
    if not files:
        pytest.skip("no cifar10 here")
    labels = torch.cat([torch.tensor(pq.read_table(file, columns=["label"])["label"].to_pylist()) for file in files])
    first, second = split_rows(labels)
    assert (len(first), len(second)) == (45_000, 5_000)
    assert labels[second].bincount().tolist() == [500] * 10


def test_half_of_the_times_are_uniform_and_half_of_log_normal_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.stack([cifar10.draw_times(64, SCHEDULE.ratio, generator) for _ in range(400)])
    assert times.dtype == torch.int64
    uniform, normal = times[:, ::2].flatten(), times[:, 1::2].flatten()
    assert (uniform.bincount(minlength=1000).float() - 12.8).abs().max() < 6 * 12.8**0.5
    logarithm = SCHEDULE.ratio[normal].double().log()
    inside = logarithm[(normal > 0) & (normal < 999)]  # the ends gather what lies beyond the table
    assert float(logarithm.median()) == pytest.approx(-1.2, abs=0.03)
    shares = torch.tensor([0.1587, 0.8413], dtype=torch.float64)
    torch.testing.assert_close(inside.quantile(shares), torch.tensor([-2.4, 0.0], dtype=torch.float64), atol=0.04, rtol=0)
    for row in times[:20]:  # each batch covers the schedule evenly
        assert (row[::2].sort().values // 32 - torch.arange(32)).abs().max() <= 1
    assert len(cifar10.draw_times(7, SCHEDULE.ratio, generator)) == 7


def test_a_resumed_denoiser_is_the_undisturbed_one_and_exports(small: Path) -> None:
    run(small, "whole", 3)
    run(small, "pieces", 3, minutes=0.0)
    run(small, "pieces", 2)
    run(small, "pieces", 3)
    assert_same(trained(small / "whole"), trained(small / "pieces"))
    assert (small / "whole" / "samples.png").is_file()
    lines = [json.loads(line) for line in (small / "pieces" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    assert all(0 < line["held_out"] < 2 for line in lines)

    out = small / "cifar10-32"
    export.export_pixel(small / "whole", out)
    denoiser = load(out, device="cpu", dtype="float32")
    assert isinstance(denoiser, UNet2DDenoiser)
    assert (denoiser.size, denoiser.channels, denoiser.multiple_of, denoiser.prediction) == (32, 3, 4, "epsilon")
    torch.testing.assert_close(denoiser.schedule.ratio, SCHEDULE.ratio)
    ema = common.load_checkpoint(small / "whole" / "checkpoint.pt")
    assert ema is not None
    for key, value in ema["ema"]["shadow"].items():
        torch.testing.assert_close(denoiser.network.state_dict()[key], value.half().float())
    with pytest.raises(ModelError, match="train cifar10 first"):
        export.export_pixel(small, out)


def test_the_network_that_is_shipped_fits_its_limits() -> None:
    with torch.device("meta"):
        network = cifar10.build_unet()
    count = sum(value.numel() for value in network.parameters())
    assert 5.9e6 < count < 8e6
    assert 2 * count < export.LIMIT


def mixture() -> GaussianMixtureDenoiser:
    """Pictures of one colour each, four of them."""
    colours = torch.tensor([[0.8, -0.6, 0.1], [-0.7, 0.2, 0.5], [0.1, 0.9, -0.8], [-0.2, -0.4, -0.9]])
    means = colours.view(4, 3, 1, 1).expand(4, 3, 8, 8)
    return GaussianMixtureDenoiser(means, torch.full((4,), 1e-3), torch.ones(4), SCHEDULE)


def test_samples_of_an_exact_denoiser_are_its_data() -> None:
    oracle = mixture()
    oracle.size = 8
    made = 2 * cifar10.draw_samples(oracle, 40, steps=100, batch=25) - 1
    assert made.shape == (40, 3, 8, 8)
    gaps = (made.unsqueeze(1) - oracle.means.float()).square().mean((2, 3, 4)).sqrt()
    assert gaps.min(1).values.max() < 0.06
    assert len(gaps.argmin(1).unique()) == 4


def test_the_held_out_loss_of_an_exact_denoiser_is_the_least() -> None:
    oracle, generator = mixture(), torch.Generator().manual_seed(0)
    images = ((oracle.sample(500, generator) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    wiener = WienerDenoiser.fit(images, SCHEDULE)
    assert cifar10.held_out_loss(oracle, images) < 0.95 * cifar10.held_out_loss(wiener, images)


def test_figures_by_noise_level_and_the_card() -> None:
    oracle, generator = mixture(), torch.Generator().manual_seed(0)
    images = ((oracle.sample(300, generator) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    wiener = WienerDenoiser.fit(images, SCHEDULE)
    rows = judge_cifar10.levels(oracle, wiener, images)
    assert [row["sigma"] for row in rows] == pytest.approx(list(judge_cifar10.SIGMAS), rel=0.25)
    for row in rows:
        assert row["model"] > row["wiener"] > row["noisy"]
    first = rows[0]  # nothing is clamped there: the noise is sigma / 2 on pictures in [0, 1]
    assert first["noisy"] == pytest.approx(float(-20 * torch.tensor(first["sigma"] / 2).log10()), abs=0.3)
    assert judge_cifar10.sheet(oracle, wiener, images[:5]).shape == (75, 3, 8, 8)

    facts: dict[str, Any] = {"levels": rows, "images": 300, "samples": 9, "ddim_steps": 50, "fid_like": 12.3, "fid_like_real": 2.0}
    text = card.pixel_card(facts, [{"step": 500, "held_out": 0.1}, {"step": 900, "held_out": 0.09}], "1 core", ["A remark."])
    assert "| 900 | 0.0900 |" in text
    assert text.count("\n| 0.") >= 9
    assert "A remark." in text
    assert "{" not in text


def test_the_commands_say_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["export", "resnet-64", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        export.main()
    assert "needs --data" in capsys.readouterr().err
    with pytest.raises(DataError, match="train-"):
        read_split(tmp_path)
