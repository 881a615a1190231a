"""An enroller's leave for kept keys to open in a boot state.  Format: authorisation.md."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from custody.encoding import Digest, Moment, Record


class Authorisation(Record, frozen=True):
    """An enroller's word to TPMs on a golden set.  Its signatures are not checked yet.

    ``state_signature`` is DER ECDSA-SHA256 over approvedPolicy ‖ policyRef, the form that
    TPM2_PolicyAuthorize checks (TPM 2.0 part 3 section 23.16); both follow from the golden set.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:authorisation:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Digest
    golden: Digest
    state_signature: Annotated[bytes, msgspec.Meta(min_length=8, max_length=80)]
    authorised_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the golden set that is authorised."""
        return "golden.dsse", self.golden
