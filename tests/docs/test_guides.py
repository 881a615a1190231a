"""The guides are true: every command in them is run, every error they explain exists."""

from __future__ import annotations

import ast
import re
import shutil

import pytest

from custody.lab import swtpm
from custody.ops.spoken import spoken
from tests.docs.story import GUIDES, story, world
from tests.docs.terminal import ROOT, agree

_ROW = re.compile(r"^\| `(?P<reason>[^`]+)` \|", re.MULTILINE)
_FENCE = re.compile(r"(?P<before>[^\n]*\n)```console\n", re.DOTALL)
_SPELLED = re.compile(r"^ +([0-9a-f]{8})  ([a-z ]+)$", re.MULTILINE)

needs_devices = pytest.mark.skipif(
    not (swtpm.available() and shutil.which("softhsm2-util") and shutil.which("setsid")),
    reason="swtpm or SoftHSM is not installed",
)


@needs_devices
@pytest.mark.timeout(600)
def test_the_guides_tell_one_true_story() -> None:
    """Typed in order at people's own terminals, the guides' commands print what is written."""
    differing = []
    with world() as place:
        for block in story():
            shown = place.play(block)
            if not (block.is_hidden or block.is_file or agree(block.text, shown)):
                differing.append(f"{block.label} shows:\n{shown}")
    assert [] == differing


def test_every_command_of_a_guide_is_in_the_story() -> None:
    """No console block of a guide stays unexecuted."""
    for guide in sorted(GUIDES.glob("*.md")):
        before = [found["before"] for found in _FENCE.finditer(guide.read_text())]
        assert before, guide.name
        assert [] == [line for line in before if not line.startswith("<!-- story ")], guide.name


def _said() -> str:
    """Return every string the package holds, with a gap wherever a value is filled in."""
    strings = []
    for module in sorted((ROOT / "custody").rglob("*.py")):
        strings += [
            node.value
            for node in ast.walk(ast.parse(module.read_bytes()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return "\n".join(strings)


def test_every_error_a_guide_explains_exists() -> None:
    """What the tables tell people to look for is what the program says, word for word."""
    said = _said()
    for guide in sorted(GUIDES.glob("*.md")):
        rows = _ROW.findall(guide.read_text())
        assert rows, guide.name
        unsaid = [row for row in rows for piece in row.split("…") if piece.strip() not in said]
        assert [] == unsaid, guide.name


def test_digests_are_spelled_as_they_are_spoken() -> None:
    """The words beside every digest in a guide are that digest's: they teach people to compare."""
    for guide in sorted(GUIDES.glob("*.md")):
        for group, words in _SPELLED.findall(guide.read_text()):
            assert spoken(group) == (f"{group}  {words}",), guide.name
