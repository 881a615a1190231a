"""Is this receipt the word of the host's own TPM about this request?"""

from __future__ import annotations

from custody.formats.envelope import Statement
from custody.formats.evidence import Attest, Quoted, parse_attest, unpack_quote
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.rules.attested import check_statement
from custody.rules.verdicts import Ledger, Verdict


def check_receipt(
    statement: Statement[Receipt], request: Statement[Request]
) -> tuple[Verdict, ...]:
    """Judge a receipt against the request it ends, by bytes alone.

    The request's AK is the enrolled one: that is for `rules.attestation`.  What counts of a receipt
    that is not good is for `rules.endings`.
    """
    ledger = Ledger(subject=f"receipt of {request.predicate.host}")
    receipt, terms = statement.predicate, request.predicate.terms
    ledger.add(
        "receipt.request",
        receipt.request == request.digest
        and receipt.manifest == terms.manifest
        and receipt.terms == terms.digest().hex()
        and receipt.counter == terms.counter,
        "is about this request",
        otherwise="is about another request, manifest, terms or counter",
    )
    ledger.add(
        "receipt.mode",
        receipt.outcome != "retained" or terms.keeps_key,
        f"{receipt.outcome}, as the terms allow",
        otherwise="the key was kept, and the terms allow one opening only",
    )
    ak = request.predicate.ak_public
    attest = check_statement(ledger, statement, ak_public=ak, kind=Quoted, check="receipt")
    if attest is not None:
        _check_boot(ledger, attest, receipt, request)
    return ledger.done()


def is_attested(statement: Statement[Receipt], request: Statement[Request]) -> bool:
    """Tell whether the request's AK quoted over a receipt, whatever it says."""
    ledger, ak = Ledger(), request.predicate.ak_public
    attest = check_statement(ledger, statement, ak_public=ak, kind=Quoted, check="receipt")
    return attest is not None and not ledger.failed


def _check_boot(
    ledger: Ledger, attest: Attest, receipt: Receipt, request: Statement[Request]
) -> None:
    terms, failed = request.predicate.terms, receipt.outcome == "failed"
    counts = (attest.clock.reset_count, attest.clock.restart_count)
    asked_in = (terms.reset_count, terms.restart_count)
    # H died with its boot, so only of a failure can a later boot tell.
    ledger.add(
        "receipt.boot",
        counts == asked_in or (failed and counts > asked_in),
        "made in the boot the request was made in"
        if counts == asked_in
        else "made in a later boot, in which the request's key no longer exists",
        otherwise="made in another boot than the request",
    )
    with ledger.failing("receipt.state"):
        asked = parse_attest(unpack_quote(request.envelope.signatures[0].sig).attest)
        # A quote proves nothing that is not looked at: whatever runs after the boot state has
        # changed may use the AK too, and what it says of an opening explains none.
        ledger.add(
            "receipt.state",
            failed or attest.body == asked.body,
            "made in the boot state of the request",
            otherwise="made in another boot state than the request",
        )
