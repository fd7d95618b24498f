"""The bank: what comes again is what was made, with its own label; rates, memory and file, resume and the control."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from rediffuse.denoisers.base import Condition, NoiseSchedule
from rediffuse.denoisers.gaussian import GaussianMixtureDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import DiffAug
from rediffuse.methods.noise_times import Fixed


class Counting(GaussianMixtureDenoiser):
    """Counts the pictures that it is called with."""

    def __init__(self) -> None:
        means = torch.zeros(1, 3, 8, 8)
        super().__init__(means, torch.tensor([0.3]), torch.ones(1), NoiseSchedule.from_betas(linear_betas()))
        self.calls: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        self.calls.append(len(x_t))
        return super().forward(x_t, t, condition)


def diffaug(**options: Any) -> DiffAug:
    return DiffAug(Counting(), Fixed(t=300), reference_size=None, **options)


def calls(bank: Bank) -> list[int]:
    assert bank.method is not None
    return bank.method.denoiser.calls  # type: ignore[return-value]


def batch(step: int, count: int = 16) -> tuple[Tensor, Tensor]:
    """Pictures whose label is a number of their own."""
    images = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(step))
    return images, torch.arange(count) + step * count


def plain_bank(rate: float = 0.25, capacity: int | None = 64, **options: Any) -> Bank:
    return Bank(diffaug(), rate, capacity, **{"warmup": 32, "padding": 0, "flips": False} | options)


def run(bank: Bank, first: int, last: int) -> list[tuple[Tensor, Tensor]]:
    return [bank(*batch(step)) for step in range(first, last)]


def same(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(a, b) for left, right in zip(one, two, strict=True) for a, b in zip(left, right, strict=True))


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_quarter_is_made_and_the_rest_comes_again_under_its_own_label():
    bank, made = plain_bank(), {}
    for step in range(40):
        images, labels = batch(step)
        views, own = bank(images, labels)
        assert views.shape == images.shape
        fresh = own == labels
        if step < 2:
            assert fresh.all()  # until 32 pictures are there
        else:
            assert int(fresh.sum()) >= 4
        for label, view in zip(own[fresh].tolist(), views[fresh], strict=True):
            made.setdefault(label, view)  # the first time it is seen it is new, and in the place of its own picture
        for label, view in zip(own.tolist(), views, strict=True):
            assert float((made[label] - view).abs().max()) <= 0.5 / 255 + 1e-6  # kept as bytes
    assert calls(bank) == [16, 16] + [4] * 38
    assert bank.held == 64
    assert bank.written == 32 + 4 * 38


def test_only_the_latest_come_again():
    bank = plain_bank(rate=0.5, capacity=20, warmup=0)
    seen = []
    for step in range(50):
        images, labels = batch(step)
        _, own = bank(images, labels)
        seen.append(own)
        assert int((labels[0] - own).max()) < 16 * 5  # 20 pictures at 8 a step last three steps
    entries = bank.draw(5000).entry
    assert chisquare(torch.bincount(entries - bank.written + 20, minlength=20).numpy()).pvalue > 1e-3


def test_rate_one_is_diffaug_itself_and_rate_nought_makes_nothing():
    bank = plain_bank(rate=1.0)
    images, labels = batch(3)
    run(bank, 0, 3)
    views, own = bank.manual_seed(5)(images, labels)
    stream = torch.Generator().manual_seed(5)
    torch.rand((), generator=stream, dtype=torch.float64)
    torch.randperm(16, generator=stream)
    assert bank.method is not None
    assert torch.equal(views, bank.method.apply(images, bank.method.draw(16, stream, size=8)))
    assert torch.equal(own, labels)
    still = plain_bank(rate=0.0)
    with pytest.raises(DataError, match="the bank is empty"):
        still(*batch(0))
    still.add(*batch(0))
    _, own = still(*batch(1))
    assert int(own.max()) < 16
    assert calls(still) == [16]


def test_rows_that_are_made_stay_in_their_place():
    bank = plain_bank(rate=0.5)
    run(bank, 0, 5)
    images, labels = batch(5)
    views, own = bank(images, labels)
    fresh = own == labels
    assert fresh.sum() >= 8
    alike = (views[fresh] - images[fresh]).flatten(1).abs().mean(1)
    other = (views[fresh] - images[fresh].roll(1, 0)).flatten(1).abs().mean(1)
    assert (alike < other).all()


def test_reuse_crops_and_mirrors():
    bank = Bank(diffaug(), 0.0, 16, seed=1)
    images, labels = batch(0)
    bank.add(images, labels)
    draw = bank.draw(200)
    assert set(draw.top.tolist()) == {0, 1, 2}  # an eighth of 8 pixels on either side
    assert draw.mirror.any()
    views, own = bank.read(draw)
    whole, _ = bank.read(bank.draw_of(draw.entry).index(slice(0, 0)))
    assert whole.shape == (0, 3, 8, 8)
    assert torch.equal(own, labels[draw.entry])
    middle = (draw.top == 1) & (draw.left == 1)
    plain = Bank(diffaug(), 0.0, 16, padding=0, flips=False, seed=1)
    plain.add(images, labels)
    exact, _ = plain.read(plain.draw_of(draw.entry))
    assert torch.equal(views[middle & ~draw.mirror], exact[middle & ~draw.mirror])
    assert torch.equal(views[middle & draw.mirror], exact[middle & draw.mirror].flip(3))
    shifted = (draw.top == 2) & (draw.left == 1) & ~draw.mirror
    assert torch.equal(views[shifted][:, :, :-1], exact[shifted][:, :, 1:])
    assert (views[shifted][:, :, -1] == 0).all()


def test_the_control_repeats_the_same_pictures_without_diffusion():
    with_, without = plain_bank(seed=3), plain_bank(seed=3, source="original")
    for step in range(10):
        images, labels = batch(step)
        (views, own), (pictures, same_own) = with_(images, labels), without(images, labels)
        assert torch.equal(own, same_own)  # the same pictures come again, under the same crops
        originals = torch.stack([batch(int(label) // 16)[0][int(label) % 16] for label in own])
        assert float((pictures - originals).abs().max()) <= 0.5 / 255 + 1e-6
        assert float((views - originals).abs().mean()) > 0.05
    assert calls(without) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_views_of_both_kinds_are_float32_whatever_comes_in(dtype: torch.dtype):
    images, labels = batch(0)
    for source in ("denoised", "original"):
        assert plain_bank(source=source)(images.to(dtype), labels)[0].dtype is torch.float32
    assert torch.equal(plain_bank(source="original").add(images.to(dtype), labels), images.to(dtype).float())


def test_a_bank_is_a_function_of_its_seed():
    before = torch.get_rng_state()
    one, two, other = (run(plain_bank(seed=seed, padding=1, flips=True), 0, 8) for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_file_and_memory_give_the_same(tmp_path: Path):
    assert same(run(plain_bank(path=tmp_path / "a" / "bank"), 0, 30), run(plain_bank(), 0, 30))


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, where: str):
    options: dict[str, Any] = {"path": tmp_path / "bank"} if where == "file" else {}
    undisturbed = run(plain_bank(), 0, 40)
    bank = plain_bank(**options)
    run(bank, 0, 20)
    state = copied(bank.state_dict())
    run(bank, 20, 33)  # killed here: 52 pictures further, and the ring of 64 has gone most of the way round
    del bank
    again = plain_bank(**options, seed=99)
    again.load_state_dict(state)
    assert same(run(again, 20, 40), undisturbed[20:])


def test_a_state_whose_pictures_are_gone_is_refused(tmp_path: Path):
    path = tmp_path / "bank"
    bank = plain_bank(path=path, spare=10)
    run(bank, 0, 20)
    state = bank.state_dict()
    run(bank, 20, 22)
    bank.load_state_dict(state)
    run(bank, 20, 23)
    with pytest.raises(ModelError, match="104 pictures had been written then, 116 have now, and it keeps 10 old ones"):
        bank.load_state_dict(state)
    bank.clear()
    with pytest.raises(ModelError, match="0 have now"):
        bank.load_state_dict(state)
    with pytest.raises(ModelError, match="is gone"):
        plain_bank(path=tmp_path / "other").load_state_dict(state)
    with pytest.raises(ModelError, match="in memory and here is one over a file"):
        plain_bank(path=tmp_path / "other").load_state_dict(run_state())
    with pytest.raises(ModelError, match="a bank with capacity 64; here it is 65"):
        plain_bank(capacity=65).load_state_dict(run_state())
    with pytest.raises(ModelError, match="a bank with made_by"):
        Bank(DiffAug(Counting()), 0.25, 64).load_state_dict(run_state())
    fresh = plain_bank(path=tmp_path / "new").state_dict()
    run(bank, 0, 3)
    bank.load_state_dict(fresh)
    assert bank.held == 0


def run_state() -> dict[str, Any]:
    bank = plain_bank()
    run(bank, 0, 3)
    return bank.state_dict()


def test_a_bank_that_is_made_once_is_read_by_others(tmp_path: Path):
    """Two draws of each of 16 pictures; a reader pairs its view i with picture i by the entry's number."""
    path = tmp_path / "bank"
    maker = Bank(diffaug(), 0.0, 32, path=path, spare=0)
    images, labels = batch(0)
    made = [maker.add(images, labels), maker.add(images, labels)]
    assert not torch.equal(made[0], made[1])
    assert path.stat().st_size == 4096 + 32 * (8 + 3 * 64)
    maker.state_dict()
    for _ in range(2):  # opened twice at once; neither changes the file
        reader = Bank(None, 0.0, path=path, padding=0, flips=False)
        assert (reader.held, reader.capacity) == (32, 32)
        views, own = reader.read(reader.draw_of(16 + torch.arange(16)))
        assert torch.equal(own, labels)
        assert float((views - made[1]).abs().max()) <= 0.5 / 255 + 1e-6
        views, own = reader(images, labels + 100)
        assert int(own.max()) < 16
    with pytest.raises(ConfigError, match="only reads"):
        reader.add(images, labels)
    with pytest.raises(DataError, match="holds the pictures 0 to 31"):
        reader.read(reader.draw_of(torch.tensor([32])))
    del maker
    going_on = Bank(diffaug(), 0.0, path=path)
    assert going_on.written == 32


