"""Scripts and transcripts: the examples are what they say, and what no reader takes."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from custody.errors import Malformed
from custody.formats.ceremony import (
    MAX_SCRIPT_BYTES,
    Admit,
    BackUp,
    Enrol,
    Invite,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    MakePolicy,
    MakeWrapping,
    Script,
    Seat,
    SplitRecovery,
    TrustKey,
    Vouching,
    decode_script,
    encode_script,
    folded,
    looks_like,
)
from custody.formats.policy import HpkeSuite
from custody.formats.transcript import (
    MAX_LINES,
    MAX_TRANSCRIPT_BYTES,
    decode_transcript,
    encode_transcript,
)
from tests.unit.crypto.vectors import Vector, read
from tests.unit.formats import ceremony_example as example
from tests.unit.formats.strategies import DIGESTS, NAMES, SUITES, TEXTS
from tests.unit.formats.test_specs import SECTIONS

READERS = {"script": decode_script, "transcript": decode_transcript}
CASES = read("ceremony/malformed.txt", "kind", "reason", "file")
_FILES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")
_WORDS = TEXTS.filter(bool)
_SEATS = st.builds(
    Seat,
    name=NAMES,
    role=st.sampled_from(("custodian", "officer", "log")),
    token=st.from_regex(r"\A(?:pkcs11|tpm):[a-z0-9;=?&%/_]{0,40}\Z"),
    display=TEXTS,
    holds=st.lists(_WORDS, max_size=3, unique_by=folded).map(tuple),
)
_NAMES = st.lists(NAMES, max_size=3, unique_by=looks_like).map(tuple)
_AMONG = st.lists(NAMES, min_size=1, max_size=4, unique_by=looks_like).flatmap(
    lambda names: st.integers(1, len(names)).map(lambda k: f"{k} of ({', '.join(names)})")
)
_VOUCHING = st.just((None, ())) | st.tuples(
    st.sampled_from(get_args(Vouching)),
    st.lists(DIGESTS, min_size=1, max_size=3, unique=True).map(tuple),
)
_STEPS = st.one_of(
    st.builds(Invite, by=NAMES),
    _VOUCHING.flatmap(
        lambda vouching: st.builds(
            Enrol,
            who=NAMES,
            suite=SUITES | st.just("strongest") | st.none(),
            attestation=st.just(vouching[0]),
            roots=st.just(vouching[1]),
        )
    ),
    st.builds(MakeAuthority, by=NAMES, name=_WORDS),
    st.builds(MakeLogKey, by=NAMES, origin=_WORDS, folder=_FILES, label=_WORDS),
    st.builds(MakeKek, by=NAMES, label=_WORDS, recoverable=st.booleans()),
    _VOUCHING.flatmap(
        lambda vouching: st.builds(
            Admit,
            by=NAMES,
            who=_NAMES,
            files=st.lists(_FILES, max_size=3, unique_by=folded).map(tuple),
            days=st.integers(1, 397),
            attestation=st.just(vouching[0]),
            roots=st.just(vouching[1]),
        )
    ),
    st.builds(
        SplitRecovery,
        by=NAMES,
        among=_AMONG,
        epoch=st.integers(1, 2**31),
        suite=st.sampled_from(get_args(HpkeSuite)),
        passphrase=st.booleans(),
        seal_to=_NAMES,
    ),
    st.builds(MakePolicy, draft=_FILES, signers=_NAMES.filter(bool)),
    st.builds(MakeWrapping, by=NAMES, epoch=st.integers(1, 2**31), opened=_NAMES),
    st.builds(TrustKey, who=NAMES, epoch=st.integers(1, 2**31)),
    st.builds(
        BackUp,
        who=NAMES,
        by=NAMES,
        file=_FILES,
        kek=_WORDS | st.none(),
        epoch=st.integers(1, 2**31),
    ),
)
_SCRIPTS = st.builds(
    Script,
    kind=st.just("custody/ceremony/v1"),
    environment=NAMES,
    title=_WORDS,
    people=st.lists(_SEATS, min_size=1, max_size=3).map(tuple),
    steps=st.lists(_STEPS, min_size=1, max_size=5).map(tuple),
    others=st.sampled_from(("refused", "named")),
)


@pytest.mark.parametrize("vector", CASES, ids=lambda v: f"{v['kind']}: {v['comment']}")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed, match=vector["reason"]) as error:
        READERS[vector["kind"]](base64.b64decode(vector["file"]))
    assert error.value.reason.isprintable()


def test_the_vectors_are_what_their_generator_writes() -> None:
    """Files and vectors come out the same again, byte for byte."""
    for name, made in example.examples().items():
        assert made == (example.VECTORS / name).read_bytes()
    assert example.vectors() == (example.VECTORS / "malformed.txt").read_text()


@pytest.mark.parametrize("name", ["ceremony", "transcript"])
def test_the_documents_show_the_examples(name: str) -> None:
    """A document has its sections in order, and prints and names what the program computes."""
    text = (example.DOCUMENTS / f"{name}.md").read_text()
    assert text == example.filled(text)
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places
    told = {
        "ceremony": (example.DIGEST,),
        "transcript": (example.lines()[4].digest, example.lines()[-1].digest),
    }
    assert all(f"`{digest}`" in text for digest in told[name])


@given(_SCRIPTS)
def test_a_script_is_read_as_it_was_written(script: Script) -> None:
    """Whatever a program writes as a script says the same when it is read."""
    assert script == decode_script(encode_script(script))


@given(st.data())
def test_a_transcript_is_read_as_it_was_written(data: st.DataObject) -> None:
    """Any lines are read as written, and any other byte in them is not the same transcript."""
    some = data.draw(st.lists(st.sampled_from(example.lines()), min_size=1, max_size=4))
    whole = encode_transcript(some)
    assert tuple(some) == decode_transcript(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    with suppress(Malformed):
        assert tuple(some) != decode_transcript(other)


def test_too_large_is_malformed_before_it_is_read() -> None:
    """A byte or a line over the limit is refused unread."""
    with pytest.raises(Malformed, match="larger than"):
        decode_script(b"#" * (MAX_SCRIPT_BYTES + 1))
    with pytest.raises(Malformed, match="larger than"):
        decode_transcript(b"#" * (MAX_TRANSCRIPT_BYTES + 1))
    with pytest.raises(Malformed, match="lines"):
        decode_transcript(b"\n" * (MAX_LINES + 1))
    line = encode_transcript(example.lines()[:1])
    assert MAX_LINES == len(decode_transcript(line * MAX_LINES))


def test_a_deep_script_is_malformed() -> None:
    """Lists within lists do not exhaust the stack."""
    with pytest.raises(Malformed):
        decode_script(b"a = " + b"[" * 100_000)


def test_a_key_has_a_public_half_or_a_check_value() -> None:
    """What names a key is what keys of its use have."""
    with pytest.raises(ValueError, match="spki, check"):
        replace(example.IDA_SIGN, use="kek").__post_init__()
