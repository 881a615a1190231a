"""What may end a process, tried in one of its own: ``python -m custody.keys.pkcs11_processes``.

Arguments: ``process.threads`` or ``process.fork``, and a token's URI.  Exit codes: 0 the library
did well, 1 it did not, 2 the token could not be used, 3 it makes no throw-away keys to try with.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from threading import Barrier, Thread
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType

from custody.errors import CustodyError
from custody.keys import pkcs11_module as modules
from custody.keys.api import parse_key_uri
from custody.keys.pkcs11_session import Connection
from custody.keys.uri import Pkcs11Uri

THREADS = 4
#: Long enough that an unsafe library mostly fails, short enough to be tried several times.
SECONDS = 1.0
_LONGEST_SECONDS = 20


def main(what: str, text: str) -> int:
    """Run one trial."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    uri = parse_key_uri(text)
    if not isinstance(uri, Pkcs11Uri):
        return 2
    try:
        connection = Connection(modules.load_module(uri), uri, reader=None)
        with connection.login(writing=True) as session:
            try:
                _work(session)
            except pkcs11.PKCS11Error:
                return 3
            good = _threads(connection) if what == "process.threads" else _fork(session)
    except CustodyError:
        return 2
    return 0 if good else 1


def _work(session: Any) -> None:
    """Make a private key of this session and destroy it again: it takes a login."""
    key = session.generate_key(
        KeyType.AES,
        256,
        capabilities=pkcs11.MechanismFlag(0),
        template={
            Attribute.TOKEN: False,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        },
    )
    key.destroy()


def _threads(connection: Connection) -> bool:
    """Work in a session per thread, with no lock of ours around them."""
    faults: list[BaseException] = []
    token, gate = connection.locate(), Barrier(THREADS)

    def run() -> None:
        try:
            with token.open(rw=True) as session:
                gate.wait()
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    _work(session)
                    session.generate_random(256)
        except Exception as error:  # noqa: BLE001  every kind of failure is the answer
            gate.abort()
            faults.append(error)

    threads = [Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return not faults


def _fork(session: Any) -> bool:
    """Use the session in a forked child, where it ought to be of no use."""
    child = os.fork()
    if child == 0:
        # One that waits for a lock which nobody will ever open has inherited no login either.
        signal.alarm(_LONGEST_SECONDS)
        try:
            _work(session)
        except Exception:  # noqa: BLE001  any refusal is the good answer
            os._exit(0)
        os._exit(1)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ended != 1


if __name__ == "__main__":
    # No clean-up of the library at exit: some end in a crash there that says nothing about it.
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
