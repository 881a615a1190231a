"""The threat model names tests; they had better exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
NAMED = re.compile(r"`([a-z_/]+\.py)::([a-z_0-9]+)`")


@cache
def functions_of(file: str) -> frozenset[str]:
    """List the test functions of a file."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def named() -> list[tuple[str, str]]:
    """List the tests the page names."""
    return sorted(set(NAMED.findall(PAGE.read_text())))


def test_tests_are_named() -> None:
    """The page names tests, in the form this file looks for, and no row of its tables has none."""
    assert 60 <= len(named())
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    tables = "\n".join(rows).split("| who |")[1].split("| property |")[1]
    bare = [row for row in tables.splitlines()[1:] if "---" not in row and "::" not in row]
    assert ["| trap | answer | test |"] * 3 == bare


@pytest.mark.parametrize(("file", "name"), named())
def test_a_named_test_exists(file: str, name: str) -> None:
    """Every test that the threat model names is there."""
    assert name in functions_of(file)
