"""What a YubiKey says of a key that was made in it: the certificate of a PIV attestation.

Yubico, "PIV Attestation" and "PIV Attestation OID Arc": a certificate for the key in a slot, signed
by the key in slot f9, whose own certificate Yubico signed in the factory.  A YubiKey makes one only
for a key that it generated; for one that was imported it makes none.  Whether the path leads to a
root that somebody trusts is for `rules.vendor`.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from custody.crypto.certificates import read_certificate, spki_of
from custody.crypto.der import INTEGER, content_of, tlv
from custody.errors import Malformed

PinPolicy = Literal["never", "once", "always", "match-once", "match-always"]
TouchPolicy = Literal["never", "always", "cached"]

MAX_ATTESTATION_BYTES = 8_192

_SUBJECT = "YubiKey PIV Attestation "
#: NIST SP 800-73-4 part 1 table 4b: the four keys, and the twenty retired key management keys.
_SLOTS = frozenset({"9a", "9c", "9d", "9e", *(f"{slot:02x}" for slot in range(0x82, 0x96))})
_ARC = "1.3.6.1.4.1.41482.3."
_FIRMWARE, _SERIAL, _POLICY, _FORM = (ObjectIdentifier(f"{_ARC}{n}") for n in (3, 7, 8, 9))
_PIN: dict[int, PinPolicy] = {
    1: "never",
    2: "once",
    3: "always",
    4: "match-once",
    5: "match-always",
}
_TOUCH: dict[int, TouchPolicy] = {1: "never", 2: "always", 3: "cached"}


class PivAttestation(msgspec.Struct, frozen=True, kw_only=True):
    """What an attestation says: by whom it is signed was not asked.

    ``slot`` is two hexadecimal digits, ``firmware`` three numbers, ``form`` the byte of the form
    factor, None where there is none (YubiKey 4).
    """

    spki: bytes
    slot: str
    serial: int
    firmware: tuple[int, int, int]
    pin: PinPolicy
    touch: TouchPolicy
    form: int | None


def is_piv_attestation(der: bytes) -> bool:
    """Tell whether a certificate (DER) says that it attests a key in a slot.

    The certificate of slot f9 and those above it are none.
    """
    if len(der) > MAX_ATTESTATION_BYTES:
        raise Malformed(f"larger than the {MAX_ATTESTATION_BYTES} bytes allowed")
    return any(found.oid == _POLICY for found in read_certificate(der).extensions)


def read_piv_attestation(der: bytes) -> PivAttestation:
    """Read the attestation of a key (DER); its signature is not checked.

    Each extension has the bytes that the vendor's document gives it, no others: three bytes of
    firmware, a positive DER INTEGER, one byte each of PIN and touch policy.  `Malformed`: anything
    else, an authority's certificate, and a policy or slot that is not known here.
    """
    if not is_piv_attestation(der):
        raise Malformed("not an attestation of a key in a slot")
    certificate = read_certificate(der)
    values = {}
    for found in certificate.extensions:
        if isinstance(found.value, x509.UnrecognizedExtension):
            values[found.oid] = found.value.value
        elif isinstance(found.value, x509.BasicConstraints) and found.value.ca:
            raise Malformed("an authority's certificate attests no key")
    firmware, policy = values.get(_FIRMWARE, b""), values[_POLICY]
    if len(firmware) != 3:
        raise Malformed("its firmware version is not three bytes")
    if len(policy) != 2 or policy[0] not in _PIN or policy[1] not in _TOUCH:
        raise Malformed("its PIN and touch policy are none that is known")
    form = values.get(_FORM)
    if form is not None and len(form) != 1:
        raise Malformed("its form factor is not one byte")
    return PivAttestation(
        spki=spki_of(der),
        slot=_slot(certificate),
        serial=_serial(values.get(_SERIAL, b"")),
        firmware=(firmware[0], firmware[1], firmware[2]),
        pin=_PIN[policy[0]],
        touch=_TOUCH[policy[1]],
        form=None if form is None else form[0],
    )


def _slot(certificate: x509.Certificate) -> str:
    names = list(certificate.subject)
    if len(names) == 1 and names[0].oid == NameOID.COMMON_NAME:
        name = str(names[0].value)
        slot = name.removeprefix(_SUBJECT)
        if name == _SUBJECT + slot and slot in _SLOTS:
            return slot
    raise Malformed("its subject names no slot of a YubiKey")


def _serial(value: bytes) -> int:
    # A serial number has 32 bits; what others read of a longer one would be another number.
    if 3 <= len(value) <= 7 and value[0] == INTEGER:
        content = content_of(value)
        number = int.from_bytes(content, "big", signed=True)
        shortest = number.to_bytes(number.bit_length() // 8 + 1, "big") if number > 0 else b""
        if content == shortest and number < 1 << 32 and tlv(INTEGER, content) == value:
            return number
    raise Malformed("its serial number is not a positive INTEGER of 32 bits")
