"""Notes, checkpoints, tiles, proofs and requests, as C2SP writes them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.notekeys import KeyKind, NoteKey, parse_vkey
from custody.encoding import encode
from custody.errors import Malformed, Refused
from custody.formats.approval import Denial
from custody.formats.checkpoint import (
    Checkpoint,
    check_signed_by,
    cosign_checkpoint,
    decode_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from custody.formats.envelope import decode_envelope
from custody.formats.logentry import LogEntry, decode_entry, entry_of
from custody.formats.logproof import LogProof, decode_proof
from custody.formats.note import Note, NoteSignature, decode_note, encode_note
from custody.formats.tiles import TilePlace, join_bundle, parse_path, split_bundle
from custody.formats.witnessing import CosignRequest, decode_cosign_request
from tests.unit.crypto.vectors import VECTORS, Vector, each
from tests.unit.log.logs import ORIGIN, entries, signed, signer, witness_signer

READERS: dict[str, Callable[[bytes], object]] = {
    "note": decode_note,
    "checkpoint": lambda data: parse_checkpoint(data.decode()),
    "vkey": lambda data: parse_vkey(data.decode()),
    "path": lambda data: parse_path(data.decode()),
    "bundle": lambda data: split_bundle(data, 1),
    "proof": decode_proof,
    "request": decode_cosign_request,
    "entry": decode_entry,
}

NAMES = st.text("abcXYZ019./-_é", min_size=1, max_size=20)
HASHES = st.binary(min_size=32, max_size=32)
LINES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=20)
SIZES = st.integers(0, 2**63 - 1)
SIGNATURES = st.builds(
    NoteSignature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=90)
)
NOTES = st.builds(
    Note,
    st.lists(LINES, min_size=1, max_size=4).map(lambda lines: "".join(f"{x}\n" for x in lines)),
    st.lists(SIGNATURES, min_size=1, max_size=4).map(tuple),
)
CHECKPOINTS = st.builds(
    Checkpoint,
    LINES.filter(bool),
    SIZES,
    HASHES,
    st.lists(LINES.filter(bool), max_size=2).map(tuple),
)
SIGNED = st.builds(
    lambda checkpoint, lines: decode_checkpoint(encode_note(Note(checkpoint.text(), tuple(lines)))),
    CHECKPOINTS,
    st.lists(SIGNATURES, min_size=1, max_size=3),
)
PROOFS = st.builds(
    LogProof,
    SIZES,
    st.lists(HASHES, max_size=63).map(tuple),
    SIGNED,
    st.none() | st.binary(min_size=1, max_size=40),
)
REQUESTS = st.builds(CosignRequest, SIZES, st.lists(HASHES, max_size=63).map(tuple), SIGNED)


def unescape(text: str) -> bytes:
    """Read the escapes of a vector."""
    quoted = text.replace('"', '\\"')
    if "\\x" in text:
        return bytes(ast.literal_eval(f'b"{quoted}"'))
    return text.replace("\\n", "\n").replace("\\t", "\t").encode()


@each("checkpoint/notes.txt", "note", "keys", "seconds")
def test_notes_of_others_verify(vector: Vector) -> None:
    """What real logs and witnesses signed verifies here, and is written back byte for byte."""
    data = unescape(vector["note"])
    note = decode_note(data)
    assert data == encode_note(note)
    keys = [parse_vkey(text) for text in vector["keys"].split()]
    assert vector["keys"].split() == [key.vkey for key in keys]
    times = [note.by(key) for key in keys]
    assert all(len(found) == 1 for found in times)
    last = None if vector["seconds"] == "-" else int(vector["seconds"])
    assert (last,) == times[-1]
    other = Note("x" + note.text, note.signatures)
    for key in keys:
        with pytest.raises(Refused) as refused:
            other.by(key)
        assert "note.signature" == refused.value.check


@each("checkpoint/malformed.txt", "as", "data")
def test_what_is_malformed(vector: Vector) -> None:
    """Each is refused by its reader as malformed, never by another error."""
    data = unescape(vector["data"])
    with pytest.raises(Malformed):
        READERS[vector["as"]](data)


def test_printed_examples_are_read() -> None:
    """The examples that the specifications print, whose keys they do not, are read and written.

    tlog-checkpoint, tlog-cosignature and tlog-witness; the request's proof is cut short there.
    """
    text = (VECTORS / "checkpoint" / "request.txt").read_bytes()
    request = decode_cosign_request(text)
    assert text == request.encode()
    assert (20852014, 20852163, 4) == (
        request.old_size,
        request.signed.checkpoint.size,
        len(request.proof),
    )
    cosigned = (VECTORS / "checkpoint" / "cosigned.txt").read_bytes()
    found = decode_checkpoint(cosigned)
    assert cosigned == found.encode()
    assert "example.com/behind-the-sofa" == found.checkpoint.origin
    assert 1679315147 == int.from_bytes(found.note.signatures[1].signature[:8], "big")
    poem = (VECTORS / "checkpoint" / "poem.txt").read_bytes()
    assert "\n\ned è subito sera.\n" == decode_note(poem).text[-20:]


@given(NOTES)
def test_notes_are_written_as_they_are_read(note: Note) -> None:
    """Reading what was written gives the same note."""
    assert note == decode_note(encode_note(note))


@given(PROOFS)
def test_proofs_are_written_as_they_are_read(proof: LogProof) -> None:
    """Reading what was written gives the same proof."""
    assert proof == decode_proof(proof.encode())


@given(REQUESTS)
def test_requests_are_written_as_they_are_read(request: CosignRequest) -> None:
    """Reading what was written gives the same request."""
    assert request == decode_cosign_request(request.encode())


@given(st.none() | st.integers(0, 63), st.integers(0, 2**55), st.integers(1, 256))
def test_paths_are_written_as_they_are_read(level: int | None, index: int, width: int) -> None:
    """Reading what was written gives the same place."""
    place = TilePlace(level, index, width)
    assert place == parse_path(place.path())


def test_the_path_of_the_specification() -> None:
    """tlog-tiles: index 1234067 is x001/x234/067."""
    assert "tile/0/x001/x234/067" == TilePlace(0, 1234067).path()
    assert "tile/entries/273.p/112" == TilePlace(None, 273, 112).path()


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_bundles_are_written_as_they_are_read(rows: list[bytes]) -> None:
    """Reading what was written gives the same entries."""
    assert tuple(rows) == split_bundle(join_bundle(rows), len(rows))


@given(st.data())
def test_one_byte_changed_is_another_document_or_none(data: st.DataObject) -> None:
    """Whatever reads at all re-encodes to the bytes it was read from: there is one spelling."""
    cases: list[tuple[bytes, Callable[[bytes], bytes]]] = [
        (data.draw(PROOFS).encode(), lambda found: decode_proof(found).encode()),
        (data.draw(REQUESTS).encode(), lambda found: decode_cosign_request(found).encode()),
        (data.draw(SIGNED).encode(), lambda found: decode_checkpoint(found).encode()),
        (signer().note_key.vkey.encode(), lambda found: parse_vkey(found.decode()).vkey.encode()),
        (
            TilePlace(3, 1234067, 17).path().encode(),
            lambda found: parse_path(found.decode()).path().encode(),
        ),
        (entries(0, 1)[0], lambda found: decode_entry(found).encode()),
    ]
    good, again = data.draw(st.sampled_from(cases))
    at = data.draw(st.integers(0, len(good) - 1))
    changed = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    try:
        found = again(changed)
    except (Malformed, UnicodeDecodeError):
        return
    assert changed == found


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
def test_junk_is_malformed(reader: str, data: bytes) -> None:
    """Any bytes are read or malformed: no other error comes."""
    with suppress(Malformed, UnicodeDecodeError):
        assert READERS[reader](data) is not None


def test_a_log_signs_and_a_witness_cosigns() -> None:
    """Both signatures verify by their verifier keys, and the cosignature says when."""
    made = signed(entries(0, 3))
    witness = witness_signer()
    line = cosign_checkpoint(made.checkpoint, witness, seconds=1_800_000_000)
    found = decode_checkpoint(made.with_signatures(line).encode())
    check_signed_by(found, parse_vkey(signer().note_key.vkey))
    assert (1_800_000_000,) == found.note.by(parse_vkey(witness.note_key.vkey))
    assert found == found.with_signatures(line)


def test_a_signature_has_one_use() -> None:
    """A witness's signature is none by the same key as a log, nor at another time."""
    made = signed(entries(0, 3))
    witness = witness_signer()
    line = cosign_checkpoint(made.checkpoint, witness, seconds=1_800_000_000)
    public = witness.note_key.public
    as_log = NoteKey(witness.name, KeyKind.ED25519, public)
    later = (1_800_000_001).to_bytes(8, "big") + line.signature[8:]
    wrong = [
        (as_log, NoteSignature(witness.name, as_log.id, line.signature)),
        (as_log, NoteSignature(witness.name, as_log.id, line.signature[8:])),
        (witness.note_key, NoteSignature(witness.name, line.key_id, later)),
        (witness.note_key, NoteSignature(witness.name, line.key_id, bytes(8) + bytes(64))),
    ]
    for key, claimed in wrong:
        with pytest.raises(Refused) as refused:
            made.with_signatures(claimed).note.by(key)
        assert "note.signature" == refused.value.check


