"""One EC private key in a PKCS#11 token, as ``cryptography`` sees it."""

from __future__ import annotations

from typing import Any

import pkcs11
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism

from custody.errors import Refused, Unavailable
from custody.keys.api import KeyInfo, KeyRole
from custody.keys.pkcs11_private import TokenPrivate
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import derived_template
from custody.keys.prehash import digest_to_sign
from custody.keys.profiles import Profile


class TokenKey(TokenPrivate, ec.EllipticCurvePrivateKey):
    """Signs with C_Sign or agrees with C_DeriveKey, as its role allows; never leaves its token."""

    def __init__(
        self,
        connection: Connection,
        info: KeyInfo,
        *,
        role: KeyRole,
        public: ec.EllipticCurvePublicKey,
        profile: Profile,
    ) -> None:
        self._connection = connection
        self._role = role
        self._public = public
        self._profile = profile
        self.info = info

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        """Hash on the host, sign with CKM_ECDSA (what every token has), return DER."""
        if self._role.derives:
            raise Refused("a share key does not sign", check="key.role", where=self._where)
        # Truncated here, as FIPS 186-5 section 6.4.1 has it: tokens differ in whether they do it.
        digest = digest_to_sign(data, signature_algorithm)[0][: self._size]
        with self._connection.login() as session:
            key: Any = self._object(session)
            with self._pin_again(key) as more:
                raw: bytes = key.sign(digest, mechanism=Mechanism.ECDSA, **more)
        if len(raw) != 2 * self._size:
            raise Unavailable("the token returned no ECDSA signature", where=self._where)
        return encode_dss_signature(
            int.from_bytes(raw[: self._size], "big"), int.from_bytes(raw[self._size :], "big")
        )

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Agree by CKM_ECDH1_DERIVE without a key derivation function; return the x coordinate."""
        if not self._role.derives:
            raise Refused("a signing key opens no shares", check="key.role", where=self._where)
        if peer_public_key.curve.name != self.curve.name:
            raise ValueError("peer_public_key and self are not on the same curve")
        point = peer_public_key.public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        if self._profile.ecdh_point == "der":
            point = _octet_string(point)
        with self._connection.login() as session:
            key: Any = self._object(session)
            derived = key.derive_key(
                KeyType.GENERIC_SECRET,
                8 * self._size,
                mechanism=Mechanism.ECDH1_DERIVE,
                mechanism_param=(pkcs11.KDF.NULL, None, point),
                capabilities=0,
                template=dict(derived_template(self._size)),
            )
            try:
                shared = bytes(derived[Attribute.VALUE])
            finally:
                derived.destroy()
        if len(shared) != self._size:
            raise Unavailable("the token returned no ECDH value", where=self._where)
        return shared

    @property
    def _size(self) -> int:
        return (self.key_size + 7) // 8


def _octet_string(value: bytes) -> bytes:
    # X.690 section 8.1.3.5: P-521 points have 133 bytes and need the long form of the length.
    head = b"\x04" + (bytes([len(value)]) if len(value) < 128 else bytes([0x81, len(value)]))
    return head + value
