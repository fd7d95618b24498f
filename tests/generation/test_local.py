"""The engine on a model that is exactly right: cut otherwise, short of memory, broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.generation.conftest import CLASSES, RESULT, Make, Varied, far, mixture

from rediffuse.errors import DataError, ModelError
from rediffuse.generation import local
from rediffuse.generation.store import Run, finished_shards, read_manifest


def test_another_cut_is_equal_within_rounding(make: Make, monkeypatch):
    one = make(batch=1, copies=5)
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    others = [make(name=f"b{batch}", batch=batch, copies=5) for batch in (2, 7)]
    assert [len(finished_shards(run.folder)) for run in (one, *others)] == [1, 3, 1]
    for other in others:
        assert far(one, other) <= 1e-3 + 1 / 255


def test_memory_that_runs_out_halves_the_batch_and_the_rows_say_so(make: Make, monkeypatch):
    class Small(type(mixture())):
        def forward(self, x_t, t, condition=None):
            if len(x_t) > 6:  # three slots, doubled by guidance
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(x_t, t, condition)

    big, small = mixture(), mixture()
    small.__class__ = Small
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    whole = make(name="whole", batch=8, method=Varied(big, CLASSES), copies=16)
    run = make(batch=8, method=Varied(small, CLASSES), copies=16)
    assert len(finished_shards(run.folder)) == 3
    assert set(run.manifest.column("batch").to_pylist()) == {2}
    assert far(whole, run) <= 1e-3 + 1 / 255
    assert {child.name for child in run.folder.iterdir()} == RESULT


def test_pricing_and_previewing_survive_a_batch_that_is_too_large(make: Make, tmp_path: Path, capsys):
    class Small(type(mixture())):
        def forward(self, x_t, t, condition=None):
            if len(x_t) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(x_t, t, condition)

    small = mixture()
    small.__class__ = Small
    method = Varied(small, CLASSES)
    plan = make(batch=8, method=method, copies=16, dry_run=True)
    assert plan.rate > 0
    make(batch=8, method=method, copies=16, preview=6, progress=True)
    assert len(list((tmp_path / "out-preview").glob("*.png"))) == 7  # and the sheet
    assert "out of memory: again with batches of 3" in capsys.readouterr().err
    assert make(batch=8, method=method, copies=16, progress=True).complete


def test_memory_that_never_suffices_is_an_error(make: Make, tmp_path: Path):
    class Tiny(type(mixture())):
        def decode(self, x):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    model = mixture()
    model.__class__ = Tiny
    with pytest.raises(ModelError, match="not even one image of 8 pixels fits"):
        make(method=Varied(model, CLASSES))
    assert finished_shards(tmp_path / "out") == []


def test_other_errors_pass_and_nothing_counts_as_done(make: Make, tmp_path: Path):
    class Broken(type(mixture())):
        def decode(self, x):
            return super().decode(x) * float("nan")

    model = mixture()
    model.__class__ = Broken
    with pytest.raises(DataError, match="NaN"):
        make(method=Varied(model, CLASSES))
    assert read_manifest(tmp_path / "out").num_rows == 0
    assert not (tmp_path / "out" / "partial").exists()
    assert not (tmp_path / "out" / "run.lock").exists()
    with pytest.raises(DataError, match="no finished image yet"):
        Run(tmp_path / "out")


def test_threads_are_the_plans_and_are_given_back(make: Make):
    before = torch.get_num_threads()
    run = make()
    assert run.info["plan"]["threads"] == before == torch.get_num_threads()


def test_nothing_uses_the_global_random_state(make: Make):
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numbers  # noqa: NPY002
