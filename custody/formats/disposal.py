"""A publisher's word that he destroyed his copies of a bundle.  Format: disposal.md, version 1."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from custody.encoding import Count, Digest, Moment, Record

#: What is destroyed: the bundle itself, work of an interrupted seal with its sealed secrets, and
#: the digests of the model that updates were cut by.
Destroyed = Literal["bundle", "record", "unfinished"]


class Disposal(Record, frozen=True):
    """What a publisher destroyed of one superseded bundle, and how many bytes of it."""

    PREDICATE_TYPE: ClassVar[str] = "urn:custody:disposal:v1"
    MANY_SIGNERS: ClassVar[bool] = False

    environment: Digest
    manifest: Digest
    replaced_by: Digest | None
    destroyed: Annotated[tuple[Destroyed, ...], msgspec.Meta(min_length=1, max_length=3)]
    destroyed_bytes: Count
    disposed_at: Moment

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.destroyed) != sorted(set(self.destroyed)):
            raise ValueError("destroyed: not in order, each once")

    def subject(self) -> tuple[str, Digest]:
        """Name the manifest whose bundle is gone here."""
        return "manifest.dsse", self.manifest
