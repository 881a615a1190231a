"""What a device that has nothing but keys lists as objects."""

from __future__ import annotations

from collections.abc import Iterable

from custody.keys.api import KeyInfo
from custody.keys.audit import HeldObject


def objects_of(keys: Iterable[KeyInfo]) -> tuple[HeldObject, ...]:
    """Describe private keys as objects; what such a device does not tell stays empty."""
    return tuple(
        HeldObject(
            kind="private",
            type="EC",
            label=key.label,
            id=key.id.hex(),
            role="" if key.role is None else key.role.value,
            flags=(),
            untold=(),
            mechanisms=(),
            size_bits=0,
            digest="",
            excused=(),
        )
        for key in keys
    )
