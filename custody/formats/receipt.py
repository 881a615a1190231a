"""A host's attested account of one opening.  Format: receipt.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.encoding import Count, Digest, KeyId, Moment, Record, Text
from custody.formats.manifest import LeafPath


class BadShare(Record, frozen=True):
    """An approval whose share did not match its commitment: one host's claim, not a proof."""

    leaf: LeafPath
    officer: KeyId
    approval: Digest


class Receipt(Record, frozen=True):
    """What came of a request.  Its one signature is a quote by the AK, as a request's is."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:receipt:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    request: Digest
    manifest: Digest
    terms: Digest
    outcome: Literal["opened", "retained", "failed"]
    reason: Text
    approvals: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=512)]
    bad_shares: Annotated[tuple[BadShare, ...], msgspec.Meta(max_length=512)]
    counter: Count
    finished_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.approvals) != sorted(set(self.approvals)):
            raise ValueError("approvals: not in order, each once")

    def subject(self) -> tuple[str, Digest]:
        """Name the request that came to its end."""
        return "request.dsse", self.request
