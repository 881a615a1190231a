"""A host's request for a certificate of its TLS key.  Format: hostcertificate.md.

It is no statement: a message between a host and an attestation authority, as those of enrolment.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from custody.crypto.bind import bind
from custody.crypto.host_certificates import KeyClass
from custody.encoding import Blob, Digest, Moment, Name, Record, encode, format_time, sha256

_DNS = (
    r"\A(?=.{1,253}\Z)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)
#: A DNS name in lower case, without a dot at its end; international ones in their ASCII form.
DnsName = Annotated[str, msgspec.Meta(pattern=_DNS)]
MAX_DNS_NAMES = 32


class TlsRequest(Record, frozen=True):
    """What a host shows of a key it answers TLS with.  Nothing in it is believed for being here."""

    kind: Literal["custody/tls-request/v1"]
    host: Name
    dns: Annotated[tuple[DnsName, ...], msgspec.Meta(max_length=MAX_DNS_NAMES)]
    csr: Blob
    key_public: Blob | None
    """TPMT_PUBLIC of a key that is fixed in the TPM; None for one in a file."""
    asked_at: Moment
    proof: Blob
    """By the AK: TPM2_Certify of the key, or for one in a file a quote over the request."""

    @property
    def key_class(self) -> KeyClass:
        """Where the host says that its key is."""
        return "file" if self.key_public is None else "tpm"

    def digest(self) -> Digest:
        """Name this request."""
        return sha256(encode(self)).hex()

    def qualifying(self) -> bytes:
        """Return what the proof's qualifyingData must be: all the rest of the request."""
        return bind(
            "tls-key",
            self.host.encode(),
            self.csr,
            self.key_public or b"",
            format_time(self.asked_at).encode(),
            *(name.encode() for name in self.dns),
        )
