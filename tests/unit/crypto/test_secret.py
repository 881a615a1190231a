from __future__ import annotations

import hashlib
import hmac
import os

import pytest

from custody.crypto.secret import fresh_secret, wipe


def test_both_sources_are_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is HMAC-SHA256 keyed with the OS bytes over the token's (RFC 5869 section 2.2)."""
    monkeypatch.setattr(os, "urandom", lambda size: b"o" * size)
    drawn = fresh_secret(32, lambda size: b"t" * size)
    assert hmac.new(b"o" * 32, b"t" * 32, hashlib.sha256).digest() == drawn


def test_a_stuck_token_leaves_the_os() -> None:
    """A token that always returns the same bytes does not make secrets repeat."""
    drawn = {bytes(fresh_secret(32, bytes)) for _ in range(64)}
    assert 64 == len(drawn)


def test_without_a_token() -> None:
    """Without a token the OS alone is asked, for any size up to 32."""
    assert [1, 24, 32] == [len(fresh_secret(size)) for size in (1, 24, 32)]
    assert fresh_secret() != fresh_secret()


@pytest.mark.parametrize("size", [-1, 0, 33])
def test_sizes(size: int) -> None:
    """Other sizes than 1 to 32 are refused, since the extract holds no more than 32 bytes."""
    with pytest.raises(ValueError, match="1 to 32"):
        fresh_secret(size)


def test_a_token_that_returns_too_little() -> None:
    """A short answer of the token is an error, not a weaker secret."""
    with pytest.raises(ValueError, match="wrong number"):
        fresh_secret(32, lambda size: b"t" * (size - 1))


def test_wipe() -> None:
    """Wiping zeroes every buffer in place, views included."""
    one, two = bytearray(b"secret"), bytearray(b"another")
    wipe(one, memoryview(two)[:3])
    assert bytes(6) == one
    assert b"\0\0\0ther" == two
