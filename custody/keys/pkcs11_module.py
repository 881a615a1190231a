"""Loading a PKCS#11 library, the one lock around it, and what its errors mean here.

python-pkcs11 initialises the library without locking functions and releases the interpreter lock
around every call.  A library told so may drop its own mutexes; SoftHSM does, and two threads in it
crash the process.  So one lock, `LOCK`, is held around everything that enters a token library.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11 import TokenFlag

from custody.errors import CustodyError, Refused, Unavailable
from custody.keys.api import PinState
from custody.keys.profiles import (
    Profile,
    library_paths,
    load_profiles,
    profile_behind,
    profile_named,
)
from custody.keys.uri import Pkcs11Uri

#: Held around every entry into any token library.  One for the process: a library may be loaded
#: under two names, and its login state is the process's, not the thread's.
LOCK: AbstractContextManager[Any] = threading.RLock()


class Module:
    """One loaded PKCS#11 library.  ``library`` is what ``pkcs11.lib`` returns."""

    def __init__(self, library: Any, *, path: Path) -> None:
        self.path = path
        self.library = library
        self.logged_in: set[int] = set()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Module {self.path}>"

    @property
    def description(self) -> str:
        """The library's own description and version."""
        major, minor = self.library.library_version
        return f"{self.library.library_description} {major}.{minor}"

    def profile_of(self, token: pkcs11.Token) -> Profile:
        """Return the profile of a token of this library."""
        return profile_behind(
            token.manufacturer_id,
            token.model,
            library=self.library.library_description,
            library_manufacturer=self.library.manufacturer_id,
        )

    def check_process(self) -> None:
        """Refuse use in a process forked after loading (PKCS#11 3.1 section 5.6.3).

        The child shares the parent's sessions, its login among them, and perhaps a lock that
        nobody will ever open.
        """
        if os.getpid() != self._pid:
            raise Unavailable(
                "the token library was loaded before this process was forked",
                hint="open the token in the process that uses it",
            )

    def tokens(self, uri: Pkcs11Uri) -> tuple[pkcs11.Token, ...]:
        """List the initialised tokens that ``uri`` matches, as they are now."""
        if not self._is_named(uri):
            return ()
        return tuple(token for token in self._all() if _matches(token, uri))

    def labels(self) -> tuple[str, ...]:
        """Name the initialised tokens that are there, as they are now."""
        return tuple(sorted(str(token.label) for token in self._all()))

    def _all(self) -> list[pkcs11.Token]:
        found = []
        with explained(where=str(self.path)):
            for slot in self.library.get_slots(token_present=True):
                try:
                    token = slot.get_token()
                except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                    continue
                if token.flags & TokenFlag.TOKEN_INITIALIZED:
                    found.append(token)
        return found

    def _is_named(self, uri: Pkcs11Uri) -> bool:
        return _agree(
            (uri.library_manufacturer, self.library.manufacturer_id),
            (uri.library_description, self.library.library_description),
            (uri.library_version, self.library.library_version),
        )


def _matches(token: pkcs11.Token, uri: Pkcs11Uri) -> bool:
    return _agree(
        (uri.token, token.label),
        (uri.manufacturer, token.manufacturer_id),
        (uri.serial, serial_of(token)),
        (uri.model, token.model),
        (uri.slot_id, token.slot.slot_id),
        (uri.slot_manufacturer, token.slot.manufacturer_id),
        (uri.slot_description, token.slot.slot_description),
    )


def _agree(*pairs: tuple[object, object]) -> bool:
    return all(wanted is None or wanted == found for wanted, found in pairs)


def serial_of(token: pkcs11.Token) -> str:
    """Return the token's serial number as text."""
    return token.serial.decode("utf-8", "replace")


def pin_state(token: pkcs11.Token) -> PinState:
    """Return what the token says of its user PIN, the worst first."""
    flags: tuple[tuple[TokenFlag, PinState], ...] = (
        (TokenFlag.USER_PIN_LOCKED, "locked"),
        (TokenFlag.USER_PIN_FINAL_TRY, "final-try"),
        (TokenFlag.USER_PIN_COUNT_LOW, "low"),
    )
    for flag, state in flags:
        if token.flags & flag:
            return state
    return "right" if token.flags & TokenFlag.USER_PIN_INITIALIZED else "unset"


_loaded: dict[Path, Module] = {}


def load_module(uri: Pkcs11Uri) -> Module:
    """Load the library that ``uri`` names: its module-path, else where its profile says it lies."""
    path = _module_path(uri)
    _check_place(path)
    with LOCK:
        module = _loaded.get(path)
        if module is None:
            _prepare(path)
            with explained(where=str(path)):
                module = _loaded[path] = Module(pkcs11.lib(str(path)), path=path)
    module.check_process()
    return module


