"""Disposals and forgotten keys: documents show what the code does, vectors what is not taken."""

from __future__ import annotations

import base64

import pytest

from custody.errors import Malformed
from custody.formats.disposal import Disposal
from custody.formats.envelope import decode_statement
from tests.unit.crypto.vectors import Vector, each
from tests.unit.formats import disposal_examples as example
from tests.unit.formats.test_specs import SECTIONS


def test_the_documents_show_the_vectors() -> None:
    """Block, digest and files are what follows from the words they are made of."""
    text = example.DOCUMENT.read_text()
    assert example.written(text, example.example()) == text
    other = example.FORGOTTEN.read_text()
    data = example.forgotten(example.forgot())
    assert example.written(other, data) == other
    assert data == example.FORGOTTEN_VECTOR.read_bytes()
    for page in (text, other):
        places = [page.find(f"\n{section}\n") for section in SECTIONS]
        assert -1 not in places
        assert sorted(places) == places
    assert example.example() == (example.VECTORS / "example.dsse").read_bytes()
    assert example.vectors() == (example.VECTORS / "malformed.txt").read_text()
    assert example.said() == decode_statement(Disposal, example.example()).predicate


@each("disposal/malformed.txt", "reason", "file")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed) as error:
        decode_statement(Disposal, base64.b64decode(vector["file"]))
    assert vector["reason"] in error.value.reason
    assert error.value.reason.isprintable()
