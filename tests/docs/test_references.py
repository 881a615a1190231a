"""Documents and code name each other truly."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.docs.terminal import ROOT

_PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
_HEADING = re.compile(r"^##+ (\d+(?:\.\d+)?)\.? ", re.MULTILINE)
_CITED = re.compile(r"[Pp]rotocol(?:\.md)?,? sections? (\d+(?:\.\d+)?)(?: and (\d+(?:\.\d+)?))?")
_CHECK = re.compile(r'"attestation\.(V\d\d)"')
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def _sources() -> list[Path]:
    folders = ("custody", "tests", "benchmarks", "docs", "softhsm")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    return [path for path in found if path.suffix in {".py", ".md"}]


def test_every_section_of_the_protocol_that_is_cited_exists() -> None:
    """A reader who follows a citation of the protocol finds the section."""
    there = set(_HEADING.findall(_PROTOCOL))
    cited = {
        (str(path.relative_to(ROOT)), section)
        for path in _sources()
        for found in _CITED.finditer(path.read_text())
        for section in found.groups()
        if section is not None
    }
    assert len(cited) > 10
    assert [] == sorted((path, section) for path, section in cited if section not in there)


def test_every_check_of_the_evidence_is_in_the_protocol() -> None:
    """The ids that verdicts show are the ids of the protocol's table, no more and no fewer."""
    rules = (ROOT / "custody" / "rules").glob("*.py")
    made = {check for rule in rules for check in _CHECK.findall(rule.read_text())}
    listed = set(re.findall(r"^\| (V\d\d) \|", _PROTOCOL, re.MULTILINE))
    assert listed == made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """No link of a document is broken."""
    targets = [(page.parent / target).resolve() for target in _LINK.findall(page.read_text())]
    missing = [str(target.relative_to(ROOT)) for target in targets if not target.exists()]
    assert [] == missing


def test_every_verb_of_the_api_exists() -> None:
    """What docs/api.md lists can be imported by the names it gives."""
    page = (ROOT / "docs" / "api.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `ops.")]
    assert len(rows) > 10
    for row in rows:
        names = re.findall(r"`([^`]+)`", row.split("|")[1])
        module = importlib.import_module("custody." + names[0].rpartition(".")[0])
        for name in names:
            assert callable(getattr(module, name.rpartition(".")[2])), name


def test_every_subcommand_of_the_readme_exists() -> None:
    """The README's table names the commands that each role has, no more and no fewer."""
    import typer.main

    from custody.cli import ROLES

    text = (ROOT / "README.md").read_text()
    listed = dict(re.findall(r"`custody (\w+) ([a-z-]+(?:, [a-z-]+)+)`", text))
    for role, names in listed.items():
        assert role in ROLES
        app = importlib.import_module(f"custody.cli.{role}").app
        command = typer.main.get_command(app)
        assert sorted(names.split(", ")) == sorted(command.commands), role  # type: ignore[attr-defined]


def test_documents_name_no_machine() -> None:
    """No document holds a path of somebody's machine or the address of a registry."""
    wanted = re.compile(r"/home/(?!alice/)|/root/|/tmp/|pypi\.|files\.pythonhosted")
    for page in PAGES:
        assert None is wanted.search(page.read_text()), page.name


def test_the_api_page_runs() -> None:
    """The Python of docs/api.md is Python: every block compiles, and what it imports is there."""
    page = (ROOT / "docs" / "api.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(block, "docs/api.md", "exec")
        imports = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(imports), {})
