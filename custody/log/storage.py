"""What a log asks of the place it lies in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """An object and its version: another string whenever the object has been replaced."""

    data: bytes
    version: str


class Source(Protocol):
    """Where a log is read: a directory, an object store, a web address."""

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return an object, None if there is none.

        Raises `Unavailable` if the place cannot be asked, `Malformed` for an oversize object.
        """


class Store(Source, Protocol):
    """Where a log is written.  Every write is on disk, or acknowledged, when it returns."""

    def look(self, path: str, *, max_bytes: int) -> Stored | None:
        """Return an object with its version, None if there is none; errors as `read`."""

    def create(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write objects that never change.

        One that is there already must be the same, else `Refused` (``store.differs``).
        """

    def swap(self, path: str, data: bytes, *, version: str | None) -> str:
        """Replace the object of that version; with None, write the first one.

        Returns the new version.  Where another version is found, or one where none was expected:
        `Refused` (``store.changed``), and nothing has been written.
        """
