"""Does this burn receipt show that the key of this request opens nothing more?"""

from __future__ import annotations

import hmac

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.errors import CustodyError
from custody.formats.burn import Burn
from custody.formats.envelope import Statement
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    Attest,
    NvCertified,
    name,
    parse_attest,
    qualified_name,
    spki,
    unpack_certified,
    verify_attest,
)
from custody.formats.request import Request, Terms
from custody.rules.verdicts import Ledger, Verdict

_COUNTER_BYTES = 8


def check_burn(statement: Statement[Burn], request: Statement[Request]) -> tuple[Verdict, ...]:
    """Judge a burn receipt against the request whose key it says is dead, by bytes alone.

    That the receipt it names is good is for the caller; the request's AK is for
    `rules.attestation`.
    """
    ledger = Ledger(subject=f"burn receipt of {request.predicate.host}")
    burn, terms = statement.predicate, request.predicate.terms
    ledger.add(
        "burn.request",
        burn.request == request.digest and burn.counter == terms.counter,
        "is about this request",
        otherwise="is about another request or counter",
    )
    signature = statement.envelope.signatures[0]
    ak = request.predicate.ak_public
    try:
        certified = unpack_certified(signature.sig)
        attest = parse_attest(certified.attest)
        verify_attest(ak, certified.attest, certified.signature)
    except CustodyError as error:
        ledger.add("burn.signature", False, error.reason)
        return ledger.done()
    ledger.add(
        "burn.signature",
        signature.keyid == key_id(spki(ak)),
        "certified by the request's AK",
        otherwise="the envelope names another key",
    )
    ledger.add(
        "burn.binding",
        hmac.compare_digest(attest.extra_data, bind("burn", bytes.fromhex(statement.digest)))
        and hmac.compare_digest(attest.signer, qualified_name(RH_ENDORSEMENT, name(ak))),
        "the certificate is over this burn receipt",
        otherwise="the certificate is over something else",
    )
    _check_counter(ledger, attest, terms)
    return ledger.done()


def _check_counter(ledger: Ledger, attest: Attest, terms: Terms) -> None:
    body = attest.body
    # The Name covers index and attributes: no index that could be set, and no other counter.
    ledger.add(
        "burn.counter",
        isinstance(body, NvCertified)
        and hmac.compare_digest(body.index_name, bytes.fromhex(terms.nv_name))
        and body.offset == 0
        and len(body.contents) == _COUNTER_BYTES,
        "the certificate is of the whole counter of the terms",
        otherwise="the certificate is of another NV index, or of a part of the counter",
    )
    value = int.from_bytes(body.contents, "big") if isinstance(body, NvCertified) else 0
    ledger.add(
        "burn.value",
        value > terms.counter,
        f"the counter stands at {value}, above {terms.counter}: the key opens nothing more",
        otherwise=f"the counter stands at {value}, not above {terms.counter}",
    )
    made = (attest.clock.reset_count, attest.clock.restart_count)
    asked = (terms.reset_count, terms.restart_count)
    # A later boot killed H as well.  An earlier count is a TPM that was cleared, or another
    # history than the request's, and is not taken for an answer to it.
    ledger.add(
        "burn.boot",
        made >= asked,
        "certified in the boot of the request"
        if made == asked
        else "certified in a later boot, which the key did not outlive either",
        otherwise="certified before the request by the TPM's boot counts, or since it was cleared",
    )
