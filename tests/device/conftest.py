"""Fixtures for real tokens: each test has a SoftHSM token store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from custody.errors import Unavailable
from custody.keys import pkcs11_module
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.uri import Pkcs11Uri
from custody.lab.softhsm import TokenStore, create_store, find_library, init_token, write_pin_file

USER_PIN = b"271828"
SO_PIN = b"31415926"


@dataclass
class Bench:
    """One store, and tokens in it on demand."""

    store: TokenStore

    def token(self, label: str) -> Pkcs11Uri:
        """Initialise a token whose PIN lies in a file; return its URI."""
        uri = init_token(self.store, label, so_pin=SO_PIN, user_pin=USER_PIN)
        pin = write_pin_file(self.store.directory / f"{uri.serial}.pin", USER_PIN)
        self.reload()
        return replace(uri, pin_source=str(pin))

    def reload(self) -> None:
        """Make the loaded library read its configuration, and the store, anew."""
        with suppress(Unavailable), pkcs11_module.LOCK:
            pkcs11_module.load_module(Pkcs11Uri(module_name="softhsm2")).library.reinitialize()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A fresh SoftHSM store, seen by this process and its children."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    store = create_store(tmp_path / "store")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return Bench(store)


@pytest.fixture
def uri(bench: Bench) -> Pkcs11Uri:
    """One token."""
    return bench.token("alice")


@pytest.fixture
def token(uri: Pkcs11Uri) -> Iterator[Pkcs11Token]:
    """One token, opened."""
    with open_token(uri) as opened:
        yield opened
