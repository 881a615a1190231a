"""The only way things are bound to each other.  Protocol: docs/protocol.md section 1."""

from __future__ import annotations

import hashlib

_PREFIX = b"custody/v1/"


def bind(tag: str, *fields: bytes) -> bytes:
    """Digest ``fields`` under ``tag`` (32 bytes).

    ``SHA-256(u8 len(tag) ‖ tag ‖ u8 n ‖ Σ u64be len(fi) ‖ fi)`` with ``tag`` prefixed by
    ``custody/v1/``.  Every length is written, so no two lists of fields share an input, and
    every use has a tag of its own, so no digest made for one purpose serves another.
    """
    full = _PREFIX + tag.encode("ascii")
    if len(full) > 255 or len(fields) > 255:
        raise ValueError("bind takes a tag and at most 255 fields")
    state = hashlib.sha256(bytes([len(full)]) + full + bytes([len(fields)]))
    for field in fields:
        state.update(len(field).to_bytes(8, "big"))
        state.update(field)
    return state.digest()
