from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.encoding import (
    MAX_NESTING,
    Bytes32,
    Count,
    Moment,
    Record,
    Text,
    check_nesting,
    decode,
    encode,
    format_time,
    key_id,
    parse_time,
    sha256,
)
from custody.errors import Malformed
from tests.unit.formats.strategies import BYTES32, COUNTS, MOMENTS, TEXTS


class Note(Record, frozen=True):
    """A record of every simple type."""

    key: Bytes32
    made_at: Moment
    number: Count
    words: Text


NOTES = st.builds(Note, key=BYTES32, made_at=MOMENTS, number=COUNTS, words=TEXTS)


def _by_json(data: bytes) -> bytes:
    """Write JSON again by another library, in the form encoding.md describes."""
    return json.dumps(
        json.loads(data), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).encode()


@settings(deadline=None)
@given(NOTES)
def test_the_canonical_form_is_what_another_library_writes(note: Note) -> None:
    """What is written, Python's own json writes too: nothing in it is this library's habit."""
    data = encode(note)
    assert data == _by_json(data)
    assert note == decode(Note, data)
    assert ["key", "madeAt", "number", "words"] == list(json.loads(data))


@settings(deadline=None)
@given(NOTES, st.data())
def test_an_accepted_document_reads_the_same_elsewhere(note: Note, data: st.DataObject) -> None:
    """Whatever is put in or taken out, what is still accepted is in the one form json writes."""
    good = encode(note)
    at = data.draw(st.integers(0, len(good)))
    put = data.draw(st.sampled_from((b"", b" ", b"0", b"e0", b".0", b"-", b"\\u0061", b"=", b"A")))
    cut = data.draw(st.integers(0, 2))
    changed = good[:at] + put + good[at + cut :]
    try:
        found = decode(Note, changed)
    except Malformed:
        return
    assert changed == encode(found) == _by_json(changed)


@given(st.binary(max_size=300))
def test_nesting_is_bounded_on_any_bytes(junk: bytes) -> None:
    """Looking for nesting ends on any input, and finds what is one list too deep in it."""
    check_nesting(b"[" * MAX_NESTING + b'"' + junk.replace(b'"', b"").replace(b"\\", b"") + b'"')
    with pytest.raises(Malformed, match="deep"):
        check_nesting(b'"[[[[\\"[["' + b"[" * (MAX_NESTING + 1) + junk)


def test_brackets_in_texts_do_not_nest() -> None:
    """A text full of brackets is no list, escaped quotes or not."""
    check_nesting(json.dumps({"a": "[" * 100 + '"' + "\\[" * 100}).encode())


@pytest.mark.parametrize(
    "text",
    [
        "2027-1-5T0:0:0Z",
        "2027-01-05T00:00:00+00:00",
        "2027-01-05 00:00:00Z",
        "2027-01-05T00:00:60Z",
        "2027-01-05T24:00:00Z",
        " 2027-01-05T00:00:00Z",
        "2027-01-05T00:00:00Z\n",
        "\uff12\uff10\uff12\uff17-01-05T00:00:00Z",
        "",
    ],
)
def test_times_have_one_form(text: str) -> None:
    """A time typed in any other form than 2027-01-05T00:00:00Z is malformed."""
    with pytest.raises(Malformed, match="RFC 3339"):
        parse_time(text)


@given(MOMENTS)
def test_times_are_read_as_written(moment: datetime) -> None:
    """Reading undoes writing, to the second."""
    assert moment == parse_time(format_time(moment))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2027, 1, 5, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2027, 1, 5, tzinfo=timezone(timedelta(hours=1))),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
    ],
)
def test_moments_are_checked_where_they_are_made(moment: datetime) -> None:
    """A record cannot be made with a fraction of a second, another zone or an absurd year."""
    with pytest.raises(ValueError, match="made_at"):
        Note(key=bytes(32), made_at=moment, number=0, words="")


def test_what_is_quoted_is_printable() -> None:
    """An error never repeats a control character of the input."""
    with pytest.raises(Malformed) as error:
        decode(Note, b'{"\\u001b[31m":1}')
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"kind":"custody/measurement/v1"}', "note: its kind is custody/measurement/v1"),
        (b'{"payload":"","payloadType":"a"}', "note: it is a signed statement"),
        (b'{"kind":"custody/\\u001b/v1"}', "note: Object contains unknown field `kind`"),
        (b'{"kind":1}', "note: Object contains unknown field `kind`"),
    ],
)
def test_another_document_is_told_by_what_it_says_it_is(data: bytes, words: str) -> None:
    """Who gives the wrong file reads which one it was, where the file says so in its own words."""
    with pytest.raises(Malformed, match=words):
        decode(Note, data)


def test_digests_are_of_the_concatenation() -> None:
    """A key id is SHA-256 of the SPKI; parts are hashed as one."""
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == key_id(b"abc")
    assert key_id(b"abc") == sha256(b"a", bytearray(b"b"), memoryview(b"c")).hex()
