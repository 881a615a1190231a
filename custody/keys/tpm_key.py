"""What every private key in a TPM has in common: it is a `cryptography` key that stays inside."""

from __future__ import annotations

from typing import Any, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
)
from tpm2_pytss.types import TPM2B_ECC_POINT, TPMS_ECC_POINT

from custody.errors import Refused


class TpmKey(ec.EllipticCurvePrivateKey):
    """An elliptic-curve private key in a TPM.  Whatever would export it is `Refused`."""

    def __init__(self, public: ec.EllipticCurvePublicKey) -> None:
        self._public = public

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.curve.name}>"

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        raise Refused("this key does not sign", check="key.use")

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        raise Refused("this key does not derive", check="key.use")

    def private_numbers(self) -> NoReturn:
        raise Refused("the key does not leave its TPM", check="key.export")

    def private_bytes(
        self,
        encoding: Encoding,
        format: PrivateFormat,  # noqa: A002 - cryptography's name
        encryption_algorithm: KeySerializationEncryption,
    ) -> NoReturn:
        raise Refused("the key does not leave its TPM", check="key.export")

    def __copy__(self) -> TpmKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> TpmKey:
        return self


def to_point(peer: ec.EllipticCurvePublicKey, ours: ec.EllipticCurvePublicKey) -> Any:
    """Return a peer's public key as TPM2_ECDH_ZGen takes it; it must be on our curve."""
    if peer.curve.name != ours.curve.name:
        raise ValueError("the peer's key is on another curve")
    numbers = peer.public_numbers()
    size = (ours.key_size + 7) // 8
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    return TPM2B_ECC_POINT(TPMS_ECC_POINT(x=x, y=y))


def shared_x(point: Any, ours: ec.EllipticCurvePublicKey) -> bytes:
    """Return the x coordinate of TPM2_ECDH_ZGen's answer, as long as `cryptography` makes it."""
    # A TPM may leave out leading zeros, and every 256th agreement would fail.
    return bytes(point.point.x).rjust((ours.key_size + 7) // 8, b"\0")
