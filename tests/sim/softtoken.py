"""A token whose keys are software keys: for tests of what is above the devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from custody.crypto.oaepslots import OaepParameters
from custody.crypto.signature import public_bytes
from custody.encoding import KeyId
from custody.encoding import key_id as digest_of
from custody.errors import Unavailable
from custody.keys.api import KeyInfo, KeyRole, TokenInfo


@dataclass
class SoftToken:
    """A `Token` (custody.keys.api) that asks for no PIN and counts its logins."""

    made: list[tuple[KeyRole, str, ec.EllipticCurvePrivateKey]] = field(default_factory=list)
    decrypts: list[rsa.RSAPrivateKey] = field(default_factory=list)
    logins: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    @property
    def info(self) -> TokenInfo:
        return TokenInfo(
            label="soft",
            manufacturer="tests",
            model="soft",
            serial="1",
            firmware="1",
            library="none",
            profile="none",
            token_class="software",
        )

    @contextmanager
    def session(self) -> Iterator[None]:
        self.logins += 1
        yield

    def find(
        self,
        role: KeyRole,
        *,
        label: str | None = None,
        id: bytes | None = None,
        key_id: KeyId | None = None,
    ) -> ec.EllipticCurvePrivateKey:
        for made_for, _, key in self.made:
            if made_for is role and digest_of(public_bytes(key.public_key())) == key_id:
                return key
        raise Unavailable("no such key in this token")

    def make(
        self, role: KeyRole, label: str, curve: ec.EllipticCurve
    ) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(curve)
        self.made.append((role, label, key))
        return key

    def keys(self) -> tuple[KeyInfo, ...]:
        return ()

    def decrypting(self) -> SoftOaepKeys:
        return SoftOaepKeys(self)

    def random(self, size: int) -> bytes:
        return os.urandom(size)


@dataclass
class SoftOaepKeys:
    """The `OaepKeys` (custody.keys.api) of such a token."""

    token: SoftToken

    def make(self, label: str, parameters: OaepParameters) -> rsa.RSAPrivateKey:
        key = rsa.generate_private_key(65537, parameters.modulus_bits)
        self.token.decrypts.append(key)
        return key

    def find(self, key_id: KeyId) -> rsa.RSAPrivateKey:
        for key in self.token.decrypts:
            if digest_of(public_bytes(key.public_key())) == key_id:
                return key
        raise Unavailable("no such key in this token")