def test_slots_that_a_killed_writer_touched_do_not_come_again(tmp_path: Path):
    path = tmp_path / "ring"
    bank = Bank(diffaug(), rate=1, capacity=8, path=path, spare=0)
    bank.add(torch.rand(8, 3, 8, 8), torch.arange(8))
    store = bank._store
    assert store is not None
    store.counts[1] = 12  # four more were begun: pictures are there, labels are not
    store.images[:4] = 7
    bank.state_dict()
    del bank, store
    again = Bank(None, rate=0, path=path)
    assert again.held == 4
    assert set(again.draw(200).entry.tolist()) == {4, 5, 6, 7}
    with pytest.raises(DataError, match="4 to 7"):
        again.read(again.draw_of(torch.tensor([3])))


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_file_has_one_writer(tmp_path: Path):
    """A second one is refused, here and in another process; readers are not; a writer that was killed leaves nothing behind."""
    path = tmp_path / "bank"
    first = plain_bank(path=path)
    first.add(*batch(0))
    with pytest.raises(ConfigError, match=r"bank is open for writing already, .* only read it with Bank\(None, rate=0, path=...\)"):
        plain_bank(path=path)
    assert Bank(None, 0.0, path=path).held == 16
    del first
    program = f"import sys, time; from pathlib import Path; from rediffuse.methods.bank_file import Hold; hold = Hold(Path({str(path)!r}))"
    other = subprocess.Popen([sys.executable, "-c", f"{program}; print('held', flush=True); time.sleep(600)"], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match="is open for writing already"):
        plain_bank(path=path)
    other.kill()
    other.communicate()
    assert plain_bank(path=path).held == 16


