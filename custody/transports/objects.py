"""A store in a bucket: S3, Google Cloud, Azure, by obstore (extra ``store``).

Credentials are found where the provider's own tools find them; none is read or shown here.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError

from custody.errors import Malformed, Refused, Unavailable
from custody.log.storage import Stored

if TYPE_CHECKING:
    from obstore import PutResult, UpdateVersion
    from obstore.store import ObjectStore

#: Requests under way at once: each waits for the network, and hardly uses the processor.
_WRITERS = 32


class BucketStore:
    """Objects in a bucket that has conditional writes; most have."""

    def __init__(self, store: ObjectStore, *, name: str) -> None:
        """Use an opened bucket; ``name`` is what errors call it."""
        self._store = store
        self._name = name

    def __repr__(self) -> str:
        return f"BucketStore({self._name!r})"

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return an object, None if there is none."""
        found = self.look(path, max_bytes=max_bytes)
        return None if found is None else found.data

    def look(self, path: str, *, max_bytes: int) -> Stored | None:
        """Return an object with its version, None if there is none."""
        try:
            result = obstore.get(self._store, path)
            if result.meta["size"] > max_bytes:
                raise Malformed(f"larger than the {max_bytes} bytes allowed", where=path)
            version = _pack(result.meta["e_tag"], result.meta["version"])
            return Stored(bytes(result.bytes()), version)
        # NotFound is both an error of obstore's and a FileNotFoundError.
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise self._unavailable(error, path) from error

    def create(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects that never change; one that is there must be the same."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            for _ in pool.map(self._create, objects):
                pass

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the paths of the objects in a folder, in order; none where there is no folder."""
        try:
            found = [meta["path"] for batch in obstore.list(self._store, folder) for meta in batch]
        except (BaseError, OSError) as error:
            raise self._unavailable(error, folder) from error
        return tuple(sorted(found))

    def remove(self, path: str) -> None:
        """Take an object away; one that is not there is no error."""
        try:
            obstore.delete(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise self._unavailable(error, path) from error

    def swap(self, path: str, data: bytes, *, version: str | None) -> str:
        """Replace the object of that version, or write the first one; return the new version."""
        try:
            if version is None:
                return _of(obstore.put(self._store, path, data, mode="create"))
            return _of(obstore.put(self._store, path, data, mode=_unpack(version)))
        except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError) as error:
            raise Refused(
                "somebody else has replaced it", check="store.changed", where=self._where(path)
            ) from error
        except (BaseError, OSError, NotImplementedError) as error:
            raise self._unavailable(error, path) from error

    def _create(self, item: tuple[str, bytes]) -> None:
        path, data = item
        try:
            obstore.put(self._store, path, data, mode="create")
        except AlreadyExistsError as error:
            if self.read(path, max_bytes=len(data)) != data:
                raise Refused(
                    "another object is there already",
                    check="store.differs",
                    where=self._where(path),
                ) from error
        except (BaseError, OSError) as error:
            raise self._unavailable(error, path) from error

    def _where(self, path: str) -> str:
        return f"{self._name}/{path}"

    def _unavailable(self, error: Exception, path: str) -> Unavailable:
        # The library's message quotes the request, which may be signed; its type does not.
        return Unavailable(
            f"the object store does not answer ({type(error).__name__})", where=self._where(path)
        )


def open_bucket(url: str) -> BucketStore:
    """Open the bucket of a ``s3://``, ``gs://`` or ``az://`` address, with a prefix if it has."""
    try:
        return BucketStore(obstore.store.from_url(url), name=url.rstrip("/"))
    except (BaseError, ValueError) as error:
        raise Unavailable("not an object store that can be opened", where=url) from error


def _of(result: PutResult) -> str:
    return _pack(result["e_tag"], result["version"])


def _pack(e_tag: str | None, version: str | None) -> str:
    if e_tag is None and version is None:
        raise Unavailable("the object store has no versions to compare")
    return f"{e_tag or ''}\n{version or ''}"


def _unpack(packed: str) -> UpdateVersion:
    e_tag, _, version = packed.partition("\n")
    found: UpdateVersion = {}
    if e_tag:
        found["e_tag"] = e_tag
    if version:
        found["version"] = version
    return found
