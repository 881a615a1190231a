"""Logging in to one PKCS#11 token: for one operation, once, under the process's lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pkcs11
from pkcs11 import TokenFlag

from custody.errors import CustodyError, Refused, Unavailable
from custody.keys import pkcs11_module as modules
from custody.keys.api import PinState
from custody.keys.pin import Pin, PinNotice, PinReader
from custody.keys.pkcs11_templates import mapper
from custody.keys.uri import Pkcs11Uri


class Connection:
    """One token, addressed anew at every use, and the PIN of one command for it."""

    def __init__(
        self,
        module: modules.Module,
        uri: Pkcs11Uri,
        *,
        reader: PinReader | None,
        notice: PinNotice | None = None,
    ) -> None:
        self.module = module
        self.uri = uri
        self._identity: tuple[str, str, str, str] | None = None
        token = self.locate()
        # From here on it is this token or none: another put into the slot, or one that took its
        # label, must not be given the PIN.
        self._identity = _identity(token)
        self.where = f"token {token.label}"
        self._pin = Pin(uri.pin_source, reader, prompt=f"PIN of token {token.label}")
        self._notice = notice
        self._open: pkcs11.Session | None = None

    def locate(self) -> pkcs11.Token:
        """Return the token as it is now."""
        self.module.check_process()
        with modules.LOCK:
            found = self.module.tokens(self.uri)
        if self._identity is not None:
            found = tuple(token for token in found if _identity(token) == self._identity)
        if not found:
            gone = "the token is gone" if self._identity else "no token matches the key URI"
            raise Unavailable(gone, where=_place(self.uri), hint=self._seen())
        if len(found) > 1:
            raise Refused(
                f"{len(found)} tokens match the key URI",
                check="token.ambiguous",
                where=_place(self.uri),
                hint="add serial=: " + ", ".join(modules.serial_of(token) for token in found),
            )
        return found[0]

    def _seen(self) -> str:
        """Name the tokens that are there, for whoever mistyped a label."""
        with modules.LOCK:
            labels = self.module.labels()
        return "there are: " + ", ".join(labels) if labels else "no token is there"

    def close(self) -> None:
        """Forget the PIN; every later login is `Unavailable`."""
        self._pin.wipe()

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Keep one login for all operations of the block, and the lock with it."""
        with self.login():
            yield

    @contextmanager
    def login(self, *, writing: bool = False) -> Iterator[pkcs11.Session]:
        """Give a session logged in as the user, for the block."""
        self.module.check_process()
        with modules.LOCK, modules.explained(where=self.where):
            if self._open is None:
                with self._logged_in(writing=writing) as session:
                    yield session
            elif writing and not self._open.rw:
                # A session without a PIN takes part in the process's login and ends without it.
                with _closing(self.locate().open(rw=True, attribute_mapper=mapper())) as session:
                    yield session
            else:
                yield self._open

    @contextmanager
    def public(self) -> Iterator[pkcs11.Session]:
        """Give a session that need not be logged in, for the block."""
        self.module.check_process()
        with modules.LOCK, modules.explained(where=self.where):
            if self._open is not None:
                yield self._open
                return
            with _closing(self.locate().open(attribute_mapper=mapper())) as session:
                yield session

    @contextmanager
    def _logged_in(self, *, writing: bool) -> Iterator[pkcs11.Session]:
        token = self.locate()
        slot = token.slot.slot_id
        if slot in self.module.logged_in:
            # The token would answer "already logged in" whatever the PIN: not a PIN check.
            raise Unavailable("this process is logged in to the token already", where=self.where)
        self._refuse_risk(token)
        pin = self._credential(token)
        # If the login fails the binding leaves its session open, without a login; it holds nothing.
        try:
            session = token.open(rw=writing, user_pin=pin, attribute_mapper=mapper())
        except pkcs11.PKCS11Error as error:
            raise self._not_taken(error) from error
        self.module.logged_in.add(slot)
        try:
            with _closing(session):
                self._open = session
                yield session
        finally:
            self._open = None
            self.module.logged_in.discard(slot)

    @contextmanager
    def officer(self, reader: PinReader) -> Iterator[pkcs11.Session]:
        """Give a session logged in as the token's security officer, for the block.

        Nobody may be logged in as its user meanwhile.  ``reader`` asks for his PIN, once.
        """
        self.module.check_process()
        with modules.LOCK, modules.explained(where=self.where):
            token = self.locate()
            if self._open is not None or token.slot.slot_id in self.module.logged_in:
                raise Unavailable("the token's user is logged in", where=self.where)
            if token.flags & (TokenFlag.SO_PIN_LOCKED | TokenFlag.SO_PIN_FINAL_TRY):
                raise Refused(
                    "one more wrong PIN would lock the token's security officer out, or has",
                    check="token.so-pin",
                    where=self.where,
                )
            pin = Pin(None, reader, prompt=f"PIN of the security officer of {self.where}")
            pinpad = token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH
            try:
                given = pkcs11.PROTECTED_AUTH if pinpad else _Bare(pin.read())
                try:
                    session = token.open(rw=True, so_pin=given, attribute_mapper=mapper())
                except pkcs11.PKCS11Error as error:
                    raise modules.explain(error, where=self.where) from error
                with _closing(session):
                    yield session
            finally:
                pin.wipe()

    def credential(self) -> Any:
        """Return the PIN as the binding takes it, for keys that want it again for each use."""
        return self._credential(self.locate())

    @property
    def pinpad(self) -> bool:
        """Whether the PIN is typed at the token as it is now."""
        return bool(self.locate().flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH)

    @contextmanager
    def again(self) -> Iterator[Any]:
        """Give the PIN for one use of a key that wants it each time.

        It is the one that the login took, so nobody is asked twice.  If the token refuses it now,
        that is once and for all, as at the login.
        """
        token = self.locate()
        if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
            raise Unavailable(
                "the key wants the PIN typed at the token for each use, and cannot be waited for",
                where=self.where,
                hint="use a key that is content with the login",
            )
        self._refuse_risk(token)
        pin = _Bare(self._pin.read())
        try:
            yield pin
        except pkcs11.PKCS11Error as error:
            reason = modules.explain(error, where=self.where)
            if isinstance(reason, Refused) and reason.check.startswith("token.pin"):
                raise self._not_taken(error) from error
            raise

    def _not_taken(self, error: pkcs11.PKCS11Error) -> CustodyError:
        """Say why the token did not take the PIN; one that it refused is not offered again."""
        reason = modules.explain(error, where=self.where)
        if isinstance(reason, Refused):
            reason = self._with_tries(reason)
            self._pin.spoil(reason)
        return reason

    def _credential(self, token: pkcs11.Token) -> Any:
        if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
            # Typed at the token, so it is not ours to hold; a refusal is remembered all the same.
            self._pin.check()
            if self._notice is not None:
                # Each time: a key that wants the PIN again waits again.
                self._notice(f"type the PIN at the keys of {self.where}")
            return pkcs11.PROTECTED_AUTH
        return _Bare(self._pin.read())

    def _with_tries(self, reason: Refused) -> Refused:
        """Say with a wrong PIN what the token now says of further ones (CK_TOKEN_INFO flags)."""
        if reason.check != "token.pin":
            return reason
        try:
            left = _TRIES.get(modules.pin_state(self.locate()))
        except (CustodyError, pkcs11.PKCS11Error):
            left = None
        if left is None:
            return reason
        return Refused(
            f"{reason.reason}; {left}", check=reason.check, where=reason.where, hint=reason.hint
        )

    def _refuse_risk(self, token: pkcs11.Token) -> None:
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise Refused(
                "the PIN is locked after too many wrong tries",
                check="token.pin-locked",
                where=self.where,
                hint="the token's security officer can set a new one",
            )
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            # A program cannot know whether the PIN it is about to be given is right; the person
            # who mistypes it loses the keys.
            raise Refused(
                "one more wrong PIN would lock the token",
                check="token.pin-final-try",
                where=self.where,
                hint="log in once with the token's own tool: that resets the count",
            )


_TRIES: dict[PinState, str] = {
    "final-try": "one more wrong one locks the token",
    "locked": "the token is locked now",
}


class _Bare:
    """Hands the PIN's own buffer to the binding, which would copy a str that nobody can wipe."""

    def __init__(self, value: bytearray) -> None:
        self._value = value

    def encode(self, _encoding: str) -> bytearray:
        return self._value


@contextmanager
def _closing(session: pkcs11.Session) -> Iterator[pkcs11.Session]:
    try:
        yield session
    except BaseException:
        # The first error says what happened; a token pulled out cannot be logged out of either.
        with suppress(pkcs11.PKCS11Error):
            session.close()
        raise
    session.close()


def _identity(token: pkcs11.Token) -> tuple[str, str, str, str]:
    return token.label, token.manufacturer_id, token.model, modules.serial_of(token)


def _place(uri: Pkcs11Uri) -> str:
    return f"token {uri.token}" if uri.token else "pkcs11:"
