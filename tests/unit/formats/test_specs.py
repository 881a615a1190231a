from __future__ import annotations

import pytest

from custody.encoding import decode, encode
from custody.formats.envelope import decode_statement, encode_statement, payload_of
from tests.unit.formats.examples import (
    DOCUMENTS,
    RECORDS,
    STATEMENTS,
    VECTORS,
    Example,
    examples,
)

ALL = tuple(examples())
SPECS = ("policy", "enrolment", "retirement", "goldenset", "state", "case", "envelope")
#: style: what every format document has, in this order.
SECTIONS = (
    "## Example",
    "## Conventions",
    "## Fields",
    "## Verifying",
    "## What is not authenticated",
    "## Limits",
    "## Rationale",
)


@pytest.mark.parametrize("example", ALL, ids=lambda e: f"{e.document.stem}:{e.name}")
def test_an_example_is_what_its_file_holds(example: Example) -> None:
    """A block without its layout is byte for byte a vector that our reader takes."""
    file, _, part = example.name.partition("#")
    data = (VECTORS / file).read_bytes()
    if file in RECORDS:
        record = decode(RECORDS[file], data)
        assert data == encode(record) == example.compact
        return
    statement = decode_statement(STATEMENTS[file], data)
    assert data == encode_statement(statement.predicate, statement.envelope.signatures)
    assert (data if part else payload_of(statement.predicate)) == example.compact
    assert statement.digest in example.document.read_text()


def test_every_vector_is_shown() -> None:
    """Every file of the example environment appears in a document, and nothing else does."""
    shown = {example.name.partition("#")[0] for example in ALL}
    assert {*STATEMENTS, *RECORDS} == shown
    assert {path.name for path in VECTORS.iterdir() if path.suffix != ".py"} - {
        "__pycache__"
    } == shown


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_shows_before_it_rules(name: str) -> None:
    """A format document has its sections in their order, the example first."""
    text = (DOCUMENTS / f"{name}.md").read_text()
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
