"""An officer's answer to a request: approval or denial.  Format: approval.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from custody.encoding import Digest, Moment, Record, Text
from custody.formats.envelope import Authored
from custody.formats.manifest import LeafPath, Sealed


class Approval(Record, frozen=True):
    """One officer's consent to one request.  Its signatures are not checked yet.

    ``terms_signature`` is DER ECDSA-SHA256 over ``00000000 ‖ terms``, the form that
    TPM2_PolicySigned checks (TPM 2.0 part 3, 23.3); ``sealed_share`` is his share ‖ salt,
    HPKE-sealed to H.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:approval:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    policy: Digest
    terms: Digest
    leaf: LeafPath
    sealed_share: Sealed
    terms_signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=80)]
    approved_at: Moment
    expires_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the request that is answered."""
        return "request.dsse", self.request


class Denial(Authored, frozen=True):
    """One officer's refusal, by his key ``author``.  It never blocks; it is evidence."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:denial:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    policy: Digest
    terms: Digest
    reason: Text
    denied_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the request that is answered."""
        return "request.dsse", self.request