def test_unknown_signers_are_ignored_and_false_ones_are_not() -> None:
    """A stranger's line changes nothing; a wrong one in a known name is refused."""
    made = signed(entries(0, 3))
    key = signer().note_key
    stranger = NoteSignature("example.com/x", b"1234", b"anything")
    same_name = NoteSignature(ORIGIN, b"1234", b"anything")
    check_signed_by(made.with_signatures(stranger, same_name), key)
    with pytest.raises(Refused):
        check_signed_by(made.with_signatures(NoteSignature(ORIGIN, key.id, b"no")), key)


def test_whose_checkpoint_it_is() -> None:
    """Another log's, one that is not signed, and one signed as a witness are refused by name."""
    made = signed(entries(0, 3))
    other = signer("other.example.com")
    unsigned = sign_checkpoint(made.checkpoint, other)
    for found, key, check in (
        (made, other.note_key, "log.origin"),
        (unsigned, signer().note_key, "log.signature"),
        (made, witness_signer().note_key, "log.signature"),
    ):
        with pytest.raises(Refused) as refused:
            check_signed_by(found, key)
        assert check == refused.value.check


def test_an_entry_names_nobody() -> None:
    """An entry is the statement's digest and kind, the same whoever signed it or edited keyids."""
    data = (VECTORS / "approval" / "denial.dsse").read_bytes()
    envelope = decode_envelope(data)
    entry = entry_of(envelope)
    assert LogEntry(digest=envelope.digest(), kind="denial") == entry
    assert Denial.PREDICATE_TYPE == f"urn:custody:{entry.kind}:v1"
    assert entry == decode_entry(entry.encode())
    assert b'{"digest":"%b","kind":"denial","v":1}' % envelope.digest().encode() == encode(entry)


def test_what_is_not_logged() -> None:
    """A statement of another project's kind has no entry."""
    data = (VECTORS / "model" / "example.sig").read_bytes()
    with pytest.raises(Malformed):
        entry_of(decode_envelope(data))
