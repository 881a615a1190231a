"""From the place of a log to the store or source that reads it: the one choice of transports.

A place is a directory, a bucket (``s3://``, ``gs://``, ``az://``), or, to read only, a web address.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custody.errors import Malformed, Refused, Unavailable
from custody.log.offers import OfferStore, put_offers
from custody.log.storage import Source
from custody.transports.store import DirectoryStore

#: Where a log's server takes an entry (POST), and how it says that it has.
OFFER_PATH, ACCEPTED = "offer", 202
_BUCKETS = ("s3://", "gs://", "az://")
_WEB = ("http://", "https://")


def open_store(place: str) -> OfferStore:
    """Open a place that is written to."""
    if place.startswith(_BUCKETS):
        return _open_bucket(place)
    if "://" in place:
        raise Malformed("not a directory or an object store", where=place)
    return DirectoryStore(Path(place))


def open_source(place: str) -> Source:
    """Open a place that is read; a directory must be there."""
    if place.startswith(_WEB):
        # Imported when it is needed, as is the library of buckets.
        from custody.transports.web import WebSource  # noqa: PLC0415

        return WebSource(place)
    if "://" not in place and not Path(place).is_dir():
        raise Unavailable("there is no such directory", where=place)
    return open_store(place)


def offer_entries(place: str, entries: Sequence[bytes]) -> None:
    """Offer entries to the log at a place.

    Raises `Unavailable` where it cannot be reached, and `Refused` (``log.offers``) where it takes
    none.
    """
    if not place.startswith(_WEB):
        if "://" not in place and not Path(place).is_dir():
            raise Unavailable("there is no such directory", where=place)
        put_offers(open_store(place), entries)
        return
    from custody.transports.web import post  # noqa: PLC0415 - likewise

    for entry in entries:
        reply = post(f"{place.rstrip('/')}/{OFFER_PATH}", entry)
        if reply.status != ACCEPTED:
            raise Refused(f"the log takes no offers: it answers {reply.status}", check="log.offers")


def _open_bucket(place: str) -> OfferStore:
    try:
        from custody.transports.objects import open_bucket  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Unavailable(
            "obstore is not installed here", hint="pip install 'custody[store]'"
        ) from error
    return open_bucket(place)
