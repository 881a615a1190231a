"""What every private key in a PKCS#11 token has in common: it stays inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from cryptography.hazmat.primitives import serialization
from pkcs11 import Attribute, ObjectClass

from custody.errors import Refused, Unavailable
from custody.keys.api import KeyInfo
from custody.keys.pkcs11_session import Connection
from custody.keys.pkcs11_templates import always_authenticates


class TokenPrivate:
    """One private key in a token, to be had beside a class of `cryptography`.

    Whatever would export it is `Refused` (``key.export``).
    """

    info: KeyInfo
    _connection: Connection

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.info.uri}>"

    def private_numbers(self) -> NoReturn:
        self._refuse_export()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - cryptography's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        self._refuse_export()

    def __reduce__(self) -> NoReturn:
        self._refuse_export()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _refuse_export(self) -> NoReturn:
        raise Refused("the key stays in its token", check="key.export", where=self._where)

    @property
    def _where(self) -> str:
        return f"{self._connection.where}, key {self.info.label}"

    def _object(self, session: Any) -> Any:
        """Find the key by its id, in a session that is logged in."""
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: self.info.id}
        found = list(session.get_objects(wanted))
        if not found:
            raise Unavailable("the key is no longer in the token", where=self._where)
        if len(found) > 1:
            raise Refused(
                "several private keys have this id", check="key.ambiguous", where=self._where
            )
        return found[0]

    @contextmanager
    def _pin_again(self, key: Any) -> Iterator[dict[str, Any]]:
        """Give what an operation takes besides, where the key wants the PIN for each use."""
        if always_authenticates(key):
            with self._connection.again() as pin:
                yield {"pin": pin}
        else:
            yield {}
