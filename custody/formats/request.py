"""A host's request and the terms it is made on.  Format: request.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from custody.crypto.bind import bind
from custody.encoding import Blob, Count, Digest, Moment, Name, Record, TpmName
from custody.formats.eventlog import MAX_LOG_BYTES
from custody.formats.logstate import NoteBytes
from custody.formats.policy import FurtherType, HpkeSuite, Mode

#: The longest evidence of one further kind, and how many kinds a request may carry.
MAX_FURTHER_BYTES = 256 << 10
MAX_FURTHER = 8

U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class Terms(Record, frozen=True):
    """What a host asks for, fixed before its key exists.  Officers sign its digest."""

    manifest: Digest
    policy: Digest
    mode: Mode
    ek_spki: Digest
    ak_name: TpmName
    nv_name: TpmName
    counter: Count
    reset_count: U32
    restart_count: U32
    deadline_ms: Count
    pcr_digest: Digest
    checkpoint: Digest | None

    @property
    def keeps_key(self) -> bool:
        """Whether they let the host keep the content key over restarts."""
        return self.mode in ("sealed", "sealed-updatable")

    def digest(self) -> bytes:
        """Return the 32 bytes that PolicySigned takes as policyRef."""
        return bind(
            "terms",
            bytes.fromhex(self.manifest),
            bytes.fromhex(self.policy),
            self.mode.encode(),
            bytes.fromhex(self.ek_spki),
            bytes.fromhex(self.ak_name),
            bytes.fromhex(self.nv_name),
            self.counter.to_bytes(8, "big"),
            self.reset_count.to_bytes(4, "big") + self.restart_count.to_bytes(4, "big"),
            self.deadline_ms.to_bytes(8, "big"),
            bytes.fromhex(self.pcr_digest),
            bytes.fromhex(self.checkpoint or ""),
        )


class Creation(Record, frozen=True):
    """How H came to be: raw TPM structures, nothing re-encoded."""

    public: Blob
    parent_public: Blob
    creation_data: Blob
    attest: Blob
    signature: Blob


class Further(Record, frozen=True):
    """Evidence of another kind than a TPM's, which nothing here reads but its verifier."""

    type: FurtherType
    evidence: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_FURTHER_BYTES)]


class Request(Record, frozen=True):
    """Terms, a fresh TPM key H made for them, and evidence.

    The envelope's one signature is a quote by the AK: see evidence.md, "Quote as signature".
    ``checkpoint`` is the note whose text's digest is in the terms: the last one the host saw.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:request:v1"
    MANY_SIGNERS: ClassVar[bool] = False
    CONSENT_FIRST: ClassVar[bool] = False
    BURNS: ClassVar[bool] = True

    terms: Terms
    environment: Digest
    host: Name
    enrolment: Digest
    golden: Digest
    suite: HpkeSuite
    key: Creation
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    ak_public: Blob
    nv_public: Blob
    event_log: Annotated[bytes, msgspec.Meta(max_length=MAX_LOG_BYTES)]
    requested_at: Moment
    checkpoint: NoteBytes | None
    further: Annotated[tuple[Further, ...], msgspec.Meta(max_length=MAX_FURTHER)]

    def __post_init__(self) -> None:
        super().__post_init__()
        types = [further.type for further in self.further]
        if types != sorted(set(types)):
            raise ValueError("further: not in order of type, each once")

    @property
    def recipient(self) -> bytes:
        """H's SPKI (DER), which officers seal to."""
        # Imported here because most of who reads requests needs none of a TPM's structures.
        from custody.formats.evidence import spki  # noqa: PLC0415

        return spki(self.key.public)

    @property
    def ends_at(self) -> None:
        """Unknown: the deadline of the terms is by the TPM's clock, and the TPM keeps it."""
        return

    def subject(self) -> tuple[str, Digest]:
        """Name the manifest that is asked for."""
        return "manifest.dsse", self.terms.manifest
