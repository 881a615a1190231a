"""A logged-in session to measure a PKCS#11 token in: throw-away keys, each for one use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from custody.keys.pkcs11_templates import PARAMETERS

#: What makes an object end with the session.
SESSION = {Attribute.TOKEN: False}
#: What every throw-away key is labelled.
LABEL = "custody probe"


class Untested(Exception):
    """The measure cannot be made on this token; says why."""


class Unmade(Exception):
    """The token did not make the key that a measure is about; says what it answered."""


@contextmanager
def _making() -> Iterator[None]:
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise Unmade(type(error).__name__) from error


@dataclass
class Bench:
    """A logged-in session, and what was made in it."""

    session: Any
    mechanisms: frozenset[int]
    again: Any
    """The PIN as the binding takes it, for keys that ask for it at each use."""
    made: list[Any] = field(default_factory=list)
    throw_away: bool = True
    """Whether the token makes keys that end with the session.  Many cards make none."""

    @property
    def pinpad(self) -> bool:
        """Whether the PIN is typed at the token, so that asking again asks a person."""
        return self.again is pkcs11.PROTECTED_AUTH

    def try_out(self) -> None:
        """Find out whether the token makes throw-away keys at all."""
        kinds: tuple[Callable[[], object], ...] = (
            self.ec_pair,
            lambda: self.ec_pair("secp384r1"),
            self.rsa_pair,
            lambda: self.aes(Attribute.ENCRYPT),
        )
        self.throw_away = any(not refuses(kind) for kind in kinds)
        self.clear()

    @contextmanager
    def making(self) -> Iterator[None]:
        """Tell a token that does not make a key from one that does not use it."""
        if not self.throw_away:
            raise Untested("the token makes no throw-away keys")
        with _making():
            yield

    def offers(self, mechanism: Mechanism) -> None:
        """End the measure with a "no" if the token does not offer a mechanism at all."""
        if mechanism not in self.mechanisms:
            raise pkcs11.MechanismInvalid

    def ec_pair(
        self, curve: str = "secp256r1", *, use: Attribute = Attribute.SIGN, **more: Any
    ) -> tuple[Any, Any]:
        """Make an EC pair that may do one thing; ``more`` names further private attributes."""
        self.offers(Mechanism.EC_KEY_PAIR_GEN)
        parameters = self.session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: PARAMETERS[curve]}, local=True
        )
        with self.making():
            pair = parameters.generate_keypair(
                label=LABEL,
                capabilities=pkcs11.MechanismFlag(0),
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                public_template=SESSION | {Attribute.VERIFY: use is Attribute.SIGN},
                private_template=single_use(use) | _named(more),
            )
        self.made += pair
        return pair[0], pair[1]

    def rsa_pair(self, *, use: Attribute = Attribute.DECRYPT, **more: Any) -> tuple[Any, Any]:
        """Make an RSA-2048 pair that may do one thing."""
        self.offers(Mechanism.RSA_PKCS_KEY_PAIR_GEN)
        uses = {
            Attribute.ENCRYPT: use is Attribute.DECRYPT,
            Attribute.WRAP: use is Attribute.UNWRAP,
        }
        with self.making():
            pair = self.session.generate_keypair(
                KeyType.RSA,
                2048,
                label=LABEL,
                capabilities=pkcs11.MechanismFlag(0),
                public_template=SESSION | uses,
                private_template=single_use(use) | _named(more),
            )
        self.made += pair
        return pair[0], pair[1]

    def aes(self, *uses: Attribute, **more: Any) -> Any:
        """Make an AES-256 key that may do ``uses``."""
        self.offers(Mechanism.AES_KEY_GEN)
        template = SESSION | {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
        with self.making():
            key = self.session.generate_key(
                KeyType.AES,
                256,
                label=LABEL,
                capabilities=pkcs11.MechanismFlag(0),
                template=template | dict.fromkeys(uses, True) | _named(more),
            )
        self.made.append(key)
        return key

    def secret(self, value: bytes) -> Any:
        """Put a readable secret into the token."""
        template = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
            Attribute.VALUE: value,
        }
        with self.making():
            key = self.session.create_object(template)
        self.made.append(key)
        return key

    def unwrap(self, key: Any, wrapped: bytes, mechanism: Mechanism, **more: Any) -> Any:
        """Unwrap into a readable secret."""
        template = SESSION | {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}
        item = key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            wrapped,
            mechanism=mechanism,
            capabilities=pkcs11.MechanismFlag(0),
            template=template | _named(more),
        )
        self.made.append(item)
        return item

    def clear(self) -> None:
        """Destroy what was made."""
        for item in self.made:
            with suppress(pkcs11.PKCS11Error):
                item.destroy()
        self.made.clear()


def single_use(use: Attribute) -> dict[Attribute, Any]:
    """Return the template of a private key that may do one thing and is not given away."""
    return SESSION | {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, use: True}


def _named(more: Mapping[str, Any]) -> dict[Attribute, Any]:
    return {Attribute[name]: value for name, value in more.items()}


def refuses(action: Callable[[], object]) -> bool:
    """Say whether the token refuses ``action``."""
    try:
        action()
    except (pkcs11.PKCS11Error, Unmade):
        return True
    return False
