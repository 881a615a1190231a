"""What a host shows an attestation authority of a key it answers TLS with.  hostcertificate.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.certificates import make_csr, spki_of
from custody.encoding import Digest, key_id
from custody.errors import Refused
from custody.formats.evidence import pack_quote
from custody.formats.hostcertificate import TlsRequest
from custody.keys.hostapi import UNJUDGED_PCRS, Attested, CertifiedKey, HostTpm
from custody.ops.wellformed import check_name, well_formed


class TlsTpm(Protocol):
    """As much of a `HostTpm` as a TLS key takes."""

    def quote(self, qualifying: bytes, pcrs: tuple[int, ...]) -> Attested:
        """See `HostTpm`."""
        ...

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """See `HostTpm`."""
        ...

    def certify_tls_key(self, qualifying: bytes) -> CertifiedKey:
        """See `HostTpm`."""
        ...


def of_ek(tpm: HostTpm, ek_spki: Digest) -> HostTpm:
    """Return the TPM as one that sessions reach only under the EK with this digest (``tpm.ek``)."""
    spki = spki_of(tpm.ek_certificate())
    if key_id(spki) != ek_spki:
        raise Refused("this TPM shows another EK", check="tpm.ek")
    return tpm.salted_to(spki)


def ask_for_tpm_key(tpm: TlsTpm, *, host: str, dns: Sequence[str], now: datetime) -> TlsRequest:
    """Ask for a certificate of the TLS key in the TPM, which is made on first use."""
    csr = make_csr(tpm.tls_key(), name=check_name(host))
    # The public area is part of what the TPM is asked to attest, so it is asked for first.
    public = tpm.certify_tls_key(b"").public
    draft = _draft(host=host, dns=dns, csr=csr, key_public=public, now=now)
    attested = tpm.certify_tls_key(draft.qualifying()).attested
    return well_formed(replace(draft, proof=pack_quote(*attested)))


def ask_for_file_key(
    tpm: TlsTpm, *, host: str, dns: Sequence[str], csr: bytes, now: datetime
) -> TlsRequest:
    """Ask for a certificate of a key in a file, which other programs made, with their request."""
    draft = _draft(host=check_name(host), dns=dns, csr=csr, key_public=None, now=now)
    attested = tpm.quote(draft.qualifying(), UNJUDGED_PCRS)
    return well_formed(replace(draft, proof=pack_quote(*attested)))


def _draft(
    *, host: str, dns: Sequence[str], csr: bytes, key_public: bytes | None, now: datetime
) -> TlsRequest:
    return TlsRequest(
        kind="custody/tls-request/v1",
        host=host,
        dns=tuple(dict.fromkeys(dns)),
        csr=csr,
        key_public=key_public,
        asked_at=now,
        proof=b"\0",
    )
