"""Does this show that a key which a host was let keep opens nothing more?"""

from __future__ import annotations

import hmac

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.errors import CustodyError
from custody.formats.envelope import Statement
from custody.formats.evidence import (
    RH_ENDORSEMENT,
    NvCertified,
    counter_public,
    name,
    nv_name,
    parse_attest,
    qualified_name,
    spki,
    unpack_certified,
    verify_attest,
)
from custody.formats.forgotten import Forgotten
from custody.formats.request import Request
from custody.rules.verdicts import Ledger, Verdict

_COUNTER_BYTES = 8


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
    signature, ak = statement.envelope.signatures[0], request.predicate.ak_public
    try:
        certified = unpack_certified(signature.sig)
        attest = parse_attest(certified.attest)
        verify_attest(ak, certified.attest, certified.signature)
    except CustodyError as error:
        ledger.add("forgotten.signature", False, error.reason)
        return ledger.done()
    ledger.add(
        "forgotten.signature",
        signature.keyid == key_id(spki(ak)),
        "certified by the request's AK",
        otherwise="the envelope names another key",
    )
    over = bind("forgotten", bytes.fromhex(statement.digest))
    ledger.add(
        "forgotten.binding",
        hmac.compare_digest(attest.extra_data, over)
        and hmac.compare_digest(attest.signer, qualified_name(RH_ENDORSEMENT, name(ak))),
        "the certificate is over this statement",
        otherwise="the certificate is over something else",
    )
    body = attest.body
    value = -1
    if isinstance(body, NvCertified) and len(body.contents) == _COUNTER_BYTES and not body.offset:
        index = nv_name(counter_public(said.counter_index).pack())
        if hmac.compare_digest(body.index_name, index):
            value = int.from_bytes(body.contents, "big")
    ledger.add(
        "forgotten.value",
        value > said.counter,
        f"its counter stands at {value}, above {said.counter}: the key opens nothing more",
        otherwise="the certificate is not of that counter, or it has not moved on",
    )
    return ledger.done()
