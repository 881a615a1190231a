from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from custody.crypto.bind import bind
from custody.crypto.signature import verify
from custody.encoding import Digest, sha256
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.approval import Approval, Denial
from custody.formats.case import read_statement
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import (
    MAX_SIGNATURES,
    Envelope,
    Predicate,
    Signature,
    Statement,
    decode_envelope,
    decode_statement,
    encode_statement,
    pae,
    payload_of,
    predicate_type,
    signing_bytes,
    statement_digest,
)
from custody.formats.evidence import parse_attest, unpack_quote, verify_attest
from custody.formats.manifest import Manifest
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.fixed import spki
from tests.unit.formats.strategies import STATEMENTS, signatures

KINDS = pytest.mark.parametrize("kind", STATEMENTS, ids=lambda kind: kind.__name__)
SIGNED: dict[str, tuple[type[Predicate], str]] = {
    "manifest/example.dsse": (Manifest, "pub"),
    "request/example.dsse": (Request, "request"),
    "approval/alice.dsse": (Approval, "alice sign"),
    "approval/denial.dsse": (Denial, "bob sign"),
    "receipt/example.dsse": (Receipt, "receipt"),
}


@KINDS
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read_and_written_again(
    kind: type[Predicate], data: st.DataObject
) -> None:
    """Decoding undoes encoding, encoding undoes decoding, and the digest is of the payload."""
    predicate = data.draw(STATEMENTS[kind])
    given = data.draw(signatures(kind))
    written = encode_statement(predicate, given)
    read = decode_statement(kind, written)
    assert predicate == read.predicate
    assert sorted(given, key=lambda s: s.keyid) == list(read.envelope.signatures)
    assert written == encode_statement(read.predicate, read.envelope.signatures)
    assert statement_digest(predicate) == read.digest == read.envelope.digest()
    assert predicate == read_statement(written).predicate


def _accepted(kind: type[Predicate], who: str, data: bytes) -> Statement[Predicate] | None:
    """Return a statement whose one signature is good, as everybody who believes it checks."""
    try:
        statement = decode_statement(kind, data)
        signature = statement.envelope.signatures[0]
        if isinstance(statement.predicate, Request | Receipt):
            quote = unpack_quote(signature.sig)
            verify_attest(examples.AK, *quote)
            if parse_attest(quote.attest).extra_data != bind(who, bytes.fromhex(statement.digest)):
                raise Refused("bound to another statement", check="attestation.V24")
        else:
            verify(spki(who), statement.envelope.signed_bytes(), signature.sig)
    except CustodyError:
        return None
    return statement


