"""Is this receipt the word of the host's own TPM about this request?"""

from __future__ import annotations

import hmac

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.errors import CustodyError
from custody.formats.envelope import Statement
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    Quoted,
    name,
    parse_attest,
    qualified_name,
    spki,
    unpack_quote,
    verify_attest,
)
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.rules.verdicts import Ledger, Verdict


def check_receipt(
    statement: Statement[Receipt], request: Statement[Request]
) -> tuple[Verdict, ...]:
    """Judge a receipt against the request it ends, by bytes alone.

    The request's AK is the enrolled one: that is for `rules.attestation`.
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
    signature = statement.envelope.signatures[0]
    ak = request.predicate.ak_public
    try:
        quote = unpack_quote(signature.sig)
        attest = parse_attest(quote.attest)
        verify_attest(ak, quote.attest, quote.signature)
        ledger.add(
            "receipt.signature",
            signature.keyid == key_id(spki(ak)) and isinstance(attest.body, Quoted),
            "quoted by the request's AK",
            otherwise="the quote is by another key, or of another kind",
        )
        ledger.add(
            "receipt.binding",
            hmac.compare_digest(attest.extra_data, bind("receipt", bytes.fromhex(statement.digest)))
            and hmac.compare_digest(attest.signer, qualified_name(RH_ENDORSEMENT, name(ak))),
            "the quote is over this receipt",
            otherwise="the quote is over something else",
        )
        counts = (attest.clock.reset_count, attest.clock.restart_count)
        asked_in = (terms.reset_count, terms.restart_count)
        # H died with its boot, so only of a failure can a later boot tell.
        ledger.add(
            "receipt.boot",
            counts == asked_in or (receipt.outcome == "failed" and counts > asked_in),
            "made in the boot the request was made in"
            if counts == asked_in
            else "made in a later boot, in which the request's key no longer exists",
            otherwise="made in another boot than the request",
        )
        asked = parse_attest(unpack_quote(request.envelope.signatures[0].sig).attest)
        # A quote proves nothing that is not looked at: whatever runs after the boot state has
        # changed may use the AK too, and what it says of an opening is nobody's word.
        ledger.add(
            "receipt.state",
            receipt.outcome == "failed" or attest.body == asked.body,
            "made in the boot state of the request",
            otherwise="made in another boot state than the request",
        )
    except CustodyError as error:
        ledger.add("receipt.signature", False, error.reason)
    return ledger.done()
