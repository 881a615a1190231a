"""A YubiKey's attestation as its vendor makes it, by keys of our own.

What each certificate holds, and leaves out, is what those of a YubiKey of firmware 5.2.6 do: RSA
above the key, no key usage and no key identifiers, long dates, extensions as bare bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

FIRMWARE, SERIAL, POLICY, FORM = (f"1.3.6.1.4.1.41482.3.{n}" for n in (3, 7, 8, 9))
SINCE, UNTIL = datetime(2016, 3, 14, tzinfo=UTC), datetime(2052, 4, 17, tzinfo=UTC)
_ROOT, _F9 = "Yubico PIV Root CA Serial 263751", "Yubico PIV Attestation"

Public = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def extensions(**changed: bytes) -> dict[str, bytes]:
    """What is said of a key: PIN always, touch cached."""
    said = {"firmware": "050206", "serial": "020400c790fe", "policy": "0303", "form": "03"}
    values = {name: changed.get(name, bytes.fromhex(value)) for name, value in said.items()}
    oids = {"firmware": FIRMWARE, "serial": SERIAL, "policy": POLICY, "form": FORM}
    return {oids[name]: value for name, value in values.items()}


def certificate(
    subject: str,
    key: Public,
    issuer: str,
    signer: rsa.RSAPrivateKey,
    *,
    above: int | None = None,
    said: Mapping[str, bytes] | None = None,
    until: datetime = UNTIL,
) -> bytes:
    """Make a certificate; ``above``: how many may lie below it, where it may sign others."""
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(SINCE)
        .not_valid_after(until)
    )
    for oid, value in (said or {}).items():
        bare = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
        made = made.add_extension(bare, critical=False)
    if above is not None:
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=above), critical=True)
    return made.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


class YubiKey:
    """One YubiKey, and the vendor's root above it."""

    def __init__(self) -> None:
        self._root = rsa.generate_private_key(65537, 2048)
        self._f9 = rsa.generate_private_key(65537, 2048)
        self.root = certificate(_ROOT, self._root.public_key(), _ROOT, self._root, above=1)
        self.f9 = self.certified(_F9, self._f9.public_key())

    def certified(self, subject: str, key: Public, **how: datetime) -> bytes:
        """Have the vendor's root sign for a slot f9."""
        return certificate(
            subject,
            key,
            _ROOT,
            self._root,
            above=0,
            said={FIRMWARE: bytes.fromhex("050206")},
            until=how.get("until", UNTIL),
        )

    def attest(
        self,
        key: Public,
        slot: str,
        *,
        changed: Mapping[str, bytes] | None = None,
        without: str = "",
        authority: bool = False,
    ) -> bytes:
        """Attest a key, as f9 does."""
        said = {**extensions(), **(changed or {})}
        said.pop(without, None)
        return certificate(
            f"YubiKey PIV Attestation {slot}",
            key,
            _F9,
            self._f9,
            above=0 if authority else None,
            said=said,
        )
