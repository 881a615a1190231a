"""Measuring one PKCS#11 token: throw-away keys under one login, then two child processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import pkcs11
from pkcs11 import Mechanism, TokenFlag

from custody.crypto.secret import wipe
from custody.errors import Malformed
from custody.keys.api import TokenInfo
from custody.keys.pin import PinNotice, PinReader
from custody.keys.pkcs11 import open_token
from custody.keys.pkcs11_bench import Bench, Unmade, Untested
from custody.keys.pkcs11_enforced import ENFORCED
from custody.keys.pkcs11_kept import measure_kept
from custody.keys.pkcs11_measures import ABLE
from custody.keys.pkcs11_session import Connection
from custody.keys.probe import MEASURES, Answer, Measured, ProbeReport, differences, fitness
from custody.keys.profiles import UNKNOWN, Profile, profile_named
from custody.keys.uri import Pkcs11Uri

#: A token that answers like this is not saying no to a measure: it is gone.
_GONE = (
    pkcs11.DeviceRemoved,
    pkcs11.TokenNotPresent,
    pkcs11.SessionHandleInvalid,
    pkcs11.SessionClosed,
    pkcs11.UserNotLoggedIn,
)
#: How each measure of `custody.keys.probe.MEASURES` is made, but for those of the process.
MEASURERS: Mapping[str, Callable[[Bench], bool]] = {**ABLE, **ENFORCED}
#: Exit codes of `custody.keys.pkcs11_processes` that answer nothing.
_UNTRIED = {2: "the child could not log in", 3: "the token makes no throw-away keys"}
_TYPED_THERE = "the PIN is typed at the token"
_CHILD_SECONDS = 60
#: Two threads in one library at once is a race; a library that is unsafe may be lucky once.
_TRIES = 8


def probe(
    uri: Pkcs11Uri,
    *,
    pin: PinReader | None = None,
    notice: PinNotice | None = None,
    begun: Callable[[], None] | None = None,
) -> ProbeReport:
    """Measure the one token ``uri`` names.  Nothing is left in it; errors as `open_token`.

    ``begun`` is called when it is found and has taken the PIN.

    The PIN is asked once and offered again only after the token has taken it: to keys that ask at
    each use, and in the child processes that try threads and fork.
    """
    token = open_token(uri, pin=pin, notice=notice)
    info, connection = token.info, token.connection
    profile = _profile(uri, connection)
    secret: bytearray | None = None
    try:
        _try_pin(connection)
        if begun is not None:
            begun()
        kept = {item.id: item for item in measure_kept(token)}
        with connection.login(writing=True) as session:
            # As the token is now; the binding lists what the slot offers.
            mechanisms = frozenset(int(item) for item in session.token.slot.get_mechanisms())
            bench = Bench(session, mechanisms, connection.credential())
            bench.try_out()
            measured = kept | {id_: _measure(bench, id_) for id_ in MEASURERS}
            secret = None if bench.pinpad else bytearray(bench.again.encode("utf-8"))
        for id_ in ("process.threads", "process.fork"):
            measured[id_] = _in_child(id_, uri, info, secret)
    finally:
        connection.close()
        wipe(secret or bytearray())
    names = frozenset(_name(number) for number in mechanisms)
    return ProbeReport(
        kind="custody/token-probe/v1",
        label=info.label,
        manufacturer=info.manufacturer,
        model=info.model,
        serial=info.serial,
        firmware=info.firmware,
        library=info.library,
        profile=profile.name,
        token_class=info.token_class,
        mechanisms=tuple(sorted(names)),
        measured=tuple(measured[id_] for id_ in MEASURES),
        fitness=fitness(measured, profile),
        differences=differences(measured, names, profile),
    )


def _try_pin(connection: Connection) -> None:
    # A wrong one is told before there is talk of keys.  At a pad it is typed for each login.
    if not connection.locate().flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
        with connection.login():
            pass


def _profile(uri: Pkcs11Uri, connection: Connection) -> Profile:
    """Return what to compare with: what the token says it is, else what the URI says."""
    found = connection.module.profile_of(connection.locate())
    return profile_named(uri.module_name) if found is UNKNOWN and uri.module_name else found


def _name(number: int) -> str:
    try:
        return Mechanism(number).name.lstrip("_")
    except ValueError:
        return f"{number:#010x}"


def _measure(bench: Bench, id_: str) -> Measured:
    answer: Answer
    if bench.pinpad and id_.startswith("always-"):
        return Measured(id=id_, answer="untested", detail=_TYPED_THERE)
    try:
        answer, detail = ("yes", "") if MEASURERS[id_](bench) else ("no", "")
    except _GONE:
        raise
    except Untested as reason:
        answer, detail = "untested", str(reason)
    except Unmade as reason:
        # Of what a key does nothing was seen; of what keys are made, this is the answer.
        answer = "no" if id_.startswith(("ec.", "template.")) else "untested"
        detail = f"no such key: {reason}" if answer == "untested" else str(reason)
    except (pkcs11.PKCS11Error, Malformed, NotImplementedError) as error:
        # Where a refusal would be the good answer, this was none: the permitted case failed.
        answer = "untested" if id_.startswith(("enforces.", "always-")) else "no"
        detail = type(error).__name__
    finally:
        bench.clear()
    return Measured(id=id_, answer=answer, detail=detail)


def _in_child(id_: str, uri: Pkcs11Uri, info: TokenInfo, secret: bytearray | None) -> Measured:
    """Try in a process of its own what may end it."""
    if secret is None:
        return Measured(id=id_, answer="untested", detail=_TYPED_THERE)
    named = replace(uri, token=info.label, serial=info.serial, pin_source="fd:0")
    command = [sys.executable, "-m", "custody.keys.pkcs11_processes", id_, str(named)]
    for _ in range(_TRIES if id_ == "process.threads" else 1):
        try:
            child = subprocess.run(
                command,
                input=secret,
                capture_output=True,
                timeout=_CHILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Measured(id=id_, answer="no", detail="faults")
        if child.returncode in _UNTRIED:
            return Measured(id=id_, answer="untested", detail=_UNTRIED[child.returncode])
        if child.returncode != 0:
            return Measured(id=id_, answer="no", detail="faults")
    return Measured(id=id_, answer="yes", detail="")
