"""`import rediffuse` is cheap: heavy libraries come in when a name is used. Seen through sys.modules, not by a clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rediffuse

HEAVY = ("accelerate", "datasets", "diffusers", "matplotlib", "peft", "pyarrow", "scipy", "sklearn", "torch", "torchvision", "transformers")
LIGHT = ("cyclopts", "fsspec", "huggingface_hub", "jinja2", "numpy", "packaging", "PIL", "rich", "safetensors", "tokenizers")
PROBE = """
import importlib, json, sys
before = set(sys.modules)
found = {}
for name in sys.argv[2:]:
    importlib.import_module(name)
    found[name] = sorted(set(json.loads(sys.argv[1])) & (set(sys.modules) - before))
print(json.dumps(found))
"""


def loaded_after(root: Path, watched: tuple[str, ...], *names: str) -> dict[str, list[str]]:
    """Import the names one after another in a fresh interpreter; which of the watched modules are loaded after each."""
    command = [sys.executable, "-c", PROBE, json.dumps(watched), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root / "src")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def packages(root: Path) -> list[str]:
    source = root / "src"
    return sorted(".".join(path.parent.relative_to(source).parts) for path in (source / "rediffuse").rglob("__init__.py"))


def test_the_probe_sees_a_module(root: Path) -> None:
    assert loaded_after(root, LIGHT, "safetensors") == {"safetensors": ["safetensors"]}


def test_the_package_loads_no_library(root: Path) -> None:
    assert loaded_after(root, HEAVY + LIGHT, "rediffuse") == {"rediffuse": []}


def test_no_room_loads_a_heavy_library(root: Path) -> None:
    found = loaded_after(root, HEAVY, *packages(root))
    assert len(found) > 5
    assert {name: heavy for name, heavy in found.items() if heavy} == {}


def test_at_most_fifteen_public_names() -> None:
    assert len(rediffuse.__all__) <= 15
    assert set(rediffuse.__all__) <= set(dir(rediffuse))


@pytest.mark.parametrize("name", rediffuse.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(rediffuse, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DAFussion'"):
        _ = rediffuse.DAFussion  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names(root: Path) -> None:
    tree = ast.parse((root / "src/rediffuse/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    expected = {name: module if attribute else "rediffuse" for name, (module, attribute) in rediffuse._HOMES.items()}
    assert seen == expected
    assert {*expected, "__version__"} == set(rediffuse.__all__)
