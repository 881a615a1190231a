"""From the place of a log to the store or source that reads it: the one choice of transports.

A place is a directory, a bucket (``s3://``, ``gs://``, ``az://``), or, to read only, a web address.
"""

from __future__ import annotations

from pathlib import Path

from custody.errors import Malformed, Unavailable
from custody.log.storage import Source, Store
from custody.transports.store import DirectoryStore

_BUCKETS = ("s3://", "gs://", "az://")
_WEB = ("http://", "https://")


def open_store(place: str) -> Store:
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


def _open_bucket(place: str) -> Store:
    try:
        from custody.transports.objects import open_bucket  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(
            "obstore is not installed here", hint="pip install 'custody[store]'"
        ) from error
    return open_bucket(place)
