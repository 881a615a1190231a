"""Is this TLS key on the host whose AK we know?  formats/hostcertificate.md.

A key of class ``tpm`` is shown by TPM2_Certify to be fixed in the AK's own TPM.  Of one in a file
the AK can only say that its host asked for it: root there may have copied it anywhere.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import cast

from custody.crypto.certificates import read_csr
from custody.formats.evidence import (
    TLS_KEY_TEMPLATE,
    Attest,
    Certified,
    matches,
    name,
    parse_public,
    spki,
    unpack_key_certified,
    unpack_quote,
)
from custody.formats.hostcertificate import TlsRequest
from custody.rules.attested import is_endorsed, is_over, read_attested
from custody.rules.verdicts import Ledger, Verdict

#: By files a request takes days; an older one may be from before a key was stolen.
REQUEST_LIFE = timedelta(days=7)
#: A host whose clock is a little ahead is no liar.
_AHEAD = timedelta(minutes=5)


def check_tls_request(
    request: TlsRequest, *, ak_public: bytes, host: str, now: datetime
) -> tuple[Verdict, ...]:
    """Judge a host's request by the AK (TPMT_PUBLIC) that was certified for ``host``."""
    ledger = Ledger(subject=f"TLS key of {request.host}")
    ledger.add(
        "tls.host",
        request.host == host,
        f"the AK is the one of {host}",
        otherwise=f"the AK is the one of {host}, not of {request.host}",
    )
    ledger.add(
        "tls.fresh",
        request.asked_at - _AHEAD <= now <= request.asked_at + REQUEST_LIFE,
        "asked for not long ago",
        otherwise="asked for too long ago, or in the future",
    )
    with ledger.failing("tls.csr"):
        csr = read_csr(request.csr)
        ledger.add(
            "tls.csr",
            csr.name == request.host,
            "the certificate request is signed by its key, and names the host",
            otherwise="the certificate request names another host",
        )
    with ledger.failing("tls.proof"):
        attest = _read_proof(request, ak_public)
        ledger.add("tls.proof", True, "the AK's signature is good")
        ledger.add(
            "tls.bound",
            is_over(attest, request.qualifying()),
            "the AK speaks of this request",
            otherwise="the AK speaks of another request",
        )
        ledger.add(
            "tls.signer",
            is_endorsed(attest, ak_public),
            "its signer is the AK under the endorsement hierarchy",
            otherwise="its signer is another key",
        )
        _check_key(ledger, request, attest)
    return ledger.done()


def _read_proof(request: TlsRequest, ak_public: bytes) -> Attest:
    unpack = unpack_quote if request.key_public is None else unpack_key_certified
    return read_attested(ak_public, unpack(request.proof))


def _check_key(ledger: Ledger, request: TlsRequest, attest: Attest) -> None:
    if request.key_public is None:
        ledger.skip("tls.key", "a key in a file: where else it is nobody knows")
        return
    with ledger.failing("tls.key"):
        # That it is the attestation of a key is known by now.
        certified = cast("Certified", attest.body)
        public = parse_public(request.key_public)
        ledger.add(
            "tls.key",
            matches(public, TLS_KEY_TEMPLATE)
            and hmac.compare_digest(certified.object_name, name(request.key_public))
            and read_csr(request.csr).spki == spki(request.key_public),
            "the key is fixed in the AK's TPM",
            otherwise="the certified key is another one, or may leave its TPM",
        )
