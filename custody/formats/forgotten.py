"""Proof that a key kept for restarts opens nothing more.  Format: forgotten.md, version 1."""

from __future__ import annotations

from typing import ClassVar

from custody.encoding import Count, Digest, Moment, Record
from custody.formats.request import U32


class Forgotten(Record, frozen=True):
    """The counter of a kept key has moved on.  Its one signature is the AK's certificate of it.

    ``counter_index`` is the NV index that the kept key was bound to, at ``counter``; what it stands
    at now is in the signature.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:forgotten:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    counter_index: U32
    counter: Count
    forgotten_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the request by whose leave the key was kept."""
        return "request.dsse", self.request