@pytest.mark.parametrize("place", SIGNED)
def test_a_changed_byte_is_refused_or_changes_nothing(place: str) -> None:
    """Whatever byte of a signed file is changed, it is refused or says and is called the same."""
    kind, who = SIGNED[place]
    data = examples.EXAMPLES[place]
    good = _accepted(kind, who, data)
    assert good is not None
    step = max(1, len(data) // 700)
    for at in range(0, len(data), step):
        for change in (0x01, 0x02, 0x04, 0x20, 0x80):
            changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
            found = _accepted(kind, who, changed)
            assert found is None or good.digest == found.digest


@pytest.mark.parametrize("place", SIGNED)
@given(st.data())
def test_a_lost_or_added_byte_is_refused_or_changes_nothing(
    place: str, data: st.DataObject
) -> None:
    """Leaving a byte out or putting one in is refused too."""
    kind, who = SIGNED[place]
    file = examples.EXAMPLES[place]
    at = data.draw(st.integers(0, len(file)))
    put = data.draw(st.binary(max_size=2))
    changed = file[:at] + put + file[at + (0 if put else 1) :]
    found = _accepted(kind, who, changed)
    assert found is None or decode_statement(kind, file).digest == found.digest


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_junk_is_malformed(data: bytes) -> None:
    """Bytes that are no envelope are malformed, never another error."""
    with pytest.raises(Malformed):
        read_statement(data)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_json_that_is_no_statement_is_malformed(value: object) -> None:
    """JSON of any shape in an envelope is malformed, never another error."""
    payload = json.dumps({"predicateType": Denial.PREDICATE_TYPE, "predicate": value}).encode()
    signature = Signature(keyid="00" * 32, sig=b"1")
    envelope = Envelope(
        payload=payload, payload_type="application/vnd.in-toto+json", signatures=(signature,)
    )
    with pytest.raises(Malformed):
        read_statement(msgspec.json.encode(envelope, order="sorted"))


def test_signers_of_a_many_signer_statement_are_in_order() -> None:
    """Signatures are written in keyid order, and read in no other, each key once."""
    one, two = (Signature(keyid=f"{n:064x}", sig=b"1") for n in (1, 2))
    written = encode_statement(examples.ENROLMENT, [two, one])
    assert (one, two) == decode_statement(EnrolmentRecord, written).envelope.signatures
    with pytest.raises(Malformed, match="keyid order"):
        decode_statement(EnrolmentRecord, encode_statement(examples.ENROLMENT, [one, one]))


def test_one_signer_statements_have_one_signature() -> None:
    """A second signature on an approval is malformed, not surplus."""
    many = [Signature(keyid=f"{n:064x}", sig=b"1") for n in (1, 2)]
    with pytest.raises(Malformed, match="more than one signature"):
        decode_statement(Denial, encode_statement(examples.denial(), many))


def test_as_many_signatures_as_allowed() -> None:
    """32 signatures are read, 33 are not."""
    many = [Signature(keyid=f"{n:064x}", sig=b"1") for n in range(MAX_SIGNATURES + 1)]
    assert MAX_SIGNATURES == len(
        decode_envelope(encode_statement(examples.ENROLMENT, many[1:])).signatures
    )
    with pytest.raises(Malformed, match="signatures"):
        decode_envelope(encode_statement(examples.ENROLMENT, many))


def test_a_statement_of_another_kind_is_not_taken() -> None:
    """A denial offered as an approval is malformed, and says what it is."""
    with pytest.raises(Malformed, match="of kind denial, not approval"):
        decode_statement(Approval, examples.EXAMPLES["approval/denial.dsse"])


def test_a_statement_of_no_known_kind_is_not_taken() -> None:
    """A well-formed envelope around something else is malformed, and quotes it printably."""
    payload = payload_of(examples.denial()).replace(b"denial:v1", rb"\u001b[31m")
    file = json.loads(examples.EXAMPLES["approval/denial.dsse"])
    file["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(Malformed) as error:
        read_statement(json.dumps(file, separators=(",", ":")).encode())
    assert str(error.value).isprintable()


def test_the_subject_follows_from_the_predicate() -> None:
    """A statement whose subject is another's is malformed, though its predicate is sound."""
    payload = payload_of(examples.denial())
    other = payload.replace(b'"name":"request.dsse"', b'"name":"manifest.dsse"')
    assert payload != other
    file = json.loads(examples.EXAMPLES["approval/denial.dsse"])
    file["payload"] = base64.b64encode(other).decode()
    with pytest.raises(Malformed, match="subject"):
        decode_statement(Denial, json.dumps(file, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "broken",
    [
        msgspec.structs.replace(examples.denial(), reason="one\ntwo"),
        msgspec.structs.replace(examples.receipt(), counter=2**53),
        msgspec.structs.replace(examples.approval(), leaf="32"),
    ],
)
def test_nobody_signs_what_nobody_reads(broken: Predicate) -> None:
    """A field out of its limits is found when the statement is written, before it is signed."""
    with pytest.raises(Malformed):
        signing_bytes(broken)


def test_pae_counts_bytes() -> None:
    """The lengths in DSSE's pre-authentication encoding are of bytes (DSSE v1.0.2, protocol.md)."""
    assert b"DSSEv1 29 http://example.com/HelloWorld 11 hello world" == pae(
        "http://example.com/HelloWorld", b"hello world"
    )
    assert b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9" == pae("\xe9", "\xe9".encode())


def test_the_digest_is_not_of_the_envelope() -> None:
    """Another signature, or another signer, leaves the statement digest as it was."""
    predicate = examples.denial()
    digests = {
        decode_statement(
            Denial, encode_statement(predicate, [Signature(keyid=f"{n:064x}", sig=bytes([n]))])
        ).digest
        for n in (1, 2)
    }
    payload = payload_of(predicate)
    assert {
        sha256(b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload), payload).hex()
    } == (digests)


def test_the_kind_is_what_the_payload_says() -> None:
    """A reader is chosen by the predicate type alone."""
    for place, (kind, _) in SIGNED.items():
        assert kind.PREDICATE_TYPE == predicate_type(decode_envelope(examples.EXAMPLES[place]))


def _parts(kind: inspect.Type, seen: set[type]) -> Iterator[inspect.Type]:
    yield kind
    if isinstance(kind, inspect.StructType) and kind.cls not in seen:
        seen.add(kind.cls)
        for field in kind.fields:
            yield from _parts(field.type, seen)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _parts(member, seen)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _parts(kind.item_type, seen)


@KINDS
def test_every_field_has_a_limit(kind: type[Predicate]) -> None:
    """No statement has a float, an open dictionary, or a number, text or list without a bound."""
    parts = list(_parts(inspect.type_info(kind), set()))
    assert len(parts) >= 5
    for part in parts:
        assert not isinstance(part, inspect.FloatType | inspect.AnyType | inspect.DictType)
        if isinstance(part, inspect.IntType):
            assert part.ge is not None
            assert part.le is not None
            assert part.le < 2**53
        if isinstance(part, inspect.StrType):
            assert part.max_length is not None or (part.pattern or "").endswith(r"\Z")
        if isinstance(part, inspect.BytesType | inspect.VarTupleType):
            assert part.max_length is not None
        if isinstance(part, inspect.StructType):
            assert part.forbid_unknown_fields
            assert all(field.required for field in part.fields)


def test_the_example_digests() -> None:
    """The digests of the examples are these, whoever computes them."""
    found: dict[str, Digest] = {
        place: decode_statement(kind, examples.EXAMPLES[place]).digest
        for place, (kind, _) in SIGNED.items()
    }
    for place, digest in found.items():
        envelope = json.loads(examples.EXAMPLES[place])
        payload = base64.b64decode(envelope["payload"])
        kind = envelope["payloadType"].encode()
        assert (
            digest == sha256(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)).hex()
        )
