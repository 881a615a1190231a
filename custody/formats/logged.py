"""A log's word on one request: what of it is logged, and the log's signature on the terms.

Format: logged.md, version 1.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from custody.crypto.merkle import leaf_hash, verify_inclusion
from custody.encoding import Bytes32, Count, Digest, Moment, Record
from custody.errors import Refused
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.logentry import Kind, LogEntry
from custody.formats.logproof import MAX_PROOF_HASHES
from custody.formats.logstate import NoteBytes

#: As many answers as there may be statements of a receipt, twice, and the request.
MAX_LOGGED = 1024
Hashes = Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=MAX_PROOF_HASHES)]


class LoggedStatement(Record, frozen=True):
    """One statement, where it is in the log, and the way from there to the checkpoint."""

    statement: Digest
    kind: Kind
    index: Count
    proof: Hashes

    def entry(self) -> bytes:
        """Return the bytes that the log holds of it."""
        return LogEntry(digest=self.statement, kind=self.kind).encode()

    def is_in(self, signed: SignedCheckpoint) -> bool:
        """Tell whether the proof leads from this statement to a checkpoint's root."""
        head, leaf = signed.checkpoint, leaf_hash(self.entry())
        try:
            verify_inclusion(leaf, self.index, size=head.size, proof=self.proof, head=head.root)
        except Refused:
            return False
        return True


class Logged(Record, frozen=True):
    """What a log has of one request.  Nothing in it is checked yet.

    ``checkpoint`` is the whole note; ``consistency`` proves that it continues the checkpoint in
    the request; ``terms_signature`` is DER ECDSA-SHA256 by the log's key over ``00000000 ‖ terms``,
    which H's TPM demands.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:logged:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    policy: Digest
    terms: Digest
    entries: Annotated[
        tuple[LoggedStatement, ...], msgspec.Meta(min_length=1, max_length=MAX_LOGGED)
    ]
    checkpoint: NoteBytes
    consistency: Hashes
    terms_signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=80)]
    logged_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        indexes = [entry.index for entry in self.entries]
        if indexes != sorted(set(indexes)):
            raise ValueError("entries: not in the log's order, each once")
        if len({entry.statement for entry in self.entries}) < len(indexes):
            raise ValueError("entries: a statement twice")

    def subject(self) -> tuple[str, Digest]:
        """Name the request that was logged."""
        return "request.dsse", self.request
