"""The wheel carries everything: built, installed in an empty environment and run there. What a wheel lacks shows here."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

# The first word is looked up among the programs of the new environment.
COMMAND = ["rediffuse", "demo", "--quick"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a program outside the source tree; its output, or a failure that shows it."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source tree with the build backend of the dev extra, so that nothing is fetched."""
    pytest.importorskip("hatchling", reason="the dev extra brings the build backend")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, root, cwd=folder)
    (built,) = folder.glob("rediffuse-*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheel alone and borrows the libraries of the running one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    names = {"base": str(folder), "platbase": str(folder)}
    packages, scripts = (Path(sysconfig.get_path(key, "venv", names)) for key in ("purelib", "scripts"))
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    python = scripts / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    return scripts


def test_the_wheel_holds_every_file_of_the_package(wheel: Path, root: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "src/rediffuse"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout: nothing says which files belong to the package")
    tracked = {name.removeprefix("src/") for name in listed.stdout.split("\0") if name and (root / name).exists()}
    assert "rediffuse/py.typed" in tracked
    assert tracked - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_it_runs_from_the_wheel_alone(programs: Path, tmp_path: Path) -> None:
    where = run(programs / "python", "-c", "import rediffuse; print(rediffuse.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(programs.parent)
    assert run(programs / COMMAND[0], *COMMAND[1:], cwd=tmp_path, HOME=str(tmp_path))
