"""The recovery key of an environment, made from a seed.  Protocol: docs/protocol.md section 7.

Every key comes from one seed of 32 bytes, each under a name of its own::

    HKDF-Expand-SHA512( seed, "custody/v1/recovery" ‖ 00 ‖ NAME, size )      NAME: ec, mlkem, rsa

The EC half is RFC 9180 section 7.1.3, DeriveKeyPair of DHKEM(P-256, HKDF-SHA256) or DHKEM(P-384,
HKDF-SHA384) over 32 or 48 of these bytes; the ML-KEM half is the FIPS 203 seed d ‖ z.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from custody.crypto.keyslots import MLKEM_SEED_BYTES, HpkeSuite, curve_of, recipient_id
from custody.crypto.keyslots import open as open_slot
from custody.crypto.secret import Octets, wipe
from custody.crypto.signature import public_bytes
from custody.encoding import KeyId
from custody.errors import Malformed

SEED_BYTES = 32
#: Set ids are 15 bits (SLIP-0039).
MAX_SET_ID = (1 << 15) - 1


@dataclass(frozen=True, slots=True)
class _Kem:
    """What DeriveKeyPair needs of a KEM: its id (RFC 9180 section 7.1), curve and hash."""

    id: int
    curve: ec.EllipticCurve
    digest: str
    size: int


_KEMS = {
    "secp256r1": _Kem(0x0010, ec.SECP256R1(), "sha256", 32),
    "secp384r1": _Kem(0x0011, ec.SECP384R1(), "sha384", 48),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryKeyPair:
    """A recovery key, for the moment of a ceremony.  Leave the block, and its ML-KEM half goes."""

    suite: HpkeSuite
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    mlkem_seed: bytearray | None = field(repr=False)

    @property
    def spki(self) -> bytes:
        """The public EC half, DER."""
        return public_bytes(self.key.public_key())

    @property
    def mlkem(self) -> bytes | None:
        """The public ML-KEM-1024 half of a hybrid (1568 bytes)."""
        if self.mlkem_seed is None:
            return None
        private = mlkem.MLKEM1024PrivateKey.from_seed_bytes(bytes(self.mlkem_seed))
        return private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> KeyId:
        """The recipient id that slots name."""
        return recipient_id(self.spki, self.mlkem)

    def open(self, sealed: bytes, *, info: bytes) -> bytearray:
        """Open a slot that is sealed to this key; another key or ``info`` is `Refused`."""
        seed = None if self.mlkem_seed is None else bytes(self.mlkem_seed)
        return bytearray(open_slot(self.suite, self.key, seed, sealed, info=info))

    def wipe(self) -> None:
        """Forget what can be forgotten; the EC half is the library's."""
        if self.mlkem_seed is not None:
            wipe(self.mlkem_seed)


def derive_key(seed: Octets, suite: HpkeSuite) -> RecoveryKeyPair:
    """Make the recovery key of a seed (32 bytes)."""
    if len(seed) != SEED_BYTES:
        raise Malformed("a recovery seed has 32 bytes")
    kem = _KEMS[curve_of(suite)]
    ikm = expand_seed(seed, "ec", kem.size)
    try:
        key = derive_key_pair(kem.curve, ikm)
    finally:
        wipe(ikm)
    hybrid = suite == "MLKEM1024_P384"
    return RecoveryKeyPair(
        suite=suite,
        key=key,
        mlkem_seed=expand_seed(seed, "mlkem", MLKEM_SEED_BYTES) if hybrid else None,
    )


def expand_seed(seed: Octets, name: str, size: int) -> bytearray:
    """Return the bytes of a seed that go by a name."""
    info = b"custody/v1/recovery\0" + name.encode("ascii")
    return bytearray(HKDFExpand(hashes.SHA512(), size, info).derive(bytes(seed)))


def derive_key_pair(curve: ec.EllipticCurve, ikm: Octets) -> ec.EllipticCurvePrivateKey:
    """Make the key pair of some key material: RFC 9180 section 7.1.3, for P-256 and P-384."""
    kem = _KEMS[curve.name]
    if len(ikm) < kem.size:
        raise Malformed("too little key material for this curve")
    suite = b"KEM" + kem.id.to_bytes(2, "big")
    prk = hmac.digest(b"", b"HPKE-v1" + suite + b"dkp_prk" + bytes(ikm), kem.digest)
    for counter in range(256):
        label = kem.size.to_bytes(2, "big") + b"HPKE-v1" + suite + b"candidate" + bytes([counter])
        # One block of HKDF-Expand is all there is: the hash is as long as the scalar.
        candidate = int.from_bytes(hmac.digest(prk, label + b"\x01", kem.digest), "big")
        try:
            return ec.derive_private_key(candidate, curve)
        except ValueError:
            continue  # zero, or not below the order of the group: once in 2 to the 32
    raise AssertionError("internal: no candidate is a scalar")
