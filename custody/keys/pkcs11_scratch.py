"""A throw-away token: SoftHSM in a directory of its own, for what is tried and forgotten.

SoftHSM reads its configuration when it is initialised, so a process sees one store at a time: this
takes another's place for a block, while nobody of the process is logged in.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from custody.errors import Unavailable
from custody.keys import pkcs11_module as modules
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.softhsm import create_store, init_token
from custody.keys.uri import Pkcs11Uri

LABEL = "drill"
_NAME = "SOFTHSM2_CONF"
_ANY = Pkcs11Uri(module_name="softhsm2")


@contextmanager
def scratch_token() -> Iterator[Pkcs11Token]:
    """Give a new token for the block; it is empty, and its files go with it.

    Its PINs are drawn and told to nobody.  `Unavailable` where SoftHSM is not installed.
    """
    before = os.environ.get(_NAME)
    with tempfile.TemporaryDirectory(prefix="custody-drill-") as folder:
        store = create_store(Path(folder) / "store")
        so_pin, pin = (secrets.token_hex(16).encode() for _ in range(2))
        uri = init_token(store, LABEL, so_pin=so_pin, user_pin=pin)
        try:
            os.environ.update(store.environment)
            _read_anew()
            with open_token(uri, pin=lambda _prompt, /: bytearray(pin)) as token:
                yield token
        finally:
            os.environ.pop(_NAME)
            if before is not None:
                os.environ[_NAME] = before
            _read_anew()


def _read_anew() -> None:
    with modules.LOCK:
        module = modules.load_module(_ANY)
        if module.logged_in:
            raise Unavailable("this process is logged in to a token of SoftHSM")
        module.library.reinitialize()
