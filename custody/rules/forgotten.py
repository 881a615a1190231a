"""Does this show that a key which a host was let keep opens nothing more?"""

from __future__ import annotations

from custody.formats.envelope import Statement
from custody.formats.evidence import NvCertified, counter_public, nv_name
from custody.formats.forgotten import Forgotten
from custody.formats.request import Request
from custody.rules.attested import check_statement, counter_value
from custody.rules.verdicts import Ledger, Verdict


def check_forgotten(
    statement: Statement[Forgotten], request: Statement[Request]
) -> tuple[Verdict, ...]:
    """Judge a host's word that it forgot a kept key, by bytes alone.

    That its counter moved on is the TPM's word; that the key hung on this counter, the host's.
    """
    ledger = Ledger(subject=f"forgotten by {request.predicate.host}")
    said, terms = statement.predicate, request.predicate.terms
    ledger.add(
        "forgotten.request",
        said.request == request.digest and said.manifest == terms.manifest,
        "is about this request",
        otherwise="is about another request or manifest",
    )
    ak = request.predicate.ak_public
    attest = check_statement(ledger, statement, ak_public=ak, kind=NvCertified, check="forgotten")
    if attest is None:
        return ledger.done()
    value = counter_value(attest, nv_name(counter_public(said.counter_index).pack()))
    ledger.add(
        "forgotten.value",
        value is not None and value > said.counter,
        f"its counter stands at {value}, above {said.counter}: the key opens nothing more",
        otherwise="the certificate is not of that counter, or it has not moved on",
    )
    return ledger.done()
