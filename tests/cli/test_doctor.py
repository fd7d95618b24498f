"""The doctor against the truth of this machine, and against broken installations made by the tests."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from rediffuse.cli import doctor
from rediffuse.denoisers import precision
from rediffuse.denoisers.precision import cpu_formats


def rows() -> dict[str, tuple[str, str]]:
    return {name: (value, verdict) for name, value, verdict in doctor.report()}


def fake_distribution(folder: Path, name: str, version: str, source: str | None = None) -> None:
    """An installed distribution as far as importlib can tell, with a module of the same name."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if source is not None:
        (folder / f"{name}.py").write_text(source)


def test_bounds_are_those_of_pyproject(root: Path) -> None:
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    assert dict(line.split(">=") for line in declared) == doctor.CORE


def test_names_what_is_here() -> None:
    found = rows()
    for name in doctor.CORE:
        assert found[name] == (importlib.metadata.version(name), "ok")
    assert found["python"][0].startswith(platform.python_version())
    assert found["torch threads"][0].startswith(f"{torch.get_num_threads()} ")
    assert all(re.match(r"(ok|note: |problem: )", verdict) for _, verdict in found.values())


@pytest.mark.parametrize(
    ("version", "minimum", "opening"),
    [
        ("2.10.0", "2.9", "ok"),
        ("2.9.1", "2.10", "problem: older than 2.10"),
        ("2.13.0+cpu", "2.13.0", "ok"),
        (None, "2.8", "problem: missing; pip install 'torch>=2.8'"),
        ("of my own", "2.8", "note: "),
    ],
)
def test_version_verdict(version: str | None, minimum: str, opening: str) -> None:
    assert doctor.version_verdict("torch", version, minimum).startswith(opening)


@pytest.fixture
def extra_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this process and its children search first."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_broken_torchvision_is_said_plainly(extra_site: Path) -> None:
    fake_distribution(extra_site, "torchvision", "0.0.1", "raise RuntimeError('operator torchvision::nms does not exist')\n")
    _, value, verdict = doctor.torchvision_row()
    assert value == "0.0.1, cannot be imported (RuntimeError: operator torchvision::nms does not exist)"
    assert verdict.startswith("problem: broken")
    assert "pip uninstall torchvision" in verdict
    assert importlib.metadata.version("torch") in verdict


def test_torchvision_that_kills_the_interpreter(extra_site: Path) -> None:
    fake_distribution(extra_site, "torchvision", "0.0.1", "import os\nos.abort()\n")
    _, value, verdict = doctor.torchvision_row()
    assert "exit status -" in value
    assert verdict.startswith("problem: broken")


def test_sound_torchvision(extra_site: Path) -> None:
    fake_distribution(extra_site, "torchvision", "0.0.1", "")
    assert doctor.torchvision_row() == ("torchvision", "0.0.1", "ok")


def test_torch_fidelity_alone_is_a_problem(extra_site: Path) -> None:
    if doctor.installed("torchvision"):
        pytest.skip("torchvision is installed here")
    fake_distribution(extra_site, "torch_fidelity", "0.4.0")
    assert rows()["torch-fidelity"][1].startswith("problem: ")


def test_number_formats_agree_with_the_system() -> None:
    listing = Path("/proc/cpuinfo")
    if not listing.exists() or platform.machine() != "x86_64":
        pytest.skip("no flags of the processor to compare with")
    flags = set(listing.read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    assert ("avx512_bf16" in cpu_formats()) == ("avx512_bf16" in flags)
    assert ("amx" in cpu_formats()) == ("amx_tile" in flags)


def test_number_formats_when_torch_no_longer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert doctor.number_format_row()[2].startswith("note: the processor runs float32")


def test_half_precision_pays_by_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for amd, verdict in ((True, "ok: "), (False, "note: the processor runs float32; ")):
        monkeypatch.setattr(precision, "is_amd", lambda amd=amd: amd)
        assert doctor.number_format_row()[2].startswith(verdict)


def test_free_room_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert doctor.free_gb(tmp_path / "not" / "yet") == pytest.approx(doctor.free_gb(tmp_path), rel=0.1)


def test_bundled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "files", lambda package: tmp_path)
    assert doctor.bundled_rows()[0][2].startswith("note: ")
    whole, hollow = tmp_path / "weights" / "whole" / "unet", tmp_path / "weights" / "hollow"
    whole.mkdir(parents=True)
    hollow.mkdir()
    (whole / "model.safetensors").write_bytes(bytes(2**20))
    hollow_row, whole_row = doctor.bundled_rows()
    assert whole_row == ("bundled whole", "1.0 MiB", "ok")
    assert hollow_row[2].startswith("problem: ")


def test_the_program_prints_every_row_and_its_status_follows(root: Path) -> None:
    wide = os.environ | {"COLUMNS": "200"}
    command = [sys.executable, "-m", "rediffuse.cli.doctor"]
    done = subprocess.run(command, cwd=root / "src", env=wide, capture_output=True, text=True, check=False)
    found = doctor.report()
    assert all(name in done.stdout for name, _, _ in found)
    assert done.returncode == int(any(verdict.startswith("problem") for _, _, verdict in found))


def test_markup_in_a_value_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=100).print(doctor.table([("[red]name", "[/] [bold]", "ok")]))
    shown = capsys.readouterr().out
    assert "[red]name" in shown
    assert "[/] [bold]" in shown
