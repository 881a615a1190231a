"""Naming certificates that an authority's home has issued, to revoke them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custody.cli._home import read_digest
from custody.errors import Refused
from custody.ops.authority import certificates_of
from custody.ops.home import Home
from custody.ops.pem import read_certificates


def read_issued(home: Home, texts: Sequence[str]) -> list[bytes]:
    """Return the certificates (DER) that files hold, or that were issued for key ids."""
    return [der for text in texts for der in _certificates(home, text)]


def _certificates(home: Home, text: str) -> tuple[bytes, ...]:
    path = Path(text)
    if path.is_file():
        return read_certificates([path])
    found = certificates_of(home, read_digest(text, option="CERT|KEYID"))
    if not found:
        raise Refused("no certificate was issued here for this key", check="revoke.key", where=text)
    return found
