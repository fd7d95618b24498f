"""Classifiers of a hub: what is cached is taken with a word when there is no connection, and only what is read counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.training import toys

from rediffuse.errors import ModelError
from rediffuse.training.model_folders import _needed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASK = """
import sys, warnings
from rediffuse.errors import ModelError
from rediffuse.training.classifier import Classifier
from rediffuse.training.model_folders import model_folder
for spec in sys.argv[1:]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            print("folder", model_folder(spec).name, Classifier.load(spec).classes)
        except ModelError as error:
            print("error", error)
    print("said", *(warning.message for warning in said if "hub" in str(warning.message)))
"""


def test_a_cached_classifier_opens_without_a_connection(tmp_path: Path, root: Path) -> None:
    home = tmp_path / "hub" / "models--me--net"
    kept = home / "snapshots" / COMMIT
    shutil.copytree(toys.resnet_folder(tmp_path / "net"), kept)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root / "src")}
    asked = [f"me/net@{COMMIT}", "me/net", "me/other"]
    ran = subprocess.run([sys.executable, "-c", ASK, *asked], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    pinned, silent, branch, told, missing, _ = ran.stdout.splitlines()
    assert pinned == branch
    assert pinned.startswith(f"folder {COMMIT}")
    assert silent == "said"
    assert f"taken from the local cache: commit {COMMIT}" in told
    assert "no classifier 'me/other'" in missing
    assert "not in the local cache" in missing


def test_what_is_read_of_a_repository() -> None:
    assert _needed(["config.json", "model.safetensors", "README.md", "onnx/config.json", "model.py"]) == [
        "config.json",
        "model.safetensors",
    ]
    for lacking in (["config.json", "pytorch_model.bin"], ["model.safetensors"]):
        with pytest.raises(ModelError, match=r"config\.json with \.safetensors"):
            _needed(lacking)
