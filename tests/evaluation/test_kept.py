"""Kept blocks: found again by the same call, refused to another, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.kept import Kept, claim, forget, weights_hash


def test_blocks_come_back_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", {"seed": 1})
    assert kept.read("fog-3") is None
    tensors = {"right": torch.tensor([True, False]), "logits": torch.randn(2, 3)}
    kept.write("fog-3", tensors, {"seconds": "1.5"})
    found = Kept(tmp_path / "kept", {"seed": 1}).read("fog-3")
    assert found is not None
    assert all(torch.equal(found[0][key], tensors[key]) for key in tensors)
    assert found[1] == {"seconds": "1.5"}
    with pytest.raises(ConfigError, match=r"another call \(seed 1 there, 2 here\)"):
        Kept(tmp_path / "kept", {"seed": 2})
    (tmp_path / "kept" / "fog-3.kept").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"fog-3\.kept cannot be read"):
        kept.read("fog-3")
    for name in ("", "../out", ".hidden"):
        with pytest.raises(ConfigError, match="named like"):
            kept.write(name, tensors)
    kept.forget()
    assert not (tmp_path / "kept").exists()


def test_a_hash_of_weights_sees_every_value() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_hash(net)
    assert weights_hash(net) == before
    with torch.no_grad():
        net[1].running_mean[1] += 1e-7  # type: ignore[index, operator]
    assert weights_hash(net) != before


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        claim(tmp_path, {})
    with pytest.raises(ConfigError, match="is or holds"):
        claim(tmp_path / "diary.txt", {})
    forget(tmp_path)
    (tmp_path / "kept").mkdir()
    claim(tmp_path / "kept", {"a": 1})
    for name in ("000000000.kept", "model.safetensors"):
        (tmp_path / "kept" / name).write_text("mine")
    forget(tmp_path / "kept")
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["model.safetensors"]
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_a_broken_identity_is_named(tmp_path: Path) -> None:
    claim(tmp_path / "kept", {})
    (tmp_path / "kept" / "identity.json").write_text("{")
    with pytest.raises(ConfigError, match=r"identity\.json cannot be read .* remove"):
        claim(tmp_path / "kept", {})
