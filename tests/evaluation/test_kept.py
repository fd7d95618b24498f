"""Kept blocks: found again by the same call, refused to another, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.toys import striped
from torch import nn

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.kept import Kept, claim, fingerprint, forget, in_blocks, in_noted_blocks
from rediffuse.training.checkpoint import weights_hash


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


def test_blocks_that_are_done_are_not_made_again(tmp_path: Path) -> None:
    made: list[slice] = []

    def make(rows: slice) -> dict[str, torch.Tensor]:
        made.append(rows)
        return {"rows": torch.arange(11)[rows]}

    kept = Kept(tmp_path / "kept", {})
    first = next(in_blocks(11, 4, make, kept, "set-"))
    assert first[0] == slice(0, 4)
    found = list(in_blocks(11, 4, make, kept, "set-"))
    assert made == [rows for rows, _ in found] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    assert torch.equal(torch.cat([block["rows"] for _, block in found]), torch.arange(11))
    assert kept.has("set-000000008")
    assert not kept.has("000000008")
    assert len(list(in_blocks(11, 4, make, None))) == 3
    assert len(made) == 6


def test_notes_of_blocks_come_back(tmp_path: Path) -> None:
    made: list[slice] = []

    def make(rows: slice) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        made.append(rows)
        return {"rows": torch.arange(5)[rows]}, {"begins": repr(rows.start / 3)}

    kept = Kept(tmp_path / "kept", {})
    for _ in range(2):
        found = list(in_noted_blocks(5, 2, make, kept))
        assert [(rows.start, float(notes["begins"])) for rows, _, notes in found] == [(0, 0.0), (2, 2 / 3), (4, 4 / 3)]
        assert torch.equal(torch.cat([block["rows"] for _, block, _ in found]), torch.arange(5))
    assert len(made) == 3


def test_a_hash_of_weights_sees_every_value() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_hash(net)
    assert weights_hash(net) == before
    with torch.no_grad():
        net[1].running_mean[1] += 1e-7  # type: ignore[index, operator]
    assert weights_hash(net) != before


def test_the_hash_of_a_set_sees_ids_pixels_labels_and_order() -> None:
    images = striped(2, classes=2, size=4)
    other = images.with_classes([*reversed(images.classes)])
    assert fingerprint(other) == fingerprint(images)  # the same classes by name
    examples = list(images)
    changed = [
        [replace(examples[0], label=1), *examples[1:]],
        [replace(examples[0], label=None), *examples[1:]],
        [replace(examples[0], id="other"), *examples[1:]],
        [replace(examples[0], image=examples[2].image), *examples[1:]],
        examples[::-1],
    ]
    found = {fingerprint(ImageSet.of(each, classes=images.classes)) for each in changed}
    assert len(found | {fingerprint(images)}) == 6


def test_a_difference_names_what_it_is_of(tmp_path: Path) -> None:
    claim(tmp_path / "kept", {"models": {"plain": {"weights": "abc"}, "robust": {"weights": "def"}}})
    with pytest.raises(ConfigError, match=r"another call \(models > plain > weights abc there, xyz here\)"):
        claim(tmp_path / "kept", {"models": {"plain": {"weights": "xyz"}, "robust": {"weights": "def"}}})


def test_a_run_killed_as_it_took_the_folder_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".identity.json.4711.partial").write_text("{")
    claim(tmp_path / "kept", {"a": 1})
    forget(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


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
