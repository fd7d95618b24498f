"""Checkpoints: files of each writer's own until they are whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from rediffuse.training.checkpoint import keep_checkpoint, read_checkpoint


def test_two_writers_have_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is half written by one is no other one's to replace or to take for whole."""
    path, seen, save = tmp_path / "kept.pt", [], torch.save

    def watched(state: object, file: object) -> None:
        seen.append(file.name)  # type: ignore[attr-defined]
        save(state, file)

    monkeypatch.setattr(torch, "save", watched)
    for process in (4711, 4712):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        keep_checkpoint(path, {"key": "this", "step": process})
    assert len(set(seen)) == 2
    assert [child.name for child in tmp_path.iterdir()] == ["kept.pt"]
    assert read_checkpoint(path, "this") == {"key": "this", "step": 4712}
