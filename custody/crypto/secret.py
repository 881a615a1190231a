"""Making secrets, and forgetting them.  Protocol: docs/protocol.md section 2."""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: Whatever holds bytes.
Octets = bytes | bytearray | memoryview
#: A source of random bytes: takes a count, returns that many.
Random = Callable[[int], bytes]

_DRAW_BYTES = 32


def fresh_secret(size: int = 32, token_random: Random | None = None) -> bytearray:
    """Draw a secret of 1 to 32 bytes.

    With a token: HKDF-Extract-SHA256 (RFC 5869 section 2.2) with 32 OS bytes as salt and 32 token
    bytes as key material.  Without: OS bytes.  A token that returns too little is a ValueError.
    """
    if not 1 <= size <= _DRAW_BYTES:
        raise ValueError("a fresh secret has 1 to 32 bytes")
    ours = os.urandom(_DRAW_BYTES)
    if token_random is None:
        return bytearray(ours[:size])
    theirs = token_random(_DRAW_BYTES)
    if len(theirs) != _DRAW_BYTES:
        raise ValueError("the token returned the wrong number of random bytes")
    # Neither source is trusted alone: a token with a broken generator adds nothing but takes
    # nothing away either, and an attacker who foresees the OS pool still lacks the token's half.
    return bytearray(HKDF.extract(hashes.SHA256(), ours, theirs)[:size])


def wipe(*buffers: bytearray | memoryview) -> None:
    """Overwrite ``buffers`` with zeros.

    This is as far as the language goes: `bytes` and `int` copies that a library or an expression
    made on the way cannot be reached.
    """
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))
