"""The loop under every procedure and objective, against loops written out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import robust_run, toys
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.augmix import AugMix
from rediffuse.methods.bank import Bank
from rediffuse.training.augment import CropViews
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Extra, Objective, plain
from rediffuse.training.pool import PixelBank, Pool, pool_of
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.procedure import Procedure, epoch_rows, steps_of
from rediffuse.training.processes import Processes
from rediffuse.training.settings import TrainSettings

IMAGES = toys.striped(6)
STILL = CropViews(padding=0, flips=False)


def pool() -> Pool:
    return pool_of(IMAGES, None, PixelBank(16))


def toy(labels: list[int] | None = None, items: Tensor | None = None) -> Pool:
    """Four pictures, all that is not given sound."""
    items = torch.zeros(4, 3, 16, 16, dtype=torch.uint8) if items is None else items
    return Pool.build(items, torch.tensor([0, 1, 2, 3] if labels is None else labels), None, [()] * 4, 0.0)


def foreign_bank() -> Bank:
    """Filled from a set of more classes."""
    bank = Bank(robust_run.diffaug(), rate=0, capacity=4)
    bank.add(torch.zeros(4, 3, 16, 16), torch.tensor([7, 8, 9, 7]))
    return bank


@pytest.mark.parametrize(
    ("given", "extra", "says"),
    [
        ({"labels": [0, 1, 2, 5]}, None, "label 5 is outside the 4 classes"),
        ({"labels": [0, 1, 2, -1]}, None, "label -1 is outside the 4 classes"),
        ({"labels": [0, 1, 2, -100]}, None, "label -100 is outside the 4 classes"),
        ({"items": torch.rand(4, 3, 16, 16) * 2 - 1}, None, "training set must be uint8, got torch.float32 with values from -"),
        ({"items": torch.full((4, 3, 16, 16), torch.nan)}, None, "from nan to nan"),
        ({"items": torch.zeros(4, 1, 16, 16, dtype=torch.uint8)}, None, "3 channels"),
        ({"items": torch.zeros(4, 12)}, None, r"shape \(N, 3, H, W\), got \(4, 12\)"),
        ({}, Extra(pictures=torch.rand(4, 3, 16, 16) * 255), r"pictures of an Extra must be uint8.*images\.round"),
        ({}, Extra(pictures=torch.zeros(2, 3, 16, 16, dtype=torch.uint8)), "place of 4 pictures, got 2; give one for each"),
        ({}, Extra(pictures=torch.zeros(9, 3, 16, 16, dtype=torch.uint8)), "place of 4 pictures, got 9; give one for each"),
        ({}, Extra(method=foreign_bank()), "the bank's label [789] is outside the 4 classes"),
    ],
)
def test_a_training_refuses_what_it_would_misread(given: dict[str, Any], extra: Extra | None, says: str) -> None:
    objective = Objective(extras=() if extra is None else (extra,))
    settings = TrainSettings(steps=2, batch=4, learning_rate=0.01, weight_decay=0.0)
    with pytest.raises(DataError, match=says):
        fit_network(robust_run.steady_net(), toy(**given), settings=settings, objective=objective)


def by_hand(optimizer: torch.optim.Optimizer, net: Classifier, rates: list[float], pictures: Pool, batch: int) -> None:
    """Cross-entropy over shuffled epochs, nothing else."""
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = epoch_rows(len(pictures.labels), batch, 0, step)
        loss = F.cross_entropy(net(pictures.items[rows].float() / 255), pictures.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_training_is_the_textbook_loop(kind: str) -> None:
    settings = TrainSettings(steps=7, batch=8, learning_rate=0.01, weight_decay=0.1, warmup=0)
    procedure = Procedure(optimizer=kind, schedule="step", drops=(0.5,), order="epochs")  # type: ignore[arg-type]
    trained = fit_network(robust_run.steady_net(), pool(), settings=settings, views=STILL, procedure=procedure)
    net = robust_run.steady_net().train()
    if kind == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), lr=1, momentum=0.9, nesterov=True, weight_decay=0.1)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1, weight_decay=0.1)
    by_hand(optimizer, net, [0.01] * 4 + [0.001] * 3, pool(), 8)
    for name, value in net.state_dict().items():  # a key's bias has no gradient but rounding, which AdamW enlarges
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-4), name


def test_the_average_is_that_of_the_weights_on_the_way() -> None:
    settings = TrainSettings(steps=5, batch=8, learning_rate=0.05, weight_decay=0.0)
    seen: list[dict[str, Tensor]] = []
    start = robust_run.steady_net()
    average = {name: value.clone() for name, value in start.state_dict().items()}

    def note(_done: int, _all: int) -> None:
        seen.append({name: value.clone() for name, value in start.state_dict().items()})

    trained = fit_network(start, pool(), settings=settings, procedure=Procedure(ema=0.25), progress=note)
    for number, weights in enumerate(seen, 1):
        decay = min(0.25, (1 + number) / (10 + number))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    for name, value in average.items():
        assert torch.allclose(trained.state_dict()[name], value, atol=1e-6), name


def test_the_gradient_is_clipped() -> None:
    settings = TrainSettings(steps=1, batch=8, learning_rate=1.0, weight_decay=0.0, warmup=0)
    procedure = Procedure(optimizer="sgd", momentum=0, schedule="constant", clip=0.01)
    start = {name: value.clone() for name, value in robust_run.steady_net().named_parameters()}
    trained = fit_network(robust_run.steady_net(), pool(), settings=settings, procedure=procedure)
    moved = torch.stack([(value - start[name]).square().sum() for name, value in trained.named_parameters()]).sum().sqrt()
    assert float(moved.detach()) == pytest.approx(0.01, rel=1e-3)


def test_an_epoch_shows_every_picture_once() -> None:
    rows = torch.cat([epoch_rows(10, 4, 7, step) for step in range(15)])  # six epochs, batches over their ends
    epochs = rows.view(6, 10)
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 6
    assert not torch.equal(rows[:10], epoch_rows(10, 10, 8, 0))
    assert torch.equal(epoch_rows(3, 7, 0, 0)[:3].sort().values, torch.arange(3))  # a batch larger than the set
    assert steps_of(2, 10, 4) == 5
    assert steps_of(0.5, 10, 4) == 2


def test_half_precision_gives_nearly_the_same_training() -> None:
    settings = TrainSettings(steps=6, batch=8, learning_rate=0.002, weight_decay=0.0)
    losses: list[list[float]] = []
    for dtype in ("float32", "bfloat16"):
        found: list[float] = []
        trained = fit_network(
            robust_run.steady_net(),
            pool(),
            settings=settings,
            procedure=Procedure(dtype=dtype),  # type: ignore[arg-type]
            watch=lambda _, values, found=found: found.append(values["loss"]),
            watch_every=1,
        )
        assert all(value.dtype == torch.float32 for value in trained.parameters())
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("batchnorm", ["joint", "split"])
def test_whose_statistics_batchnorm_keeps(batchnorm: str) -> None:
    """Joint: of all views. Split: of the clean ones, though every view is normalised by its own."""
    start = open_backbone("scratch", IMAGES.classes, size=16)
    first = next(layer for layer in start.modules() if isinstance(layer, nn.BatchNorm2d))
    inputs: list[Tensor] = []
    first.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    settings = TrainSettings(steps=1, batch=8, learning_rate=1e-9, weight_decay=0.0)
    objective = Objective(extras=(Extra(source="independent"),), augmix=AugMix(), batchnorm=batchnorm)  # type: ignore[arg-type]
    fit_network(start, pool(), settings=settings, objective=objective)
    assert [len(given) for given in inputs] == ([32] if batchnorm == "joint" else [8] * 4)
    counted = inputs[0]  # joint: all of them; split: the first call's, the clean views
    assert torch.allclose(first.running_mean, 0.1 * counted.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(first.running_var, 0.9 + 0.1 * counted.var((0, 2, 3)), atol=1e-5)
    assert first.momentum == 0.1


@pytest.mark.parametrize(("batch", "share"), [(1, 1.0), (8, 0.2), (4, 0.1)])
def test_a_view_of_one_picture_has_no_statistics_of_its_own(batch: int, share: float) -> None:
    settings = TrainSettings(steps=4, batch=batch, learning_rate=1e-3, weight_decay=0.0)
    objective = Objective(extras=(Extra(share=share),), batchnorm="split")
    with pytest.raises(ConfigError, match=rf"one view would hold {batch * share:g} pictures of a batch of {batch}; give a larger batch"):
        fit_network(open_backbone("scratch", IMAGES.classes, size=16), pool(), settings=settings, objective=objective)
    fit_network(robust_run.steady_net(), pool(), settings=replace(settings, steps=1), objective=objective)  # it has no BatchNorm


@pytest.mark.parametrize("batchnorm", ["joint", "split"])
def test_a_batch_of_one_picture_has_no_statistics(batchnorm: str) -> None:
    settings = TrainSettings(steps=1, batch=1, learning_rate=1e-3, weight_decay=0.0)
    alone = Objective(batchnorm=batchnorm)  # type: ignore[arg-type]
    for size in (16, 32):
        with pytest.raises(ConfigError, match=r"a batch of 1 shows it a single one; give a batch of at least 2"):
            fit_network(open_backbone("scratch", IMAGES.classes, size=size), pool(), settings=settings, objective=alone)
    for two in (plain(2), Objective(augmix=AugMix())):  # which are looked at together
        fit_network(open_backbone("scratch", IMAGES.classes, size=32), pool(), settings=settings, objective=two)
    fit_network(robust_run.steady_net(), pool(), settings=settings, objective=alone)  # it has no BatchNorm

    class Still(nn.Sequential):
        def train(self, mode: bool = True) -> Still:
            return super().train(False)

    still = Classifier(Still(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 256, 4)), Preprocessing(height=16, width=16), IMAGES.classes)
    fit_network(still, pool(), settings=settings, objective=alone)  # it has learned its statistics before


def test_what_is_watched_are_means_since_the_last_time() -> None:
    def watched(every: int) -> list[tuple[int, Mapping[str, float]]]:
        found: list[tuple[int, Mapping[str, float]]] = []
        settings = TrainSettings(steps=5, batch=8, learning_rate=0.01, weight_decay=0.0)
        fit_network(
            robust_run.steady_net(),
            pool(),
            settings=settings,
            objective=plain(2),
            watch=lambda *seen: found.append(seen),
            watch_every=every,
        )
        return found

    single, pairs = watched(1), watched(2)
    assert [step for step, _ in pairs] == [2, 4, 5]
    assert pairs[0][1]["loss"] == pytest.approx((single[0][1]["loss"] + single[1][1]["loss"]) / 2, rel=1e-5)
    assert pairs[0][1]["loss"] == pytest.approx(pairs[0][1]["clean"] + pairs[0][1]["extra_0"], rel=1e-5)
    assert set(pairs[0][1]) == {"loss", "clean", "extra_0", "learning_rate"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_stay_on_the_kind_of_device_that_was_given(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}

    class Told:
        process_index, num_processes, device = 0, 2, torch.device("cpu")

        def __init__(self, **options: object) -> None:
            told.update(options)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.Accelerator", Told)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    Processes.open(torch.device(device))
    assert told.pop("kwargs_handlers")
    assert told == {"cpu": device == "cpu"}


def test_a_bank_is_written_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Processes(rank=0, count=2, device=torch.device("cpu"))
    monkeypatch.setattr(Processes, "open", lambda _: two)
    settings = TrainSettings(steps=1, batch=4, learning_rate=0.01, weight_decay=0.0)
    bank = Bank(robust_run.diffaug(), rate=0.5, path=tmp_path / "views.bank")
    with pytest.raises(ConfigError, match=r"2 processes would write the bank .*views\.bank; leave out its path"):
        fit_network(robust_run.steady_net(), toy(), settings=settings, objective=Objective(extras=(Extra(method=bank),)))


def test_rates_and_settings() -> None:
    settings = TrainSettings(steps=100, batch=8, learning_rate=0.3, weight_decay=0.0, warmup=0.1)
    step = Procedure(schedule="step", drops=(1 / 3, 2 / 3))
    rates = [step.rate(settings, at) for at in (0, 9, 10, 33, 34, 66, 67, 99)]
    assert rates == pytest.approx([0.03, 0.3, 0.3, 0.3, 0.03, 0.03, 0.003, 0.003])
    assert Procedure(schedule="constant").rate(settings, 99) == 0.3
    for nesterov in (True, False):
        made = Procedure(optimizer="sgd", nesterov=nesterov).optimizer_of([torch.nn.Parameter(torch.zeros(1))], settings)
        assert made.defaults["nesterov"] is nesterov
    assert Procedure().rate(settings, 40) == settings.rate(40)
    assert Procedure(dtype="float32").numbers(torch.device("cpu")) is torch.float32
    assert Procedure(dtype="auto").numbers(torch.device("cpu")) in (torch.float32, torch.bfloat16)
    for options, said in (
        ({"optimizer": "lion"}, "optimizer must be one of adamw, sgd, got 'lion'"),
        ({"ema": 1.0}, "momentum and ema must be in"),
        ({"drops": (0.5, 0.2)}, "drops are growing shares"),
        ({"clip": -1.0}, "clip must be at least 0"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, auto"),
    ):
        with pytest.raises(ConfigError, match=said):
            Procedure(**options)  # type: ignore[arg-type]
    for epochs in (0, math.inf, math.nan):
        with pytest.raises(ConfigError, match=f"epochs, pictures and batch must be above 0 and finite, got {epochs}"):
            steps_of(epochs, 10, 4)
    for wrong in ({"learning_rate": math.inf}, {"learning_rate": math.nan}, {"weight_decay": math.inf}, {"weight_decay": math.nan}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be .* finite, got {next(iter(wrong.values()))}"):
            replace(settings, **wrong)


def test_a_seed_decides_the_clean_views_whatever_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms of one seed see the same pictures in the same crops."""
    from rediffuse.training import loop

    seen: list[list[Tensor]] = []
    make = loop.make_views
    monkeypatch.setattr(loop, "make_views", lambda objective, batch: seen[-1].append(batch.index) or make(objective, batch))
    settings = replace(robust_run.settings(3), batch=6)
    for objective in (plain(), plain(3), Objective(augmix=AugMix())):
        seen.append([])
        fit_network(robust_run.steady_net(), pool(), settings=settings, objective=objective, procedure=Procedure(order="epochs"))
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
