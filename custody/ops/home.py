"""An actor's home: one private directory with who he is, what he trusts and what he remembers.

::

    identity.json      who uses this home, by which keys in which token    (formats/state)
    memory.json        the pin, and the newest of everything ever seen     (formats/state)
    seen.json          the newest checkpoint of every log that was seen    (formats/logstate)
    lock               held while either is rewritten
    …/                 folders of a role's own
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from custody.encoding import Record, decode, encode
from custody.errors import Incomplete, Refused
from custody.formats.logstate import SeenLogs
from custody.formats.state import Identity, Memory
from custody.ops.folders import read_file, reading
from custody.ops.landing import disk_errors, replace_file, write_new_file

R = TypeVar("R", bound=Record)

SEEN = "seen.json"
_IDENTITY = "identity.json"
_MEMORY = "memory.json"
_LOCK = "lock"
#: What a home has one of as soon as it is used; whoever follows a log holds the lock.
_OWN = (_IDENTITY, _MEMORY, _LOCK, SEEN, "evidence", "log.json", "witness.json")
#: A memory with a hundred thousand keys of hosts.
_MAX_STATE_BYTES = 64 << 20


def nothing_seen() -> SeenLogs:
    """Return the memory of who has seen no log."""
    return SeenLogs(kind="custody/logs-seen/v1", logs=())


def ensure_file(path: Path, data: bytes) -> None:
    """Write a private file of a home; one that is there stays as it is."""
    try:
        write_new_file(path, data, mode=0o600)
    except Refused as error:
        if error.check != "target.exists":
            raise


def _make_private(path: Path) -> None:
    """Make a folder, and what lacks on the way to it, for this user alone."""
    if path.exists():
        return
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)


class Home:
    """A private state directory.  It is made at the first write, for this user alone."""

    def __init__(self, path: Path, *, role: str = "ROLE") -> None:
        """Open ``path``, where nothing need be; one that others can reach is `Refused`
        (``home.private``).

        ``role`` is whose commands to hint at.
        """
        self.path = path.absolute()
        self._role = role
        self._check_private()

    def begin(self) -> None:
        """Make the home, if it is not there.  Whatever writes into one calls this first."""
        with disk_errors(self.path):
            _make_private(self.path)
        # Between the two, somebody else may have made it.
        self._check_private()
        if self.is_fresh():
            # From here on a missing memory is a lost one, and no first contact.
            ensure_file(self.path / SEEN, encode(nothing_seen()))

    def is_fresh(self) -> bool:
        """Tell whether nothing was ever written here."""
        with disk_errors(self.path):
            return not any((self.path / name).exists() for name in _OWN)

    def _check_private(self) -> None:
        with disk_errors(self.path):
            try:
                about = self.path.stat()
            except FileNotFoundError:
                return
            if not stat.S_ISDIR(about.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        # Whoever can write here can move the pin, and with it everything that is believed.
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
            raise Refused(
                "this home is not private to its user",
                check="home.private",
                where=str(self.path),
                hint=f"chmod 700 {self.path}",
            )

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other process rewrite what is remembered while the block runs."""
        self.begin()
        with disk_errors(self.path):
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def folder(self, *names: str) -> Path:
        """Return a folder of this home, made if it is not there."""
        self.begin()
        folder = self.path.joinpath(*names)
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def has_identity(self) -> bool:
        """Tell whether somebody uses this home."""
        return (self.path / _IDENTITY).exists()

    def identity(self) -> Identity:
        """Return who uses this home; nobody yet: `Incomplete`."""
        if not self.has_identity():
            raise Incomplete(
                "nobody has enrolled in this home",
                missing=("an identity",),
                where=str(self.path),
                hint=f"custody {self._role} enroll --help",
            )
        return self._read(Identity, _IDENTITY)

    def save_identity(self, identity: Identity) -> None:
        """Write down who uses this home; a home keeps its first user."""
        self.begin()
        write_new_file(self.path / _IDENTITY, encode(identity), mode=0o600)

    def change_identity(self, identity: Identity) -> None:
        """Write down further keys of whoever uses this home; call it under `lock`."""
        replace_file(self.path / _IDENTITY, encode(identity))

    def has_memory(self) -> bool:
        """Tell whether anything was pinned here."""
        return (self.path / _MEMORY).exists()

    def memory(self) -> Memory:
        """Return what is remembered; nothing pinned yet: `Incomplete`."""
        if not self.has_memory():
            raise Incomplete(
                "no policy is trusted yet",
                missing=("a policy digest, told by a person",),
                where=str(self.path),
                hint=f"custody {self._role} trust DIGEST --env DIR",
            )
        return self._read(Memory, _MEMORY)

    def save_memory(self, memory: Memory) -> None:
        """Remember; call it under `lock`."""
        self.begin()
        replace_file(self.path / _MEMORY, encode(memory))

    def _read(self, kind: type[R], name: str) -> R:
        path = self.path / name
        with reading(path):
            return decode(
                kind, read_file(path, max_bytes=_MAX_STATE_BYTES), max_bytes=_MAX_STATE_BYTES
            )
