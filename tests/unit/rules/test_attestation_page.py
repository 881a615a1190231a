"""docs/attestation.md and the program say the same."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.crypto.vectors import ROOT
from tests.unit.rules.attestation_vectors import KEPT
from tests.unit.rules.wrong_evidence import cases

PAGE = (ROOT / "docs" / "attestation.md").read_text(encoding="utf-8")
RULES = ROOT / "custody" / "rules"
TESTED = re.compile(r"`([a-z_0-9/]+\.py)::(test_[a-z_0-9]+)`")
ROW = re.compile(r"^\| (V\d\d) \|([^|]+)\|([^|]*)\|([^|]+)\|$", re.MULTILINE)


@cache
def functions_of(file: str) -> frozenset[str]:
    """List the functions of a test file."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


def made() -> set[str]:
    """List every check that the rules write down."""
    sources = [path.read_text(encoding="utf-8") for path in RULES.glob("*.py")]
    return {found for text in sources for found in re.findall(r'"attestation\.(V\d\d)"', text)}


def test_the_table_has_every_check_and_no_other() -> None:
    """Each id that the rules write down has one row, and each row an id that they write down."""
    rows = [row[0] for row in ROW.findall(PAGE)]
    assert sorted(made()) == rows


def test_every_check_is_in_the_protocol() -> None:
    """The protocol's table has the same ids."""
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert sorted(made()) == re.findall(r"^\| (V\d\d) \|", protocol, re.MULTILINE)


def test_what_is_missing_is_answered_elsewhere() -> None:
    """Ids that are not checked here are accounted for, and are not checked after all."""
    elsewhere = PAGE.split("| id | answered by |")[1].split("##")[0]
    named = set(
        re.findall(r"\bV\d\d\b", " ".join(re.findall(r"^\| (V[^|]+) \|", elsewhere, re.MULTILINE)))
    )
    assert {"V01", "V03", "V04", "V05", "V06", "V13", "V15", "V52", "V60", "V65"} == named
    assert not named & made()


@pytest.mark.parametrize("row", ROW.findall(PAGE), ids=lambda row: row[0])
def test_a_row_names_what_shows_it(row: tuple[str, str, str, str]) -> None:
    """Each row's vectors fail that check, and so does a case in software; its tests exist."""
    check, _, files, tests = row
    for name in re.findall(r"`([a-z0-9-]+)`", files):
        assert f"attestation.{check}" in KEPT.expected(name), name
    assert any(check in case.fails for case in cases()) or check in {"V55", "V56", "V54"}
    assert TESTED.findall(tests)


@pytest.mark.parametrize(("file", "name"), sorted(set(TESTED.findall(PAGE))))
def test_a_named_test_exists(file: str, name: str) -> None:
    """Every test that the page names is there."""
    assert name in functions_of(file)


def test_every_vector_is_in_the_table() -> None:
    """A vector that is refused stands in the row of the check that refuses it first."""
    rows = {row[0]: set(re.findall(r"`([a-z0-9-]+)`", row[2])) for row in ROW.findall(PAGE)}
    for name in KEPT.names:
        checks = [c for c in KEPT.vector(name)["expect"].split()[1:] if "attestation" in c]
        if checks:
            assert name in rows[checks[0].removeprefix("attestation.")], name


def test_every_fault_named_has_a_test() -> None:
    """Each public identifier in the table is one of the tests' names, and the other way round."""
    section = PAGE.split("## Faults of others")[1].split("\n## ")[0]
    listed = set(re.findall(r"CVE-\d{4}-\d+|GHSA(?:-[a-z0-9]{4}){3}", section))
    tests = [
        n for n in functions_of("unit/rules/test_attestation_cves.py") if n.startswith("test_")
    ]
    for identifier in listed:
        parts = identifier.lower().split("-")
        number = parts[-1] if parts[0] == "cve" else "_".join(parts)
        # A range of numbers is named by its first and its last.
        between = identifier in {"CVE-2022-23949", "CVE-2022-23950", "CVE-2022-23951"}
        assert between or any(number in name.split("_") or number in name for name in tests)
    named = {number for name in tests for number in re.findall(r"_(\d{4,5})(?=_)", name)}
    years = {str(year) for year in range(2018, 2027)}
    assert named - years <= {identifier.rsplit("-", 1)[1] for identifier in listed}


def test_every_file_named_exists() -> None:
    """The page's files are there."""
    for file in re.findall(r"`((?:unit|release|device)/[a-z_/]+\.py|tests/[a-z/]+\.txt)`", PAGE):
        at = file if file.startswith("tests/") else f"tests/{file}"
        assert (ROOT / Path(at)).is_file(), file
