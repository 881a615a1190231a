"""What holds for every document: one form, one digest, and no byte that can change unseen."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.encoding import Record, decode, encode
from custody.errors import CustodyError, Malformed
from custody.formats.case import sort_documents
from custody.formats.enrolment import Answer, Challenge
from custody.formats.envelope import (
    Signature,
    decode_envelope,
    decode_statement,
    encode_statement,
    pae,
    statement_digest,
)
from custody.formats.goldenset import GoldenSet, PcrValue
from custody.formats.measurement import Measurement
from custody.formats.policy import Policy
from custody.formats.state import (
    CrlMemory,
    EnrolmentMemory,
    GoldenMemory,
    HostMemory,
    Identity,
    KeyMemory,
    Memory,
    ShareIdentity,
)
from custody.rules.trust import count_signers
from tests.unit.formats.examples import RECORDS, STATEMENTS, VECTORS
from tests.unit.formats.strategies import REGISTERS

POLICY = decode_statement(Policy, (VECTORS / "policy.dsse").read_bytes()).predicate

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
names = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,62}\Z")
texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40)
blobs = st.binary(min_size=1, max_size=80)
counts = st.integers(0, 2**53 - 1)
moments = st.integers(0, 253000000000).map(lambda at: datetime.fromtimestamp(at, UTC))
registers = (
    st.lists(st.integers(0, 23), min_size=1, max_size=24, unique=True)
    .map(sorted)
    .flatmap(
        lambda numbers: st.tuples(
            *(st.builds(PcrValue, pcr=st.just(number), value=digests) for number in numbers)
        )
    )
)

golden_sets = st.builds(
    GoldenSet,
    environment=digests,
    name=names,
    notes=texts,
    epoch=st.integers(2, 2**31),
    oldest=st.integers(1, 2),
    bank=st.just("sha256"),
    pcrs=REGISTERS,
    issued_at=moments,
)
records: st.SearchStrategy[Record] = st.one_of(
    golden_sets,
    st.builds(
        Measurement,
        kind=st.just("custody/measurement/v1"),
        bank=st.just("sha256"),
        pcrs=registers,
        event_log=st.binary(max_size=100),
        measured_at=moments,
    ),
    st.builds(
        Challenge,
        kind=st.just("custody/enrolment-challenge/v1"),
        request=digests,
        enroller=digests,
        credential_blob=blobs,
        encrypted_secret=blobs,
    ),
    st.builds(
        Answer,
        kind=st.just("custody/enrolment-answer/v1"),
        request=digests,
        enroller=digests,
        proof=digests,
    ),
    st.builds(
        Identity,
        kind=st.just("custody/identity/v1"),
        principal=names,
        display=texts,
        role=st.sampled_from(["officer", "custodian", "auditor"]),
        token=texts,
        signing_spki=blobs,
        shares=st.lists(
            st.builds(
                ShareIdentity,
                suite=st.sampled_from(["P256", "P384", "MLKEM1024_P384"]),
                spki=blobs,
                mlkem=st.none() | blobs,
                mlkem_seed_file=st.none() | texts,
            ),
            max_size=2,
        ).map(tuple),
    ),
    st.builds(
        Memory,
        kind=st.just("custody/memory/v1"),
        pin=digests,
        environment=digests,
        policy=digests,
        policy_version=counts,
        crls=st.lists(st.builds(CrlMemory, authority=digests, number=counts), max_size=2).map(
            tuple
        ),
        golden_sets=st.lists(
            st.builds(GoldenMemory, name=names, oldest=st.integers(1, 2**31)), max_size=2
        ).map(tuple),
        hosts=st.lists(
            st.builds(
                HostMemory,
                ek_spki=digests,
                reset_count=st.integers(0, 2**32 - 1),
                keys=st.lists(
                    st.builds(KeyMemory, name=digests.map("000b".__add__), request=digests),
                    max_size=2,
                ).map(tuple),
            ),
            max_size=2,
        ).map(tuple),
        enrolments=st.lists(
            st.tuples(digests, st.integers(0, 2**31), st.integers(1, 2**31), st.none() | moments),
            max_size=2,
        ).map(
            lambda held: tuple(
                EnrolmentMemory(
                    ek_spki=ek,
                    epoch=new,
                    record=ek if new else None,
                    retired=old if at else 0,
                    retired_at=at,
                )
                for ek, new, old, at in held
            )
        ),
    ),
)


@given(records)
def test_what_is_written_is_read_back(record: Record) -> None:
    """For every record, decoding what was encoded gives the record, in the same bytes."""
    data = encode(record)
    again = decode(type(record), data)
    assert record == again
    assert data == encode(again)


@given(golden_sets, st.lists(st.tuples(digests, blobs), min_size=1, max_size=4))
def test_a_statement_has_one_form_and_one_digest(
    golden: GoldenSet, pairs: list[tuple[str, bytes]]
) -> None:
    """However its signatures come, a statement's file is one and its digest is PAE's."""
    signatures = [Signature(keyid=keyid, sig=sig) for keyid, sig in dict(pairs).items()]
    data = encode_statement(golden, signatures)
    assert data == encode_statement(golden, signatures[::-1])
    statement = decode_statement(GoldenSet, data)
    assert golden == statement.predicate
    assert statement_digest(golden) == statement.digest
    assert data == encode(statement.envelope)


@pytest.mark.parametrize("name", sorted(STATEMENTS))
@given(data=st.data())
def test_no_byte_of_a_statement_changes_unseen(name: str, data: st.DataObject) -> None:
    """One changed byte is malformed, or leaves the digest, or leaves no signature that counts."""
    good = bytearray((VECTORS / name).read_bytes())
    kind = STATEMENTS[name]
    digest = decode_statement(kind, bytes(good)).digest
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_statement(kind, bytes(good))
    except Malformed:
        return
    if changed.digest != digest:
        role = "custodian" if kind is Policy else "enroller"
        counted = count_signers(changed.envelope, POLICY, role=role, needed=2)  # type: ignore[arg-type]
        assert () == counted.signers


@pytest.mark.parametrize("name", sorted(RECORDS))
@given(data=st.data())
def test_no_byte_of_a_record_means_nothing(name: str, data: st.DataObject) -> None:
    """One changed byte is malformed or makes another record: no two files say the same."""
    good = bytearray((VECTORS / name).read_bytes())
    before = decode(RECORDS[name], bytes(good))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    try:
        after = decode(RECORDS[name], bytes(good))
    except Malformed:
        return
    assert before != after


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    """No bytes make a reader fail in a way of its own, and a heap lists them as unreadable."""
    for kind in RECORDS.values():
        with pytest.raises(Malformed):
            decode(kind, data)
    with pytest.raises(CustodyError):
        decode_envelope(data)
    assert 1 == len(sort_documents([("x.dsse", data)]).unreadable)


@pytest.mark.parametrize("cut", [1, 100, 1000])
@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_truncated_and_padded_statements_are_malformed(name: str, cut: int) -> None:
    """A statement with its end missing, or anything behind it, is not read."""
    good = (VECTORS / name).read_bytes()
    for bad in (good[:-cut], good + b" " * cut, good * 2):
        with pytest.raises(Malformed):
            decode_statement(STATEMENTS[name], bad)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"payload":', b'{"payload":"", "payload":'),
        (b'{"payload":', b'{"other":1,"payload":'),
        (b'{"payload":', b'{ "payload":'),
        (b'"signatures":[', b'"signatures":[],"signatures":['),
        (b'"payloadType":"application/vnd.in-toto+json"', b'"payloadType":"application/json"'),
        (b"vnd.in-toto", b"vnd.in\\u002dtoto"),
        (b"vnd.in-toto", b"vnd.in\xfftoto"),
    ],
)
def test_other_spellings_are_malformed(old: bytes, new: bytes) -> None:
    """Duplicate and unknown members, white space, escapes and bad UTF-8 are not read."""
    good = (VECTORS / "golden.dsse").read_bytes()
    assert old in good
    with pytest.raises(Malformed):
        decode_envelope(good.replace(old, new, 1))


def test_a_statement_of_another_kind_is_malformed() -> None:
    """A golden set offered where a policy is wanted is refused by its type."""
    with pytest.raises(Malformed, match="of kind goldenset, not policy"):
        decode_statement(Policy, (VECTORS / "golden.dsse").read_bytes())


def test_pae_is_dsses() -> None:
    """The encoding that is signed is the one in the DSSE specification's example."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert expected == pae("http://example.com/HelloWorld", b"hello world")
