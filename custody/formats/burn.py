"""Proof that a request's key opens nothing more.  Format: burn.md, version 1."""

from __future__ import annotations

from typing import ClassVar

from custody.encoding import Count, Digest, Moment, Record


class Burn(Record, frozen=True):
    """A request's counter has moved on.  Its one signature is the AK's certificate of the counter.

    ``counter`` is N of the terms; what the counter stands at now is in the signature.
    """

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:burn:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    receipt: Digest
    counter: Count
    burned_at: Moment

    def subject(self) -> tuple[str, Digest]:
        """Name the request whose key is dead."""
        return "request.dsse", self.request
