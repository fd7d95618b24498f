"""A training goes on as if nothing had happened, killed or on two processes; what is not its own it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.training import robust_run, toys

from rediffuse.errors import ConfigError
from rediffuse.methods.bank import Bank
from rediffuse.training.augment import CropViews
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier
from rediffuse.training.loop import fit_network
from rediffuse.training.objectives import Extra, Objective, base, plain
from rediffuse.training.pool import PixelBank, Pool, pool_of
from rediffuse.training.procedure import PROCEDURE, Procedure
from rediffuse.training.settings import TrainSettings

IMAGES = toys.striped(6)
STILL = CropViews(padding=0, flips=False)


def pool() -> Pool:
    return pool_of(IMAGES, None, PixelBank(16))


def program(*words: object, **environment: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    own = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"} | environment
    return subprocess.Popen([sys.executable, "-m", "tests.training.robust_run", *map(str, words)], cwd=root, env=own)


def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL, twice, with a bank that remembers, averaged weights and momentum; then bit for bit what an unbroken one gives."""
    checkpoint = tmp_path / "state.pt"
    killed = program(checkpoint, tmp_path / "none", "--kill-at", 5)
    assert killed.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):  # and once more, in this process
        stopping(checkpoint, steps)
    assert steps == [4, 5, 6, 7, 8]  # from the checkpoint after three
    continued = robust_run.train(checkpoint)
    whole = robust_run.train(None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name


def stopping(checkpoint: Path, steps: list[int]) -> None:
    def stop(done: int, _: int) -> None:
        steps.append(done)
        if done == 8:
            raise KeyboardInterrupt

    original = robust_run.fit_network
    robust_run.fit_network = lambda *args, **options: original(*args, **(options | {"progress": stop}))  # type: ignore[assignment]
    try:
        robust_run.train(checkpoint)
    finally:
        robust_run.fit_network = original


def pair(checkpoints: Sequence[Path], out: Path, *options: str) -> list[subprocess.Popen[bytes]]:
    """Two processes of one training, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        program(checkpoint, out, *options, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank, checkpoint in enumerate(checkpoints)
    ]


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    """Parts of the same batches, gradients averaged, equal weights at the end."""
    both = pair([tmp_path / "unused"] * 2, tmp_path / "weights", "--steady")
    assert [process.wait(300) for process in both] == [0, 0]
    alone = robust_run.train(None, steady=True).state_dict()
    found = [torch.load(tmp_path / f"weights-{rank}", weights_only=True) for rank in range(2)]
    for name, value in alone.items():
        assert torch.equal(found[0][name], found[1][name]), name
        assert torch.allclose(found[0][name], value, atol=1e-5), name


def test_two_processes_end_alike_and_go_on_together(tmp_path: Path) -> None:
    """With BatchNorm, averaged weights, banks of each one's own and a weight that no picture reaches; killed, they end bit for bit as an
    unbroken training does; one without a checkpoint is told."""
    shared = tmp_path / "checkpoint.pt"
    first, second = (process.wait(300) for process in pair([shared] * 2, tmp_path / "none", "--kill-at", "5"))
    assert first == -signal.SIGKILL
    assert second != 0  # alone it cannot go on
    assert torch.load(shared, weights_only=True)["step"] == 3
    assert [process.wait(300) for process in pair([shared] * 2, tmp_path / "weights", "--again")] == [0, 0]
    found = [torch.load(tmp_path / f"weights-{rank}", weights_only=True) for rank in range(2)]
    assert any("running_var" in name for name in found[0])
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name
    for name, value in torch.load(tmp_path / "weights-again-0", weights_only=True).items():
        assert torch.equal(found[0][name], value), name
    assert len(torch.load(shared, weights_only=True)["banks"]) == 2
    both = pair([shared, tmp_path / "another disk" / "checkpoint.pt"], tmp_path / "never")
    assert all(process.wait(300) for process in both)
    assert not list(tmp_path.glob("never-*"))


def test_a_checkpoint_of_another_objective_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    settings = TrainSettings(steps=2, batch=8, learning_rate=0.01, weight_decay=0.0)

    def train(**options: object) -> None:
        fit_network(robust_run.steady_net(), pool(), settings=settings, checkpoint=path, **options)  # type: ignore[arg-type]

    train()
    train(objective=plain(), procedure=Procedure())  # the same, said in words
    with pytest.raises(ConfigError, match="another training"):
        fit_network(open_backbone("scratch", robust_run.CLASSES, size=16), pool(), settings=settings, checkpoint=path)
    for other in (
        {"objective": plain(2)},
        {"procedure": Procedure(ema=0.5)},
        {"view_size": (8, 8)},
        {"views": STILL},
    ):
        with pytest.raises(ConfigError, match="another training"):
            train(**other)
    with pytest.raises(ConfigError, match=r"another training \(size was \[16, 16\], now \[8, 8\]\); give that command again"):
        train(view_size=(8, 8))
    start = robust_run.steady_net()
    with torch.no_grad():
        start.head.weight.zero_()
    with pytest.raises(ConfigError, match="weights was"):
        fit_network(start, pool(), settings=settings, checkpoint=path)


def test_a_checkpoint_of_other_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved to a machine where auto comes to other numbers, or with a denoiser that was loaded in others."""
    settings = TrainSettings(steps=1, batch=8, learning_rate=0.01, weight_decay=0.0)

    def train(path: Path, numbers: torch.dtype = torch.float32, procedure: Procedure = PROCEDURE) -> None:
        method = robust_run.diffaug()
        method.denoiser.dtype = numbers
        given = {"settings": settings, "objective": base(method), "procedure": procedure, "checkpoint": path}
        fit_network(robust_run.steady_net(), pool(), **given)  # type: ignore[arg-type]

    train(tmp_path / "views.pt")
    with pytest.raises(ConfigError, match=r'objective\.extras\.0\.method\.numbers was "float32", now "bfloat16"\)'):
        train(tmp_path / "views.pt", torch.bfloat16)
    monkeypatch.setattr("rediffuse.denoisers.precision.cpu_computes_bfloat16", lambda: False)
    train(tmp_path / "steps.pt", procedure=Procedure(dtype="auto"))
    monkeypatch.setattr("rediffuse.denoisers.precision.cpu_computes_bfloat16", lambda: True)
    with pytest.raises(ConfigError, match=r'another training \(numbers was "float32", now "bfloat16"\)'):
        train(tmp_path / "steps.pt", procedure=Procedure(dtype="auto"))


def test_a_training_that_was_killed_early_finds_the_bank_as_it_was(tmp_path: Path) -> None:
    """A bank over a file remembers what the steps before a kill wrote, though no checkpoint was kept yet."""
    settings = TrainSettings(steps=4, batch=8, learning_rate=0.01, weight_decay=0.0)

    class KilledError(Exception):
        pass

    def train(name: str, dies: bool = False) -> Classifier:
        def perhaps(done: int, _: int) -> None:
            if dies and done == 2:
                raise KilledError

        bank = Bank(robust_run.diffaug(), rate=0.5, capacity=12, path=tmp_path / f"{name}.bank")
        objective = Objective(extras=(Extra(method=bank),))
        given = {"settings": settings, "objective": objective, "checkpoint": tmp_path / f"{name}.pt", "progress": perhaps}
        return fit_network(robust_run.steady_net(), pool(), **given)  # type: ignore[arg-type]

    with pytest.raises(KilledError):
        train("first", dies=True)
    again, whole = train("first").state_dict(), train("second").state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
