"""Bad input at a real token that whoever runs the tests names: what destroys nothing in it.

Skipped where nobody names one; the suite of officers' tokens takes it too (test_officers_tokens).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto import signature
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Refused, Unavailable
from custody.keys.api import KeyRole
from custody.keys.pin import read_pin_source
from custody.keys.pkcs11 import open_token
from custody.keys.pkcs11_probe import probe
from custody.keys.uri import Pkcs11Uri
from tests.device.conftest import Bench
from tests.device.named import VARIABLE, cleared, named_token, officers_token, refused

HERE = Path(__file__)


@pytest.fixture
def named() -> Iterator[Pkcs11Uri]:
    """The token, left as it was found."""
    uri = named_token()
    with cleared(uri):
        yield uri


def test_it_is_as_its_profile_says(named: Pkcs11Uri) -> None:
    """Every measure agrees with what the profile of its kind claims."""
    assert () == probe(named).differences


def test_a_key_that_is_not_there_is_not_found(named: Pkcs11Uri) -> None:
    """A label alone names nothing, and no key answers to another's digest."""
    with open_token(named) as token:
        with pytest.raises(Refused) as caught:
            token.find(KeyRole.SIGN, label="alice")
        assert "key.unpinned" == caught.value.check
        with pytest.raises(Unavailable):
            token.find(KeyRole.SIGN, key_id="00" * 32)


def test_a_key_of_another_role_is_refused(named: Pkcs11Uri) -> None:
    """A signing key is made, signs, is found again, and opens nothing."""
    uri = officers_token()
    with open_token(uri) as token:
        made = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
        digest = key_id(public_bytes(made.public_key()))
        found = token.find(KeyRole.SIGN, key_id=digest)
        signature.verify(public_bytes(made.public_key()), b"x", signature.sign(found, b"x"))
        with pytest.raises(Refused) as caught:
            token.find(KeyRole.SHARE, key_id=digest)
        assert "key.role" == caught.value.check


@pytest.mark.parametrize("attribute", ["token", "serial"])
def test_another_token_is_not_taken_for_it(named: Pkcs11Uri, attribute: str) -> None:
    """A URI that names another label or serial number opens nothing, and says what is there."""
    none = "no such token"
    another = replace(named, token=none) if attribute == "token" else replace(named, serial=none)
    with pytest.raises(Unavailable) as caught:
        open_token(another)
    assert str(caught.value.hint).startswith("there are: ")


@pytest.mark.parametrize(
    ("content", "mode"),
    [(None, 0o644), (b"", 0o600), (b"1234\n5678\n", 0o600), (b"1234\r\n", 0o600)],
    ids=["world-readable", "empty", "two lines", "carriage return"],
)
def test_a_bad_pin_file_spends_no_try(
    named: Pkcs11Uri, tmp_path: Path, content: bytes | None, mode: int
) -> None:
    """What is no PIN is refused before the token hears of it, the right one in a bad file too."""
    assert named.pin_source is not None
    pin = tmp_path / "pin"
    pin.write_bytes(bytes(read_pin_source(named.pin_source)) if content is None else content)
    pin.chmod(mode)
    with open_token(named) as token:
        before = token.info.pin_count_low
    refused("pin.source", replace(named, pin_source=str(pin)))
    with open_token(named) as token:
        assert before == token.info.pin_count_low


def test_these_tests_take_a_token_that_is_named(bench: Bench) -> None:
    """They run on a token whose URI is given, leave it as it was, and say so if none is given."""
    uri = bench.token("named")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(HERE)]
    command += ["-k", "not these_tests"]
    without = {name: value for name, value in os.environ.items() if name != VARIABLE}
    said = []
    for given in ({VARIABLE: str(uri)}, {}):
        done = subprocess.run(
            command, env=without | given, capture_output=True, text=True, check=True, timeout=300
        )
        said.append(done.stdout)
    assert [False, True] == [" skipped" in text for text in said]
    assert [True, False] == [" passed" in text for text in said]
    assert f"{VARIABLE} names no token that may be thrown away" in said[1]
    bench.reload()
    with open_token(uri) as token:
        assert () == token.keys()