def test_files_that_are_no_bank_are_refused(tmp_path: Path):
    path = tmp_path / "bank"
    plain_bank(path=path).add(*batch(0))
    sound = path.read_bytes()

    def refused(content: bytes, words: str) -> None:
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            plain_bank(path=path)

    refused(b"", "is no bank of this library")
    refused(b"\x93NUMPY" + sound[6:], "is no bank of this library")
    refused(sound[:-1], "was cut short")
    refused(sound[:2000], "cut short")
    refused(sound[:32] + b"{" + sound[33:40] + b"\xff" + sound[41:], "header of the bank .* cannot be read")
    refused(sound.replace(b'"capacity": 64', b'"capacity": -4'), "makes no sense")
    refused(sound.replace(b'"height": 8', b'"height": 9'), "cut short")
    refused(sound[:16] + b"\xff" * 8 + sound[24:], "is damaged: it counts")
    path.write_bytes(sound)
    assert plain_bank(path=path).held == 16
    with pytest.raises(ConfigError, match=r"was filled by .*denoised.* this one is filled by .*original"):
        plain_bank(path=path, source="original")
    other = diffaug()
    other.denoiser.schedule = NoiseSchedule.from_betas(linear_betas(1000, 1e-4, 0.03))
    with pytest.raises(ConfigError, match="this one is filled by"):  # of the same kind, but not the same
        Bank(other, 0.25, path=path)
    with pytest.raises(ConfigError, match="capacity of 64, asked for was 65"):
        plain_bank(path=path, capacity=65)
    with pytest.raises(DataError, match=f"cannot be read: {os.strerror(2)}"):
        Bank(None, 0.0, path=tmp_path / "none")
    with pytest.raises(DataError, match="cannot be made"):
        plain_bank(path=path / "below").add(*batch(0))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        plain_bank(path=tmp_path / "folder")


