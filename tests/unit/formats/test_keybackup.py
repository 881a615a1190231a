"""Key backups: the document shows what the code does, vectors what is not taken."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody.crypto.wrappingkey import load_wrapping_public
from custody.encoding import encode
from custody.errors import Malformed
from custody.formats.envelope import decode_statement, payload_of
from custody.formats.keybackup import KeyAttribute, KeyBackup, WrappingKey
from tests.unit.crypto.vectors import Vector, each
from tests.unit.formats import keybackup_examples as example
from tests.unit.formats.strategies import DIGESTS, MOMENTS, NAMES, TEXTS
from tests.unit.formats.test_specs import SECTIONS

_ATTRIBUTE_NAMES = st.from_regex(r"\A[A-Z][A-Z0-9_]{1,20}\Z")


def test_the_document_shows_the_vectors() -> None:
    """Blocks, digests and files are what follows from the words they are made of."""
    text = example.DOCUMENT.read_text()
    assert example.written(text) == text
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places
    held: dict[str, tuple[type[Any], Any]] = {
        "wrapping-key.dsse": (WrappingKey, example.wrapping_key()),
        "key-backup.dsse": (KeyBackup, example.backup()),
        "authority-backup.dsse": (KeyBackup, example.authority()),
    }
    for name, (kind, said) in held.items():
        data = (example.VECTORS / name).read_bytes()
        assert example.file_of(said) == data
        assert said == decode_statement(kind, data).predicate
    assert example.vectors() == (example.VECTORS / "malformed.txt").read_text()


@each("keybackup/malformed.txt", "reason", "file")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed) as error:
        decode_statement(KeyBackup, base64.b64decode(vector["file"]))
    assert vector["reason"] in error.value.reason
    assert error.value.reason.isprintable()


@given(
    environment=NAMES,
    label=TEXTS.filter(bool),
    made_at=MOMENTS,
    check=DIGESTS,
    values=st.dictionaries(_ATTRIBUTE_NAMES, TEXTS, min_size=1, max_size=9),
)
def test_what_is_written_is_read(**drawn: object) -> None:
    """Every backup that can be written is read as it was, and written the same."""
    values = drawn.pop("values")
    assert isinstance(values, dict)
    attributes = tuple(KeyAttribute(name=n, value=v) for n, v in sorted(values.items()))
    said = replace(example.backup(), attributes=attributes, **drawn)
    data = example.file_of(said)
    again = decode_statement(KeyBackup, data)
    assert said == again.predicate
    assert encode(again.envelope) == data
    assert payload_of(again.predicate) == again.envelope.payload


def test_a_wrapping_key_is_rsa_4096() -> None:
    """Another size, exponent or kind of public key is no wrapping key."""
    good = example.wrapping().spki
    assert 4096 == load_wrapping_public(good).key_size
    for bad in (good[:-1] + b"\x03", good[:-1], b"", example.authority().spki or b""):
        with pytest.raises(Malformed):
            load_wrapping_public(bad)
