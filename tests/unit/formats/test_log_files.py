"""What a log proves, as files of a case."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from custody.crypto.notekeys import KeyKind
from custody.errors import Malformed
from custody.formats.case import merge, read_entry_proof, sort_documents
from custody.formats.checkpoint import Checkpoint, SignedCheckpoint
from custody.formats.logentry import LogEntry
from custody.formats.logproof import LogProof
from custody.formats.note import Note, NoteSignature
from custody.formats.witnessing import CosignRequest
from tests.unit.formats.log_examples import examples, log_key
from tests.unit.formats.strategies import BYTES32, DIGESTS

SIZES = st.integers(0, 2**63 - 1)
HASHES = st.lists(BYTES32, max_size=63).map(tuple)
ENTRIES = st.builds(
    LogEntry, digest=DIGESTS, kind=st.from_regex(r"\A[a-z][a-z-]{0,31}\Z"), v=st.just(1)
)


@st.composite
def heads(draw: st.DrawFn) -> SignedCheckpoint:
    """Heads of a log, with a signature that nobody has checked."""
    checkpoint = Checkpoint("log.example.com", draw(SIZES), draw(BYTES32))
    line = NoteSignature(log_key().name, log_key().id, draw(st.binary(min_size=1, max_size=80)))
    return SignedCheckpoint(checkpoint, Note(checkpoint.text(), (line,)))


@given(entry=ENTRIES, index=SIZES, hashes=HASHES, head=heads(), old=SIZES)
def test_files_come_back_as_they_were(
    entry: LogEntry,
    index: int,
    hashes: tuple[bytes, ...],
    head: SignedCheckpoint,
    old: int,
) -> None:
    """Proofs are read from a case as they were written, twice the same is one, with their entry."""
    proof = LogProof(index, hashes, head, entry.encode())
    link = CosignRequest(old, hashes, head)
    files = [
        ("a.tlog-proof", proof.encode()),
        ("b.tlog-proof", proof.encode()),
        ("c.tlog-consistency", link.encode()),
    ]
    heap = sort_documents(files)
    assert ((entry, proof),) == tuple((p.entry, p.proof) for p in heap.proofs)
    assert (link,) == heap.consistencies
    assert () == heap.unreadable
    assert merge(heap, heap) == heap


@given(data=st.binary(max_size=400))
@example(data=examples()["denial.tlog-proof"])
@example(data=examples()["add-checkpoint"])
def test_any_bytes_are_read_or_listed(data: bytes) -> None:
    """Whatever a file holds, it is a proof or unreadable, and stops nobody."""
    heap = sort_documents([("x.tlog-proof", data), ("x.tlog-consistency", data)])
    assert 2 == len(heap.unreadable) + len(heap.proofs) + len(heap.consistencies)


def _with(extra: bytes | None) -> bytes:
    head = Checkpoint("log.example.com", 1, bytes(32))
    line = NoteSignature(log_key().name, log_key().id, b"-")
    signed = SignedCheckpoint(head, Note(head.text(), (line,)))
    return LogProof(0, (), signed, extra).encode()


ENTRY = LogEntry(digest="ab" * 32, kind="receipt").encode()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (None, "does not say which entry it is of"),
        (b"", "not a valid logentry"),
        (ENTRY[:-1], "not a valid logentry"),
        (ENTRY + b"\n", "not in canonical form"),
        (ENTRY.replace(b'"v":1', b'"v":2'), "not a valid logentry"),
        (ENTRY.replace(b"receipt", b"Receipt"), "not a valid logentry"),
        (ENTRY.replace(b"}", b',"who":"alice"}'), "not a valid logentry"),
        (ENTRY + b" " * 200, "larger than the 256 bytes allowed"),
    ],
)
def test_a_proof_says_which_entry_it_is_of(extra: bytes | None, reason: str) -> None:
    """In a case, a proof without its entry, or with something else, is unreadable, and why."""
    assert read_entry_proof(_with(ENTRY)).entry.encode() == ENTRY
    with pytest.raises(Malformed, match=reason):
        read_entry_proof(_with(extra))


def test_the_log_key_of_the_examples_is_one_that_a_tpm_verifies() -> None:
    """P-256: the one kind that may stand in a policy."""
    assert KeyKind.ECDSA is log_key().kind
