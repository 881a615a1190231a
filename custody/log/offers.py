"""Entries that are offered to a log, until who keeps it appends them.

Whoever may write to the place may offer: a digest and a kind, and nothing that costs more than
an entry.  Each lies under ``offered/`` by its own digest, so that offering twice is offering once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.encoding import sha256
from custody.errors import Malformed, Refused
from custody.formats.logentry import MAX_ENTRY_BYTES, decode_entry
from custody.log.storage import Store

OFFERED = "offered"
#: What may wait: one batch.
MAX_OFFERS = 1 << 16


class OfferStore(Store, Protocol):
    """A store that can also tell what lies in a folder, and take an object away."""

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the paths of the objects in a folder, in order; none where there is no folder."""

    def remove(self, path: str) -> None:
        """Take an object away; one that is not there is no error."""


def put_offers(store: OfferStore, entries: Sequence[bytes]) -> None:
    """Lay entries down for the log; too many waiting: `Refused` (``log.offers``)."""
    objects = [(_path(entry), entry) for entry in entries if decode_entry(entry)]
    if len(store.names(OFFERED)) + len(objects) > MAX_OFFERS:
        raise Refused("too much is waiting to be logged", check="log.offers")
    store.create(objects)


def take_offers(store: OfferStore) -> tuple[bytes, ...]:
    """Return what is offered; what is no entry, or lies under another's name, is taken away."""
    found = []
    for path in store.names(OFFERED)[:MAX_OFFERS]:
        try:
            data = store.read(path, max_bytes=MAX_ENTRY_BYTES) or b""
            decode_entry(data)
        except Malformed:
            store.remove(path)
            continue
        if path == _path(data):
            found.append(data)
        else:
            store.remove(path)
    return tuple(found)


def drop_offers(store: OfferStore, entries: Sequence[bytes]) -> None:
    """Take away what was logged."""
    for entry in entries:
        store.remove(_path(entry))


def _path(entry: bytes) -> str:
    return f"{OFFERED}/{sha256(entry).hex()}"