def test_a_bank_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"GiB\) cannot be made"):
        plain_bank(path=tmp_path / "bank", capacity=2**45).add(*batch(0))
    assert not (tmp_path / "bank").exists()


def test_a_worker_has_no_bank_of_its_own(tmp_path: Path):
    rows = [(image, int(label)) for image, label in zip(*batch(0), strict=True)]
    for bank in (plain_bank(), plain_bank(path=tmp_path / "file.bank")):

        def collate(found: list[Any], bank: Bank = bank) -> tuple[Tensor, Tensor]:
            return bank(*default_collate(found))

        with pytest.raises(ConfigError, match="a copy that forgets what it made; take it out") as caught:
            list(DataLoader(rows, batch_size=8, num_workers=2, collate_fn=collate))  # type: ignore[arg-type]
        assert "for images, labels in loader:\n        views, labels = bank(images, labels)" in str(caught.value)
        assert bank.held == 0
        list(DataLoader(rows, batch_size=8, collate_fn=collate))  # type: ignore[arg-type]
        assert bank.held == 16


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"rate is a share of the batch and must be in \[0, 1\], got 4"):
        plain_bank(rate=4)
    with pytest.raises(ConfigError, match="capacity is a number and must be at least 1, got 0"):
        plain_bank(capacity=0)
    with pytest.raises(ConfigError, match="source must be one of denoised, original"):
        plain_bank(source="noised")
    with pytest.raises(ConfigError, match=r"give it a DiffAug of fraction 1, got 0\.5"):
        Bank(diffaug(fraction=0.5))
    with pytest.raises(ConfigError, match="without a method only reads"):
        Bank(None)
    bank = plain_bank(capacity=8)
    images, labels = batch(0)
    with pytest.raises(ConfigError, match="a bank of 8 pictures cannot take 16 at once"):
        bank(images, labels)
    assert calls(bank) == []  # said before the work
    with pytest.raises(DataError, match=r"one whole number a picture as its label, \(16,\) here, got torch.float32 \(16, 10\)"):
        bank(images, torch.zeros(16, 10))
    with pytest.raises(DataError, match=r"got torch.int64 \(15,\)"):
        bank(images, labels[1:])
    with pytest.raises(DataError, match="values from -2 to"):
        bank(2 * images - 2, labels)
    bank.add(images[:4], labels[:4])
    with pytest.raises(DataError, match=r"holds pictures \(3, 8, 8\), got \(3, 6, 6\)"):
        bank(images[:4, :, :6, :6], labels[:4])
