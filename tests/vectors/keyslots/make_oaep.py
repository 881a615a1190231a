"""Make oaep.txt: ``python -m tests.vectors.keyslots.make_oaep``.

Keys and slots are new each time, so this is for a change of the format alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from custody.crypto.bind import bind

HERE = Path(__file__).parent
SECRET = bytes(range(64))
SHA1, SHA256 = hashes.SHA1(), hashes.SHA256()


@dataclass(frozen=True)
class Slot:
    """A slot, written by hand from docs/protocol.md section 3.7."""

    comment: str
    suite: str
    key: rsa.RSAPrivateKey
    scheme: padding.OAEP
    expect: str = "slot.open"
    bound: str = ""
    inner: bytes = b""
    locked: bytes = b""
    salt: bytes = b""
    cut: int = 0
    tail: bytes = b""
    opens: rsa.RSAPrivateKey | None = None

    def __str__(self) -> str:
        """Write the vector."""
        info = bind("slot", bytes(32), b"share", b"0/1", bytes(32))
        inner = self.inner or os.urandom(32)
        locked = self.locked or self.key.public_key().encrypt(inner, self.scheme)
        salt = os.urandom(32)
        bound = bind("oaep-slot", (self.bound or self.suite).encode(), info, locked)
        okm = HKDF(hashes.SHA512(), 44, salt, bound).derive(inner)
        sealed = locked + (self.salt or salt) + AESGCM(okm[:32]).encrypt(okm[32:], SECRET, None)
        sealed = sealed[: len(sealed) - self.cut] + self.tail
        private = (self.opens or self.key).private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        )
        return "\n".join(
            (
                f"expect: {self.expect}",
                f"comment: {self.comment}",
                f"suite: {self.suite}",
                f"private: {private.hex()}",
                f"info: {info.hex()}",
                f"sealed: {sealed.hex()}",
                f"plaintext: {SECRET.hex() if self.expect == 'good' else ''}",
                "",
            )
        )


def slots() -> Iterator[Slot]:
    """Say every slot there is."""
    small = rsa.generate_private_key(65537, 2048)
    large = rsa.generate_private_key(65537, 3072)
    other = rsa.generate_private_key(65537, 2048)
    by_sha1 = padding.OAEP(padding.MGF1(SHA1), SHA1, None)
    by_sha256 = padding.OAEP(padding.MGF1(SHA256), SHA256, None)
    yield Slot("2048 bits, SHA-1", "RSA2048_OAEP_SHA1", small, by_sha1, "good")
    yield Slot("3072 bits, SHA-1", "RSA3072_OAEP_SHA1", large, by_sha1, "good")
    yield Slot("2048 bits, SHA-256", "RSA2048_OAEP_SHA256", small, by_sha256, "good")
    yield Slot("3072 bits, SHA-256", "RSA3072_OAEP_SHA256", large, by_sha256, "good")
    plain = Slot("", "RSA2048_OAEP_SHA256", small, by_sha256)
    yield replace(plain, comment="OAEP with another hash than the slot says", scheme=by_sha1)
    mixed = padding.OAEP(padding.MGF1(SHA1), SHA256, None)
    yield replace(plain, comment="a mask by another hash than OAEP's", scheme=mixed)
    labelled = padding.OAEP(padding.MGF1(SHA256), SHA256, b"custody")
    yield replace(plain, comment="OAEP with a label", scheme=labelled)
    yield replace(plain, comment="the derivation names another hash", bound="RSA2048_OAEP_SHA1")
    yield replace(plain, comment="a key of 16 bytes in OAEP", inner=os.urandom(16))
    yield replace(plain, comment="a key of 33 bytes in OAEP", inner=os.urandom(33))
    yield replace(plain, comment="another salt than the one derived with", salt=bytes(32))
    yield replace(plain, comment="sealed to another key", opens=other)
    yield replace(plain, comment="the opener's key is larger than the suite's", opens=large)
    yield replace(plain, comment="a slot for the larger key", suite="RSA3072_OAEP_SHA256")
    yield replace(plain, comment="the number is not below the modulus", locked=b"\xff" * 256)
    yield replace(plain, comment="the number is zero", locked=bytes(256))
    yield replace(plain, comment="the number is one", locked=bytes(255) + b"\1")
    yield replace(plain, comment="one byte short", cut=1)
    yield replace(plain, comment="cut inside the OAEP part", cut=200)
    yield replace(plain, comment="no message at all", cut=80)
    yield replace(plain, comment="one byte more", tail=b"\0")


def main() -> None:
    """Write the file."""
    head = (
        "# OAEP key slots.  expect: good, or the check that refuses; private: PKCS#8 DER of the\n"
        "# key that opens; info: what the slot is bound to; all hexadecimal.\n\n"
    )
    (HERE / "oaep.txt").write_text(head + "\n".join(map(str, slots())), encoding="utf-8")


if __name__ == "__main__":
    main()
