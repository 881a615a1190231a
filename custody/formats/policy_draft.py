"""Policy drafts: what a custodian writes by hand (TOML).  Format: policy.md, "Drafts".

A draft says everything about a policy but who its people are: they and their keys come from
admissions and from the previous version.  It is never signed and never travels.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec

from custody.encoding import Digest, KeyId, Name
from custody.errors import Malformed
from custody.formats.handwritten import decode_toml
from custody.formats.policy import (
    FurtherType,
    LogDemand,
    Mode,
    PartDigest,
    SuiteName,
    Thresholds,
    TokenClass,
    TrustClass,
)

MAX_DRAFT_BYTES = 8 << 20


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of a draft."""


class HostDraft(_Table, frozen=True, kw_only=True):
    """``[host]``.  ``vendor_roots`` are certificate files, PEM or DER, beside the draft.

    ``vendor_crls`` are those of them whose EK certificates need fresh revocation lists.
    """

    pcrs: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=24)]
    trust_classes: tuple[TrustClass, ...]
    vendor_roots: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    event_log: LogDemand = "required"
    vendor_crls: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    further: Annotated[tuple[FurtherType, ...], msgspec.Meta(max_length=8)] = ()


class LimitsDraft(_Table, frozen=True, kw_only=True):
    """``[limits]``, in the units people count them in."""

    request_window_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 24
    approval_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 24
    crl_max_age_days: Annotated[int, msgspec.Meta(ge=1, le=400)] = 35


class LeavingDraft(_Table, frozen=True, kw_only=True):
    """``[leaving]``: who and what of the previous version is not carried over."""

    principals: tuple[Name, ...] = ()
    keys: tuple[KeyId, ...] = ()


class Draft(_Table, frozen=True, kw_only=True):
    """A whole draft.  What is not written takes the default shown here; nothing else is known.

    ``logged`` is a tlog-policy file, ``recovery`` a recovery record, beside the draft.
    """

    environment: Name
    expires: date
    quorum: str
    token_classes: Annotated[tuple[TokenClass, ...], msgspec.Meta(min_length=1, max_length=3)]
    authorities: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=16)]
    host: HostDraft
    thresholds: Thresholds
    limits: LimitsDraft = LimitsDraft()
    leaving: LeavingDraft = LeavingDraft()
    modes: tuple[Mode, ...] = ("once",)
    part_digest: PartDigest = "blake3"
    weakest_suite: SuiteName = "P256"
    self_approval: bool = False
    withdrawn: tuple[Digest, ...] = ()
    logged: str | None = None
    recovery: str | None = None


def decode_draft(data: bytes) -> Draft:
    """Read a draft; an unknown word in it is `Malformed`, so that no typing error is a default."""
    if len(data) > MAX_DRAFT_BYTES:
        raise Malformed(f"larger than the {MAX_DRAFT_BYTES} bytes allowed")
    return decode_toml(Draft, data, what="draft")
