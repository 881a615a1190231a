"""The TPM structures of a request: each of the kind of its place, and well formed.

Nothing in them is judged further: that is `rules.attestation`.
"""

from __future__ import annotations

from typing import cast

import msgspec

from custody.errors import CustodyError
from custody.formats.envelope import Statement
from custody.formats.evidence import (
    ATTEST_CREATION,
    ATTEST_QUOTE,
    MAGIC,
    Attest,
    Created,
    CreationData,
    NvPublic,
    Public,
    Quote,
    Quoted,
    attest_kind,
    cut_quote,
    parse_attest,
    parse_creation_data,
    parse_nv_public,
    parse_public,
)
from custody.formats.request import Request
from custody.rules.verdicts import Ledger


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The TPM structures of a request, parsed.  Nothing in them is verified.

    ``registers`` and ``made`` are the bodies of the two attestations.
    """

    quote: Quote
    quoted: Attest
    registers: Quoted
    created: Attest
    made: Created
    creation: CreationData
    host_key: Public
    parent: Public
    ak: Public
    nv: NvPublic

    @classmethod
    def parse(cls, request: Request, quote: Quote) -> Evidence:
        """Parse every structure; raise `Malformed` on the first that does not follow its format.

        That both attestations are of the type of their place is known by now (V22).
        """
        quoted, created = parse_attest(quote.attest), parse_attest(request.key.attest)
        return cls(
            quote=quote,
            quoted=quoted,
            registers=cast("Quoted", quoted.body),
            created=created,
            made=cast("Created", created.body),
            creation=parse_creation_data(request.key.creation_data),
            host_key=parse_public(request.key.public),
            parent=parse_public(request.key.parent_public),
            ak=parse_public(request.ak_public),
            nv=parse_nv_public(request.nv_public),
        )


def read_evidence(ledger: Ledger, statement: Statement[Request]) -> Evidence | None:
    """Read a request's evidence; None where a check written down here does not hold."""
    request = statement.predicate
    try:
        quote = cut_quote(statement.envelope.signatures[0].sig)
        if not _check_kinds(ledger, quote.attest, request.key.attest):
            return None
        evidence = Evidence.parse(request, quote)
    except CustodyError as error:
        ledger.add("attestation.V02", False, error.reason)
        return None
    ledger.add("attestation.V02", True, "every TPM structure parses strictly")
    return evidence


def _check_kinds(ledger: Ledger, quote: bytes, creation: bytes) -> bool:
    """Look at what comes before everything else in an attestation: its magic, then its type."""
    (quote_magic, quote_type), (creation_magic, creation_type) = map(attest_kind, (quote, creation))
    # A restricted key signs any bytes but those that begin so: without the magic they are its
    # owner's own (CVE-2024-29038, CVE-2024-29040).
    made = ledger.add(
        "attestation.V21",
        quote_magic == MAGIC and creation_magic == MAGIC,
        "both attestations were made inside a TPM",
        otherwise="an attestation does not begin as what a TPM makes: anybody may have made it",
    )
    # An NV index holds what its owner writes: certified, it must not pass for a quote
    # (GHSA-gwfg-w3jr-xh66).
    placed = ledger.add(
        "attestation.V22",
        quote_type == ATTEST_QUOTE and creation_type == ATTEST_CREATION,
        "one quote and one creation attestation",
        otherwise="an attestation is of another type than its place",
    )
    return made and placed
