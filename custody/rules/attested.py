"""What did the TPM say by this AK?  One reading of an attestation, whatever it is about.

A signature by the AK says three things together or nothing: the bytes are the TPM's own, they are
about the very thing they were asked for, and the AK is where it was enrolled.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TypeVar

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.errors import CustodyError
from custody.formats.envelope import Predicate, Statement
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    Attest,
    NvCertified,
    Quote,
    Quoted,
    name,
    parse_attest,
    qualified_name,
    spki,
    unpack_certified,
    unpack_quote,
    verify_attest,
)
from custody.formats.tpmnv import COUNTER_BYTES
from custody.rules.verdicts import Ledger

P = TypeVar("P", bound=Predicate)


def read_attested(ak_public: bytes, signed: Quote) -> Attest:
    """Parse what an AK (TPMT_PUBLIC) signed; `Refused` if the signature is not by it."""
    attest = parse_attest(signed.attest)
    verify_attest(ak_public, signed.attest, signed.signature)
    return attest


def is_over(attest: Attest, asked: bytes) -> bool:
    """Tell whether an attestation was asked for with these bytes (its qualifyingData)."""
    return compare_digest(attest.extra_data, asked)


def is_endorsed(attest: Attest, ak_public: bytes) -> bool:
    """Tell whether its signer is that AK as a primary key of the endorsement hierarchy.

    The Qualified Name says so (part 1 section 16); an AK elsewhere reports obfuscated boot counts.
    """
    return compare_digest(attest.signer, qualified_name(RH_ENDORSEMENT, name(ak_public)))


def counter_value(attest: Attest, nv_name: bytes) -> int | None:
    """Return what the counter of that Name stood at; None if anything else was certified.

    The Name covers index and attributes: no index that could be set, and no other counter.
    """
    body = attest.body
    if (
        not isinstance(body, NvCertified)
        or not compare_digest(body.index_name, nv_name)
        or body.offset != 0
        or len(body.contents) != COUNTER_BYTES
    ):
        return None
    return int.from_bytes(body.contents, "big")


def check_statement(
    ledger: Ledger,
    statement: Statement[P],
    *,
    ak_public: bytes,
    kind: type[Quoted | NvCertified],
    check: str,
) -> Attest | None:
    """Judge a statement whose signature is an attestation over it: CHECK.signature, CHECK.binding.

    ``check`` is also the tag it is bound by (`bind`).  Returns what was attested, or None where no
    signature of the AK is there to be looked at further.
    """
    signature = statement.envelope.signatures[0]
    unpack = unpack_quote if kind is Quoted else unpack_certified
    made, what = ("quoted", "quote") if kind is Quoted else ("certified", "certificate")
    try:
        attest = read_attested(ak_public, unpack(signature.sig))
    except CustodyError as error:
        ledger.add(f"{check}.signature", False, error.reason)
        return None
    ledger.add(
        f"{check}.signature",
        signature.keyid == key_id(spki(ak_public)),
        f"{made} by the request's AK",
        otherwise="the envelope names another key",
    )
    ledger.add(
        f"{check}.binding",
        is_over(attest, bind(check, bytes.fromhex(statement.digest)))
        and is_endorsed(attest, ak_public),
        f"the {what} is over this statement",
        otherwise=f"the {what} is over something else, or by the AK elsewhere",
    )
    return attest
