"""Case files: the same bytes from the same members, and no byte that nobody checks."""

from __future__ import annotations

import base64
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.encoding import sha256
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.casefile import (
    MAX_BYTES,
    decode_case_file,
    encode_case_file,
    member_name,
    suffix_of,
)
from tests.unit.crypto.vectors import Vector, each
from tests.unit.formats import casefile_examples as example
from tests.unit.formats.test_specs import SECTIONS

DENIALS = st.builds(
    example.denial, st.sampled_from(("alice", "bob", "carol")), st.sampled_from(("no", "not yet"))
).map(lambda data: (".dsse", data))
OTHERS = st.tuples(
    st.sampled_from((".cer", ".crl", ".tlog-proof", ".tlog-consistency", ".tsr")),
    st.binary(min_size=1, max_size=40),
)
FILES = st.lists(DENIALS | OTHERS, min_size=1, max_size=6)


def test_the_document_shows_the_vectors() -> None:
    """Every block and file is what follows from the words it is made of."""
    text = example.DOCUMENT.read_text()
    assert example.blocks() == dict(example.BLOCK.findall(text))
    assert example.whole() == (example.VECTORS / "example.case").read_bytes()
    assert example.vectors() == (example.VECTORS / "malformed.txt").read_text()
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places


@each("casefile/malformed.txt", "reason", "file", "made")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is refused for its reason, said in one printable line."""
    made = {comment: data for comment, _, data in example.malformed()}
    data = made[vector["comment"]]
    if "file" in vector:
        assert base64.b64decode(vector["file"]) == data
    with pytest.raises((Malformed, Refused)) as error:
        decode_case_file(data)
    assert vector["reason"] in error.value.reason
    assert error.value.reason.isprintable()


def test_a_changed_member_is_refused_by_its_name() -> None:
    """Who changes a member, and makes the outer digest fit, is told which member it was."""
    (name, data), *_ = decode_case_file(example.whole())
    body = example.whole()[:-32].replace(data[100:120], bytes(20))
    with pytest.raises(Refused) as error:
        decode_case_file(body + sha256(body))
    assert ("casefile.member", name) == (error.value.check, error.value.where)


@given(files=FILES, choice=st.randoms())
def test_the_same_members_give_the_same_bytes(
    files: list[tuple[str, bytes]],
    choice: Random,
) -> None:
    """In whatever order and however often they come; and what is read is what was put in."""
    shuffled = [*files, files[0]]
    choice.shuffle(shuffled)
    whole = encode_case_file(files)
    assert whole == encode_case_file(shuffled)
    read = decode_case_file(whole)
    assert {(member_name(suffix, data), data) for suffix, data in files} == set(read)
    assert whole == encode_case_file((suffix_of(name), data) for name, data in read)


@given(data=st.binary(max_size=300))
def test_junk_is_refused(data: bytes) -> None:
    """Bytes that nobody wrote are malformed, never a fault."""
    with pytest.raises(CustodyError):
        decode_case_file(data)


@given(at=st.integers(0, len(example.whole()) - 33), flip=st.integers(1, 255))
def test_no_byte_is_unchecked(at: int, flip: int) -> None:
    """One changed byte is refused, also where the outer digest was made to fit."""
    changed = bytearray(example.whole()[:-32])
    changed[at] ^= flip
    with pytest.raises(CustodyError):
        decode_case_file(bytes(changed) + sha256(bytes(changed)))


@given(start=st.integers(0, 2400), size=st.integers(0, 400), put=st.binary(max_size=400))
def test_cut_and_filled_files_are_refused(start: int, size: int, put: bytes) -> None:
    """What is taken out or put in anywhere is refused, or leaves the file what it was."""
    body = example.whole()[:-32]
    changed = body[:start] + put + body[start + size :]
    if changed == body:
        return
    with pytest.raises(CustodyError):
        decode_case_file(changed + sha256(changed))


def test_one_statement_by_two_signers_is_two_members() -> None:
    """A copy that somebody else signed is a member of its own, to be named as such."""
    files = [(".dsse", example.denial("alice", "no", by=who)) for who in ("alice", "bob")]
    read = decode_case_file(encode_case_file(files))
    assert 1 == len({name for name, _ in read})
    assert {data for _, data in files} == {data for _, data in read}


def test_the_size_is_bounded_before_anything_is_read() -> None:
    """A file above the limit is refused for its size alone."""

    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_BYTES + 1

    with pytest.raises(Malformed, match="larger than"):
        decode_case_file(Huge(example.whole()))


@pytest.mark.parametrize("name", ["a.exe", "a", ".tsr.gz", "x.DSSE", "a.dsse/"])
def test_other_suffixes_are_none_of_ours(name: str) -> None:
    """Only what a case has can be a member."""
    assert not suffix_of(name)
