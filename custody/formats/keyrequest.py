"""What a host without a TPM asks, officers consent to, and it answers.  Format: keyrequest.md."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto.bind import bind
from custody.crypto.keyslots import recipient_id
from custody.encoding import (
    Blob,
    Digest,
    KeyId,
    Moment,
    Name,
    Record,
    Text,
    format_time,
    key_id,
)
from custody.formats.envelope import Authored
from custody.formats.logstate import NoteBytes
from custody.formats.policy import HpkeSuite, Mode
from custody.formats.receipt import BadShare


class KeyTerms(Record, frozen=True):
    """What is asked for.  A fresh ``nonce`` makes no two requests have the same terms."""

    manifest: Digest
    policy: Digest
    recipient: KeyId
    nonce: Digest
    deadline: Moment
    checkpoint: Digest | None

    @property
    def mode(self) -> Mode:
        """Nothing can be sealed to a boot state that nobody knows."""
        return "once"

    @property
    def keeps_key(self) -> bool:
        """Never: a host that keeps the key says nothing of it, and nothing here allows it to."""
        return False

    def digest(self) -> bytes:
        """Return the 32 bytes that officers and logs sign."""
        return bind(
            "key-terms",
            bytes.fromhex(self.manifest),
            bytes.fromhex(self.policy),
            bytes.fromhex(self.recipient),
            bytes.fromhex(self.nonce),
            format_time(self.deadline).encode(),
            bytes.fromhex(self.checkpoint or ""),
        )


class KeyRequest(Authored, frozen=True):
    """Terms, and the key in an HSM that shares are to be sealed to.

    ``signer`` is the host's signing key (DER SPKI), ``recipient`` the one that opens.  Nothing
    shows in which state the machine is that reaches the HSM.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:keyrequest:v1"
    MANY_SIGNERS: ClassVar[bool] = False
    CONSENT_FIRST: ClassVar[bool] = True
    BURNS: ClassVar[bool] = False

    terms: KeyTerms
    environment: Digest
    host: Name
    signer: Blob
    suite: HpkeSuite
    recipient: Blob
    mlkem: Annotated[bytes, msgspec.Meta(min_length=1568, max_length=1568)] | None
    requested_at: Moment
    checkpoint: NoteBytes | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.author != key_id(self.signer):
            raise ValueError("author: of another key than the one that is here")
        if self.terms.recipient != recipient_id(self.recipient, self.mlkem):
            raise ValueError("terms: of another key than the one that is here")

    @property
    def ends_at(self) -> datetime:
        """The deadline of its terms: an HSM keeps none, so that programs and judges do."""
        return self.terms.deadline

    def subject(self) -> tuple[str, Digest]:
        """Name the manifest that is asked for."""
        return "manifest.dsse", self.terms.manifest


class Consent(Authored, frozen=True):
    """An officer's word that this request may be answered.  It carries no share."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:consent:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    policy: Digest
    terms: Digest
    consented_at: Moment
    expires_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the request that is consented to."""
        return "request.dsse", self.request


class KeyReceipt(Authored, frozen=True):
    """A host's word on how its request ended.  No device bears it out."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:keyreceipt:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    terms: Digest
    outcome: Literal["opened", "failed"]
    reason: Text
    approvals: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=512)]
    bad_shares: Annotated[tuple[BadShare, ...], msgspec.Meta(max_length=512)]
    finished_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.approvals) != sorted(set(self.approvals)):
            raise ValueError("approvals: not in order, each once")

    def subject(self) -> tuple[str, Digest]:
        """Name the request that came to its end."""
        return "request.dsse", self.request
