"""What a vendor's certificates showed of an admission's keys.  Format: admission.md, version 1."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.crypto.pivattestation import PinPolicy, TouchPolicy
from custody.encoding import Count, Digest, KeyId, Record

#: Three numbers, as the vendor writes them.
Firmware = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,3}(\.[0-9]{1,3}){2}\Z")]
Slot = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{2}\Z")]


class KeyAttestation(Record, frozen=True):
    """One key that was made in a YubiKey, by a path of certificates to a root that was pinned."""

    key: KeyId
    slot: Slot
    serial: Count
    firmware: Firmware
    pin: PinPolicy
    touch: TouchPolicy
    root: Digest
    """SHA-256 of the root's certificate (DER)."""

    def words(self) -> str:
        """Say what it is in."""
        return (
            f"in slot {self.slot} of YubiKey {self.serial}, firmware {self.firmware},"
            f" PIN {self.pin}, touch {self.touch}"
        )


class KeptAttestations(Record, frozen=True):
    """What a custodian verified of an admission's keys, as his home keeps it."""

    kind: Literal["custody/attestations-kept/v1"]
    admission: Digest
    keys: Annotated[tuple[KeyAttestation, ...], msgspec.Meta(max_length=16)]
