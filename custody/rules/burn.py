"""Does this burn receipt show that the key of this request opens nothing more?"""

from __future__ import annotations

from custody.formats.burn import Burn
from custody.formats.envelope import Statement
from custody.formats.evidence import Attest, NvCertified
from custody.formats.request import Request, Terms
from custody.rules.attested import check_statement, counter_value
from custody.rules.verdicts import Ledger, Verdict


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
    ak = request.predicate.ak_public
    attest = check_statement(ledger, statement, ak_public=ak, kind=NvCertified, check="burn")
    if attest is not None:
        _check_counter(ledger, attest, terms)
    return ledger.done()


def _check_counter(ledger: Ledger, attest: Attest, terms: Terms) -> None:
    value = counter_value(attest, bytes.fromhex(terms.nv_name))
    ledger.add(
        "burn.counter",
        value is not None,
        "the certificate is of the whole counter of the terms",
        otherwise="the certificate is of another NV index, or of a part of the counter",
    )
    if value is None:
        ledger.skip("burn.value", "no value of that counter is certified")
    else:
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
