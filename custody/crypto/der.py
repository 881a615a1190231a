"""Just enough DER (X.690) to see that a signed structure has no second encoding."""

from __future__ import annotations

from custody.errors import Malformed

SEQUENCE, SET, CONTEXT_0 = 0x30, 0x31, 0xA0
INTEGER, BIT_STRING, UTF8_STRING, GENERALIZED_TIME = 0x02, 0x03, 0x0C, 0x18

#: The largest certificate and revocation list that any reader takes, in bytes of DER.
MAX_CERTIFICATE_BYTES = 65_536
MAX_CRL_BYTES = 16 << 20

#: DER of the OID arc ecdsa-with-* (1.2.840.10045.4); RFC 5758 section 3.2 forbids parameters.
_ECDSA_ARC = bytes.fromhex("2a8648ce3d04")


def signed_body(der: bytes, *, max_bytes: int, inner: int | None) -> tuple[bytes, ...]:
    """Take apart ``SEQUENCE { body, algorithm, BIT STRING }`` and return the body's elements.

    Only the body is signed.  So that nobody can change the rest and keep the signature, the rest
    must be exactly what the body says: the algorithm it names at ``inner``, whole bytes of
    signature, and nothing behind them.
    """
    if len(der) > max_bytes:
        raise Malformed(f"larger than the {max_bytes} bytes allowed")
    parts = elements(der)
    if len(parts) != 3 or tlv(SEQUENCE, b"".join(parts)) != der:
        raise Malformed("not a signed DER structure")
    tbs, algorithm, signature = parts
    body = elements(tbs)
    oid = elements(algorithm)
    if signature[0] != BIT_STRING or content_of(signature)[:1] != b"\0":
        raise Malformed("signature is not a string of whole bytes")
    if oid[0][2:].startswith(_ECDSA_ARC) and len(oid) != 1:
        raise Malformed("ECDSA takes no parameters")
    if inner is not None and (len(body) <= inner or body[inner] != algorithm):
        raise Malformed("signed and unsigned signature algorithms differ")
    return body


def tlv(tag: int, content: bytes) -> bytes:
    """Write one element with the shortest length there is."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def content_of(element: bytes) -> bytes:
    """Return what an element holds, without its header."""
    return element[_header(element, 0)[0] :]


def elements(der: bytes, *, tag: int = SEQUENCE) -> tuple[bytes, ...]:
    """Cut the content of a SEQUENCE (or SET) into its elements, each with its header."""
    if der[:1] != bytes([tag]):
        raise Malformed("not a DER sequence" if tag == SEQUENCE else "not the DER element expected")
    start, end = _header(der, 0)
    if end != len(der):
        raise Malformed("has trailing bytes or is cut short")
    found = []
    while start < end:
        following = _header(der, start)[1]
        if following > end:
            raise Malformed("a DER element is longer than what holds it")
        found.append(der[start:following])
        start = following
    if not found:
        raise Malformed("an empty DER sequence")
    return tuple(found)


def _header(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of the element at ``at`` starts and ends."""
    if at + 2 > len(der):
        raise Malformed("cut short")
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        count = size & 0x7F
        start += count
        size = int.from_bytes(der[at + 2 : start], "big")
        if not 1 <= count <= 4 or start > len(der) or size < 0x80 or size >> (8 * count - 8) == 0:
            raise Malformed("a DER length is not minimal")
    return start, start + size
