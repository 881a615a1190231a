"""Golden sets: the boot states hosts may be in.  Format: goldenset.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.crypto.bind import bind
from custody.encoding import Digest, Moment, Name, Record, Text, sha256

#: The most components of one register.
MAX_COMPONENTS = 4096
#: The last register that starts at zero and cannot be reset: what a log can explain.
LAST_LOGGED_PCR = 15


Epoch = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Locality = Literal[0, 3, 4]
#: Where a TPM is started: 0, 3 where firmware runs at it, 4 after an H-CRTM.
LOCALITIES: tuple[Locality, ...] = (0, 3, 4)


class PcrValue(Record, frozen=True, tag_field="form", tag="value"):
    """One register's expected value, where only that is known."""

    pcr: Annotated[int, msgspec.Meta(ge=0, le=23)]
    value: Digest


class Component(Record, frozen=True):
    """One event that extended a register: what it is called, and the digest extended."""

    label: Text
    digest: Digest


class PcrEvents(Record, frozen=True, tag_field="form", tag="events"):
    """One register's expected events, in order.  Its value follows from them.

    ``locality`` is where the TPM was started, which PCR 0 begins with: 3 or 4 on some machines, 0
    in every other register (PC Client Platform TPM Profile 1.06 section 4.6).
    """

    pcr: Annotated[int, msgspec.Meta(ge=0, le=LAST_LOGGED_PCR)]
    locality: Locality
    components: Annotated[tuple[Component, ...], msgspec.Meta(max_length=MAX_COMPONENTS)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pcr and self.locality:
            raise ValueError("locality: only PCR 0 begins with one")

    @property
    def value(self) -> Digest:
        """The register after all components were extended (TPM 2.0 part 1 section 17.3)."""
        value = bytes(31) + bytes([self.locality])
        for component in self.components:
            value = sha256(value, bytes.fromhex(component.digest))
        return value.hex()


class GoldenSet(Record, frozen=True, kw_only=True):
    """One approved boot state, by the events or the value of every register the policy asks for.

    Sets of one name follow each other by epoch.  One whose epoch is below ``oldest`` of any other
    of its name is no longer good.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:goldenset:v1"
    MANY_SIGNERS: ClassVar[bool] = True

    environment: Digest
    name: Name
    notes: Text
    epoch: Epoch
    oldest: Epoch
    bank: Literal["sha256"]
    pcrs: Annotated[tuple[PcrValue | PcrEvents, ...], msgspec.Meta(min_length=1, max_length=24)]
    issued_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = [value.pcr for value in self.pcrs]
        if numbers != sorted(set(numbers)):
            raise ValueError("pcrs: not in ascending order, each once")
        if self.oldest > self.epoch:
            raise ValueError("oldest: above the set's own epoch")

    def subject(self) -> tuple[str, Digest]:
        """Name the set and bind its values."""
        return self.name, bind(
            "goldenset", *(bytes([v.pcr]) + bytes.fromhex(v.value) for v in self.pcrs)
        ).hex()

    def selection(self) -> tuple[int, ...]:
        """Return which registers this set is over, ascending."""
        return tuple(value.pcr for value in self.pcrs)

    def pcr_digest(self) -> Digest:
        """Return what a TPM reports for this state: SHA-256 over the values in register order.

        TPM 2.0 part 3, TPM2_Quote and TPM2_PolicyPCR, with SHA-256 as the digesting hash.
        """
        return sha256(*(bytes.fromhex(value.value) for value in self.pcrs)).hex()
