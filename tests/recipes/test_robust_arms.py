"""Arms of the DiffAug experiment see equally many views, of the same times and noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_pixel import tiny_pixel

from rediffuse.denoisers.load import load
from rediffuse.denoisers.wiener import WienerDenoiser
from rediffuse.methods.diffaug import DiffAug, make_noise
from rediffuse.recipes.robust.arms import (
    ARMS,
    BANKS,
    CHEAPER,
    CONTROLS,
    FULL,
    PLAIN_FLOPS,
    REPEATED,
    REPEATED_QUARTER,
    equal_flops,
)
from rediffuse.recipes.robust.banks import digest_of, make_bank
from rediffuse.recipes.robust.nets import NETS, open_net
from rediffuse.training.augment import generator_of
from rediffuse.training.cost import PASSES, denoiser_operations, step_cost
from rediffuse.training.objectives import Extra, plain
from rediffuse.training.settings import TrainSettings

CLASSES = [str(k) for k in range(10)]


def stream_of(written: int) -> torch.Generator:
    """The chance of a bank's filling at that picture."""
    return torch.Generator().manual_seed(generator_of("fill", written).initial_seed())


def test_an_arm_and_its_control_look_at_equally_many_views() -> None:
    views = {name: arm.build(None if arm.bank is None else Extra(source="independent")).samples for name, arm in ARMS.items()}
    for name in ("noise", "linear", "diffaug", PLAIN_FLOPS):
        assert all(views[name] == views[other] == 2 for other in ARMS[name].against)
        assert ARMS[name].against
    assert all(views[arm.name] == views[other] for arm in ARMS.values() for other in arm.against)
    assert views["augmix"] == views["augmix-diffaug"] == 4
    assert views["deepaugment"] == views["deepaugment-diffaug"] == 3


def test_cheaper_ways_are_held_against_repetition_of_their_own_kind(tmp_path: Path) -> None:
    denoiser = load(str(tiny_pixel(tmp_path / "tiny", sample_size=32)), device="cpu", dtype="float32")
    assert CHEAPER["plain"] is ARMS["plain"]
    assert {**vars(CHEAPER["diffaug"]), "against": ()} == {**vars(ARMS["diffaug"]), "against": ()}  # one cell for both experiments
    for name, arm in CHEAPER.items():
        extra = Extra(source="independent") if arm.online is None else arm.online(denoiser, 0)
        assert arm.build(extra).samples == (1.25 if "quarter" in name else 2)
        assert name in (*CONTROLS, REPEATED_QUARTER) or {*CONTROLS} <= {*arm.against}
    for name, control in (("bank-10", REPEATED), ("bank-5-quarter", REPEATED_QUARTER)):  # which lacks the denoiser alone
        arm, other = CHEAPER[name], CHEAPER[control]
        assert arm.against[0] == control
        ours, theirs = ({**vars(each.online(denoiser, 0))} for each in (arm, other) if each.online is not None)
        bank, recrops = ours.pop("method"), theirs.pop("method")
        assert ours == theirs
        assert (bank.rate, bank.capacity, bank.warmup) == (recrops.rate, recrops.capacity, recrops.warmup)
        assert (bank.source, recrops.source) == ("denoised", "original")
    assert CHEAPER[FULL].against[0] == "plain"  # it repeats nothing


def test_plain_at_equal_operations_pays_for_the_denoiser(tmp_path: Path) -> None:
    denoiser = load(str(tiny_pixel(tmp_path / "tiny", sample_size=32)), device="cpu", dtype="float32")
    net = open_net(NETS[0], CLASSES, seed=0)
    settings = TrainSettings(steps=50, batch=8, learning_rate=0.1, weight_decay=0.0)
    longer = equal_flops(settings, net, denoiser, pictures=40, draws=4)
    step = 8 * PASSES * step_cost(plain(2), net, (32, 32)).classifier * 2
    assert (longer.steps - 50) * step == pytest.approx(160 * denoiser_operations(denoiser, (32, 32)), abs=step)


def test_banks_share_times_and_noise(tmp_path: Path) -> None:
    denoiser = load(str(tiny_pixel(tmp_path / "tiny", sample_size=32)), device="cpu", dtype="float32")
    images = torch.randint(256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(6)
    banks = {name: make_bank(name, tmp_path / f"{name}.bank", denoiser, images, labels, draws=2) for name in BANKS}
    assert {bank.written for bank in banks.values()} == {12}
    schedule, unit = denoiser.schedule, images.float() / 127.5 - 1
    wiener = WienerDenoiser.fit(images, schedule)
    for first in (0, 6):
        drawn = DiffAug(denoiser).draw(6, stream_of(first), size=32)  # once, for all three
        noisy = schedule.add_noise(unit, make_noise(drawn, unit.shape[1:], torch.device("cpu")), drawn.t)
        ratio = schedule.ratio[drawn.t].float().view(-1, 1, 1, 1)
        back = {
            "noise": noisy * (1 + ratio**2).sqrt(),
            "linear": wiener(noisy, drawn.t),
            "diffaug": denoiser(noisy, drawn.t),
        }  # noise: / alpha
        for name, bank in banks.items():
            wanted = (255 * (back[name] / 2 + 0.5).clamp(0, 1)).round()
            assert float((bank._shown().images[first : first + 6].float() - wanted).abs().max()) <= 1, name
    again = make_bank("noise", tmp_path / "noise.bank", denoiser, images, labels, draws=2)
    assert torch.equal(again._shown().images, banks["noise"]._shown().images)
    other = make_bank("noise", tmp_path / "other.bank", denoiser, images, labels, draws=2)
    assert other.written == 12
    digests = [digest_of(tmp_path / f"{name}.bank") for name in ("noise", "other", "linear")]
    assert digests[0] == digests[1] != digests[2]
