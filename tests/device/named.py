"""A token that whoever runs the tests names, besides those that they make for themselves.

``CUSTODY_TEST_TOKEN`` holds the ``pkcs11:`` URI, with ``pin-source``, of a token that may be thrown
away: keys are made in it, one wrong PIN is offered, what its user may not destroy stays in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pkcs11
import pytest
from pkcs11 import Attribute, Mechanism

from custody.errors import Refused
from custody.keys import pkcs11_module
from custody.keys.api import parse_key_uri
from custody.keys.pkcs11 import open_token
from custody.keys.pkcs11_module import load_module
from custody.keys.uri import Pkcs11Uri

VARIABLE = "CUSTODY_TEST_TOKEN"
_OFFICERS = (Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA, Mechanism.ECDH1_DERIVE)


def named_token() -> Pkcs11Uri:
    """Return its URI; skip, and say why, where nobody named one."""
    text = os.environ.get(VARIABLE)
    if not text:
        pytest.skip(f"{VARIABLE} names no token that may be thrown away")
    uri = parse_key_uri(text)
    assert isinstance(uri, Pkcs11Uri), f"{VARIABLE} is no pkcs11: URI"
    assert uri.pin_source, f"{VARIABLE} has no pin-source: a PIN in the environment is everybody's"
    with pkcs11_module.LOCK:
        # A library that reads its settings once may have those of the tests' own tokens.
        load_module(uri).library.reinitialize()
    return uri


def officers_token() -> Pkcs11Uri:
    """Return it where it signs and agrees on a curve; skip, and say what it lacks, elsewhere."""
    uri = named_token()
    with open_token(uri) as token:
        offered = token.connection.locate().slot.get_mechanisms()
    lacks = [item.name for item in _OFFICERS if item not in offered]
    if lacks:
        pytest.skip(f"the token that {VARIABLE} names does not offer {', '.join(lacks)}")
    return uri


@contextmanager
def cleared(uri: Pkcs11Uri) -> Iterator[None]:
    """Destroy what the block left in the token, as far as its user may."""
    before = _ids(uri)
    try:
        yield
    finally:
        with open_token(uri) as token, token.connection.login(writing=True) as session:
            for item in list(session.get_objects({Attribute.TOKEN: True})):
                if _id(item) not in before:
                    with suppress(pkcs11.PKCS11Error):
                        item.destroy()


def _ids(uri: Pkcs11Uri) -> set[bytes]:
    with open_token(uri) as token, token.connection.login() as session:
        return {_id(item) for item in session.get_objects({Attribute.TOKEN: True})}


def _id(item: pkcs11.Object) -> bytes:
    # An object without an id is none of ours, and stays.
    with suppress(pkcs11.PKCS11Error):
        return bytes(item[Attribute.ID])
    return b""


def refused(check: str, uri: Pkcs11Uri) -> None:
    """Hold that listing the token's keys is refused by ``check``."""
    with open_token(uri) as token, pytest.raises(Refused) as caught:
        token.keys()
    assert check == caught.value.check
