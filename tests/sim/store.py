"""A store and a ledger in memory that fail, or are killed, before or after any write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from custody.errors import Malformed, Refused
from custody.formats.logstate import SignedHead
from custody.log.storage import Stored


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Steps:
    """Counts writes, and ends the process before or after the ``at``-th (from 1)."""

    at: int = 0
    when: str = "before"
    error: type[BaseException] = Killed
    names: list[str] = field(default_factory=list)

    def reach(self, name: str, when: str) -> None:
        """Come to one side of a write."""
        if when == "before":
            self.names.append(name)
        if len(self.names) == self.at and when == self.when:
            raise self.error(f"{when} {name}")


@dataclass
class MemoryStore:
    """Objects in a dictionary; every object of `create` is a write of its own."""

    steps: Steps = field(default_factory=Steps)
    objects: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        self.reads.append(path)
        data = self.objects.get(path)
        if data is not None and len(data) > max_bytes:
            raise Malformed("too large", where=path)
        return data

    def look(self, path: str, *, max_bytes: int) -> Stored | None:
        data = self.read(path, max_bytes=max_bytes)
        return None if data is None else Stored(data, str(self.versions[path]))

    def create(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for path, data in objects:
            self.steps.reach(f"create {path}", "before")
            if self.objects.setdefault(path, data) != data:
                raise Refused("another object is there", check="store.differs", where=path)
            self.steps.reach(f"create {path}", "after")

    def swap(self, path: str, data: bytes, *, version: str | None) -> str:
        self.steps.reach(f"swap {path}", "before")
        found = self.versions.get(path)
        if (None if found is None else str(found)) != version:
            raise Refused("replaced", check="store.changed", where=path)
        self.objects[path] = data
        self.versions[path] = (found or 0) + 1
        self.steps.reach(f"swap {path}", "after")
        return str(self.versions[path])


@dataclass
class MemoryLedger:
    """What a log has promised."""

    steps: Steps = field(default_factory=Steps)
    head: SignedHead | None = None

    def last(self) -> SignedHead | None:
        return self.head

    def promise(self, head: SignedHead) -> None:
        self.steps.reach("promise", "before")
        if self.head is not None and self.head.size > head.size:
            raise Refused("ahead", check="store.changed")
        if self.head is not None and self.head.size == head.size and self.head != head:
            raise Refused("another head", check="log.rewound")
        self.head = head
        self.steps.reach("promise", "after")
