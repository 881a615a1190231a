"""Enrolment: a host's request, the challenge, the answer, the record.  Format: enrolment.md.

Only the record is a statement.  The other three are messages between a host and one enroller.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto.bind import bind
from custody.encoding import Blob, Digest, Moment, Name, Record, TpmName, encode, sha256
from custody.formats.goldenset import Epoch
from custody.formats.policy import TpmClass

FirmwareVersion = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]


class EnrolmentRequest(Record, frozen=True):
    """What a host shows an enroller.  Nothing in it is believed for being here."""

    kind: Literal["custody/enrolment-request/v1"]
    host: Name
    ek_certificate: Blob
    ek_intermediates: Annotated[tuple[Blob, ...], msgspec.Meta(max_length=8)]
    ak_public: Blob
    quote: Blob

    def digest(self) -> Digest:
        """Name this request in its challenges."""
        return sha256(encode(self)).hex()

    def qualifying(self) -> bytes:
        """Return what the quote's qualifyingData must be: it ties the AK to this EK and name."""
        return bind("enrolment-quote", self.host.encode(), self.ek_certificate, self.ak_public)


class Challenge(Record, frozen=True):
    """One enroller's credential challenge (TPM 2.0 part 1, 24 Credential Protection)."""

    kind: Literal["custody/enrolment-challenge/v1"]
    request: Digest
    enroller: Digest
    credential_blob: Blob
    encrypted_secret: Blob


class Answer(Record, frozen=True):
    """The host's proof that its AK and EK are in one TPM."""

    kind: Literal["custody/enrolment-answer/v1"]
    request: Digest
    enroller: Digest
    proof: Digest


def activation_proof(secret: bytes, request: Digest, enroller: Digest) -> Digest:
    """Return the proof an `Answer` carries; it shows knowledge of ``secret`` without telling it."""
    return bind("activation", secret, bytes.fromhex(request), bytes.fromhex(enroller)).hex()


class EnrolmentRecord(Record, frozen=True):
    """The enrolment threshold vouches that this AK lives in the TPM of this EK.

    Records of one EK follow each other by epoch: the newest ends the others, and a retirement
    (retirement.md) ends those up to its own.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:enrolment:v1"
    MANY_SIGNERS: ClassVar[bool] = True

    environment: Digest
    host: Name
    epoch: Epoch
    ek_spki: Digest
    ek_certificate: Blob
    ak_public: Blob
    ak_name: TpmName
    trust_class: TpmClass
    firmware: FirmwareVersion
    enrolled_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the host and its endorsement key."""
        return self.host, self.ek_spki
