"""Where figures come from: the commit is that of the code as work began, and of no other checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rediffuse.evaluation.provenance import module_command

SOURCE = Path(module_command.__code__.co_filename)
ASK = """
import pathlib, sys, subprocess
sys.path.insert(0, "src")
from rediffuse.evaluation.provenance import commit, module_command
told = module_command("some.module", ["--out", "/somewhere/else/runs", "--seeds", "3"])
for words in (["add", "."], ["commit", "-qm", "later"]):
    pathlib.Path("src/rediffuse/later.py").write_text("x = 1")
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True)
print(told)
print(commit())
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_at_the_beginning(tmp_path: Path) -> None:
    package = tmp_path / "src" / "rediffuse"
    (package / "evaluation").mkdir(parents=True)
    for folder in (package, package / "evaluation"):
        (folder / "__init__.py").write_text("")
    shutil.copy(SOURCE, package / "evaluation" / "provenance.py")
    shutil.copy(SOURCE.parent.parent / "machine.py", package / "machine.py")

    def git(*words: str) -> str:
        told = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    first = git("rev-parse", "HEAD")
    said = subprocess.run([sys.executable, "-c", ASK], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == ["python -m some.module --out runs --seeds 3", first]
    assert git("rev-parse", "HEAD") != first

    (package / "later.py").write_text("x = 2")
    ask = "import sys; sys.path.insert(0, 'src'); from rediffuse.evaluation.provenance import commit; print(commit())"
    said = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == [git("rev-parse", "HEAD") + "+changes"]
