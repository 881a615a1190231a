"""Retirements: an enrolment record is good no longer.  Format: retirement.md, version 1."""

from __future__ import annotations

from typing import ClassVar

from custody.encoding import Digest, Moment, Name, Record, Text
from custody.formats.goldenset import Epoch


class Retirement(Record, frozen=True):
    """The enrolment threshold ends a host's record, and every earlier one of its EK.

    ``record`` is its statement digest, ``epoch`` its epoch: what comes after is a new enrolment.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:retirement:v1"
    MANY_SIGNERS: ClassVar[bool] = True

    environment: Digest
    host: Name
    ek_spki: Digest
    record: Digest
    epoch: Epoch
    reason: Text
    retired_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the host and the record that ends."""
        return self.host, self.record
