"""A time-stamping authority whose clock can be set: RFC 3161 responses as `openssl ts` makes them.

Only the tests that stamp at a moment of their own need it; that `openssl ts` makes the same is
tested beside the reader.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from asn1crypto import cms, core, tsp
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.release.cast import NOW

_TSA = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A root and, under it, a key that stamps."""

    def __init__(
        self,
        *,
        start: datetime = NOW - timedelta(days=400),
        end: datetime = NOW + timedelta(days=400),
        usage: x509.ExtendedKeyUsage = _TSA,
    ) -> None:
        """Make one whose stamping certificate is valid from ``start`` to ``end``."""
        root_key = ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        root = (
            x509.CertificateBuilder()
            .subject_name(_name("time root"))
            .issuer_name(_name("time root"))
            .public_key(root_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=4000))
            .not_valid_after(NOW + timedelta(days=4000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root_key, hashes.SHA256())
        )
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_name("tsa.example"))
            .issuer_name(_name("time root"))
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(usage, critical=True)
            .sign(root_key, hashes.SHA256())
        )
        self.root = root.public_bytes(Encoding.DER)
        self.certificate = leaf.public_bytes(Encoding.DER)

    def stamp(self, digest: str, at: datetime) -> bytes:
        """Say that something with this SHA-256 digest (hex) was there at a moment."""
        info = tsp.TSTInfo(
            {
                "version": "v1",
                "policy": "1.2.3.4.1",
                "message_imprint": {
                    "hash_algorithm": {"algorithm": "sha256"},
                    "hashed_message": bytes.fromhex(digest),
                },
                "serial_number": 7,
                "gen_time": at,
            }
        )
        return self._response(info)

    def _response(self, info: Any) -> bytes:
        certificate = asn1.Certificate.load(self.certificate)
        content = info.dump()
        hashed = hashlib.sha256(self.certificate).digest()
        attributes = cms.CMSAttributes(
            [
                {"type": "content_type", "values": ["tst_info"]},
                {"type": "message_digest", "values": [hashlib.sha256(content).digest()]},
                {
                    "type": "signing_certificate_v2",
                    "values": [
                        {
                            "certs": [
                                {"hash_algorithm": {"algorithm": "sha256"}, "cert_hash": hashed}
                            ]
                        }
                    ],
                },
            ]
        )
        signature = self._key.sign(attributes.untag().dump(), ec.ECDSA(hashes.SHA256()))
        signer = {
            "version": "v1",
            "sid": {
                "issuer_and_serial_number": {
                    "issuer": certificate.issuer,
                    "serial_number": certificate.serial_number,
                }
            },
            "digest_algorithm": {"algorithm": "sha256"},
            "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "sha256_ecdsa"},
            "signature": signature,
        }
        signed = {
            "version": "v3",
            "digest_algorithms": [{"algorithm": "sha256"}],
            "encap_content_info": {
                "content_type": "tst_info",
                "content": core.ParsableOctetString(content),
            },
            "certificates": [certificate],
            "signer_infos": [signer],
        }
        response = tsp.TimeStampResp(
            {
                "status": {"status": "granted"},
                "time_stamp_token": {"content_type": "signed_data", "content": signed},
            }
        )
        return bytes(response.dump())
