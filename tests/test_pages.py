"""What the pages tell people to type: every command parses, every snippet compiles, every import and link is there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from rediffuse.cli.app import build

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `rediffuse ...` that stands on an indented line, without its remark."""
    for line in text.splitlines():
        typed = re.match(r" {4}(?:\.venv/bin/)?rediffuse (?P<words>[^#]*)", line)
        if typed:
            yield shlex.split(typed["words"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    app = build()
    for words in commands(page.read_text(encoding="utf-8")):
        _, bound, unused = app.parse_args(words, exit_on_error=False, print_error=False)[:3]
        assert bound is not None, words
        assert not unused, words


def test_a_command_that_is_not_there_is_found() -> None:
    said = list(commands("text\n\n    rediffuse augment photos/ more/ --copis 10   # a remark\n"))
    assert said == [["augment", "photos/", "more/", "--copis", "10"]]
    with pytest.raises(Exception, match="--copis"):
        build().parse_args(said[0], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_compile_and_import_what_is_there(page: Path) -> None:
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rediffuse"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rd":
                assert hasattr(importlib.import_module("rediffuse"), node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert target.startswith(("http", "mailto:")) or (page.parent / target).exists(), target
