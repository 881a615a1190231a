"""Key requests, consents, key receipts: the document shows what the code does."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given

from custody.crypto.bind import bind
from custody.crypto.signature import verify
from custody.encoding import encode
from custody.errors import CustodyError, Malformed
from custody.formats.case import sort_documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import decode_envelope, decode_statement
from custody.formats.keyrequest import KeyTerms
from custody.formats.request import Request
from tests.unit.crypto.vectors import Vector, each
from tests.unit.formats import keyrequest_examples as example
from tests.unit.formats import spec_examples
from tests.unit.formats.examples import VECTORS
from tests.unit.formats.fixed import spki
from tests.unit.formats.strategies import DIGESTS, KEY_TERMS, MOMENTS
from tests.unit.formats.test_specs import SECTIONS


def test_the_document_shows_the_vectors() -> None:
    """Blocks, digests and files are what follows from the words they are made of."""
    text = example.DOCUMENT.read_text()
    assert example.written(text) == text
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places
    assert {*example.EXAMPLES} == {found[1] for found in example.BLOCK.finditer(text)}
    for name, data in example.EXAMPLES.items():
        assert data == (example.VECTORS / f"{name}.dsse").read_bytes()
    assert example.vectors() == (example.VECTORS / "malformed.txt").read_text()


@pytest.mark.parametrize("name", example.EXAMPLES)
def test_an_example_is_signed_by_whom_it_names(name: str) -> None:
    """Each example is read as its kind, and its author's signature is good."""
    statement = decode_statement(example.KINDS[name], example.EXAMPLES[name])
    who = "alice sign" if name == "consent" else "mainframe sign"
    verify(spki(who), statement.envelope.signed_bytes(), statement.envelope.signatures[0].sig)


def test_a_case_knows_them() -> None:
    """A heap of files sorts each under its own kind, and a TPM's beside them."""
    files = [(f"{name}.dsse", data) for name, data in example.EXAMPLES.items()]
    files += [
        (f"tpm-{name}.dsse", spec_examples.EXAMPLES[f"{name}/example.dsse"])
        for name in ("request", "receipt")
    ]
    found = sort_documents(files)
    assert () == found.unreadable
    assert [1, 1, 1] == [len(found.key_requests), len(found.consents), len(found.key_receipts)]
    assert (*found.requests, *found.key_requests) == found.asked
    assert (*found.receipts, *found.key_receipts) == found.endings
    assert [2, 2] == [len(found.asked), len(found.endings)]


@each("keyrequest/malformed.txt", "kind", "reason", "file")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed) as error:
        decode_statement(example.KINDS[vector["kind"]], base64.b64decode(vector["file"]))
    assert vector["reason"] in error.value.reason
    assert error.value.reason.isprintable()


def test_a_request_of_one_kind_is_none_of_the_other() -> None:
    """A TPM's request is malformed as a key request, and the reverse: neither passes for it."""
    ours, tpms = example.KINDS["request"], Request
    with pytest.raises(Malformed):
        decode_statement(ours, spec_examples.EXAMPLES["request/example.dsse"])
    with pytest.raises(Malformed):
        decode_statement(tpms, example.EXAMPLES["request"])
    with pytest.raises(Malformed):
        decode_statement(example.KINDS["receipt"], spec_examples.EXAMPLES["receipt/example.dsse"])


def test_no_enrolment_record_is_of_a_host_without_a_tpm() -> None:
    """A TPM cannot be enrolled in the class of keys in an HSM, whatever a policy takes."""
    data = (VECTORS / "enrolment.dsse").read_bytes()
    payload = decode_envelope(data).payload
    changed = payload.replace(b'"trustClass":"software"', b'"trustClass":"hsm-key"')
    assert changed != payload
    held = json.loads(data)
    held["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(Malformed, match="Invalid enum"):
        decode_statement(
            EnrolmentRecord, json.dumps(held, sort_keys=True, separators=(",", ":")).encode()
        )


@given(one=KEY_TERMS, nonce=DIGESTS, deadline=MOMENTS, other=DIGESTS)
def test_every_field_is_in_the_terms(
    one: KeyTerms, nonce: str, deadline: object, other: str
) -> None:
    """Terms that differ anywhere have another digest, and no TPM's terms have theirs."""
    changes = {
        "nonce": nonce,
        "deadline": deadline,
        "manifest": other,
        "policy": other,
        "recipient": other,
        "checkpoint": other,
    }
    for field, value in changes.items():
        changed = msgspec.structs.replace(one, **{field: value})
        assert (changed == one) == (changed.digest() == one.digest())
    assert bind("terms", encode(one)) != one.digest()
    assert ("once", False) == (one.mode, one.keeps_key)


@pytest.mark.parametrize("name", example.EXAMPLES)
def test_no_changed_byte_is_read_as_the_same(name: str) -> None:
    """Every byte of a file that is changed is refused, or gives another statement or signature."""
    data, kind = example.EXAMPLES[name], example.KINDS[name]
    whole = decode_statement(kind, data)
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            found = decode_statement(kind, changed)
        except CustodyError:
            continue
        assert whole.envelope != found.envelope