def _prepare(path: Path) -> None:
    """Set what a library reads from the environment, where the user has not."""
    for profile in load_profiles():
        if path in (known.resolve() for known in library_paths(profile)):
            for setting in profile.setting:
                os.environ.setdefault(setting.variable, setting.value)


def _module_path(uri: Pkcs11Uri) -> Path:
    if uri.module_path is not None:
        candidates: tuple[Path, ...] = (Path(uri.module_path),)
    elif uri.module_name is not None:
        candidates = library_paths(profile_named(uri.module_name))
    else:
        raise Unavailable(
            "the key URI names no token library",
            hint="add ?module-name=PROFILE, as softhsm2, or ?module-path=/path/to/library.so",
        )
    for path in candidates:
        if path.is_file():
            return path.resolve()
    raise Unavailable(
        "the token library is not installed",
        where=uri.module_path or uri.module_name,
        hint="looked for " + ", ".join(str(path) for path in candidates)
        if candidates
        else "its profile knows no place for it; add ?module-path=/path/to/library.so",
    )


def _check_place(path: Path) -> None:
    # A token library is code that is given the PIN: whoever can replace it has the PIN.
    for place in (path, *path.parents):
        try:
            mode = place.stat().st_mode
        except OSError as error:
            raise Unavailable(
                f"cannot read the token library's directory ({error.strerror})", where=str(place)
            ) from error
        # In a sticky directory others cannot replace what we own, but only further up: beside
        # the library itself they could still have put it there in the first place.
        shared = place not in (path, path.parent) and mode & stat.S_ISVTX
        if mode & stat.S_IWOTH and not shared:
            raise Refused(
                "the token library can be replaced by any user",
                check="module.path",
                where=str(place),
            )


@contextmanager
def explained(*, where: str) -> Iterator[None]:
    """Turn the errors of the token library inside the block into ours."""
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise explain(error, where=where) from error


def explain(error: pkcs11.PKCS11Error, *, where: str) -> CustodyError:
    """Say what an error of the token library means: who must do what."""
    for kinds, check, reason, hint in _REFUSALS:
        if isinstance(error, kinds):
            return Refused(reason, check=check, where=where, hint=hint)
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return Unavailable(reason, where=where)
    name = type(error).__name__
    words = f"{name}: {error}" if name == "PKCS11Error" and str(error) else name
    return Unavailable(f"the token library answered {words}", where=where)


_Kinds = tuple[type[pkcs11.PKCS11Error], ...]
_REFUSALS: tuple[tuple[_Kinds, str, str, str | None], ...] = (
    (
        (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange),
        "token.pin",
        "the PIN is wrong",
        "it was tried once and is not tried again; run the command anew with the right PIN",
    ),
    (
        (pkcs11.PinLocked,),
        "token.pin-locked",
        "the PIN is locked after too many wrong tries",
        "the token's security officer can set a new one",
    ),
    ((pkcs11.PinExpired,), "token.pin-expired", "the PIN has expired and must be changed", None),
    (
        (pkcs11.AttributeSensitive, pkcs11.KeyUnextractable, pkcs11.KeyNotWrappable),
        "key.export",
        "the token does not give the key away",
        None,
    ),
)
_REASONS: tuple[tuple[_Kinds, str], ...] = (
    (
        (
            pkcs11.NoSuchToken,
            pkcs11.TokenNotPresent,
            pkcs11.TokenNotRecognised,
            pkcs11.DeviceRemoved,
            pkcs11.SlotIDInvalid,
            pkcs11.SessionHandleInvalid,
            pkcs11.SessionClosed,
        ),
        "the token is gone",
    ),
    ((pkcs11.DeviceError,), "the token reports a fault"),
    ((pkcs11.DeviceMemory,), "the token is full"),
    ((pkcs11.HostMemory, pkcs11.SessionCount), "the token library has no session or memory left"),
    ((pkcs11.TokenWriteProtected, pkcs11.SessionReadOnly), "the token cannot be written to"),
    ((pkcs11.UserPinNotInitialized,), "the token has no user PIN yet"),
    ((pkcs11.FunctionCancelled,), "the PIN was not entered at the token"),
    (
        (pkcs11.UserAlreadyLoggedIn, pkcs11.AnotherUserAlreadyLoggedIn),
        "this process is logged in to the token already",
    ),
    (
        (pkcs11.MechanismInvalid, pkcs11.MechanismParamInvalid, pkcs11.FunctionNotSupported),
        "the token cannot do this operation",
    ),
)
