"""The kinds of request, and what of them is judged each in its own way.

Nowhere else is it asked which kind a request is: what follows from it, the kind itself says.
"""

from __future__ import annotations

from custody.formats.asking import Asking, Ending
from custody.formats.envelope import Statement, of_kind
from custody.formats.keyrequest import KeyReceipt, KeyRequest
from custody.formats.manifest import Manifest
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.rules.genuine import is_quoted
from custody.rules.keyrequest import (
    check_key_receipt,
    check_key_request,
    is_by_asker,
    is_signed,
)
from custody.rules.receipt import check_receipt, is_attested
from custody.rules.request import check_request
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict


def check_asked(
    statement: Statement[Asking], manifest: Statement[Manifest], situation: Situation
) -> tuple[Verdict, ...]:
    """Judge one request for ``manifest``, of whichever kind."""
    by_key, by_tpm = of_kind(KeyRequest, statement), of_kind(Request, statement)
    if by_key is not None:
        return check_key_request(by_key, manifest, situation)
    if by_tpm is not None:
        return check_request(by_tpm, manifest, situation)
    return _strange("request.kind", "a request of a kind that nobody judges")


def check_ending(statement: Statement[Ending], request: Statement[Asking]) -> tuple[Verdict, ...]:
    """Judge a receipt against its request, which must be of one kind, by bytes alone."""
    by_key, key_receipt = of_kind(KeyRequest, request), of_kind(KeyReceipt, statement)
    if by_key is not None and key_receipt is not None:
        return check_key_receipt(key_receipt, by_key)
    by_tpm, receipt = of_kind(Request, request), of_kind(Receipt, statement)
    if by_tpm is not None and receipt is not None:
        return check_receipt(receipt, by_tpm)
    return _strange("receipt.kind", "a receipt of another kind than its request")


def is_hosts_word(statement: Statement[Ending], request: Statement[Asking]) -> bool:
    """Tell whether a receipt is by the key that asked, whatever is wrong with what it says."""
    by_key, key_receipt = of_kind(KeyRequest, request), of_kind(KeyReceipt, statement)
    if by_key is not None and key_receipt is not None:
        return is_by_asker(key_receipt, by_key)
    by_tpm, receipt = of_kind(Request, request), of_kind(Receipt, statement)
    return by_tpm is not None and receipt is not None and is_attested(receipt, by_tpm)


def is_by_host(request: Statement[Asking]) -> bool:
    """Tell whether a request's signature is by the key in it: a quote, or a signature."""
    by_key, by_tpm = of_kind(KeyRequest, request), of_kind(Request, request)
    if by_key is not None:
        return is_signed(by_key)
    return by_tpm is not None and is_quoted(by_tpm)


def _strange(check: str, reason: str) -> tuple[Verdict, ...]:
    ledger = Ledger()
    ledger.add(check, False, reason)
    return ledger.done()
