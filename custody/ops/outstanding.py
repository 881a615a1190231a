"""The requests a host has made and not yet come to the end of.

One private file each, so that a command that dies loses nothing and a counter is never promised
twice.  A reboot makes every one of them dead: H died with the boot.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from custody.encoding import Digest, Moment, Record, encode
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Statement
from custody.formats.policy import Mode
from custody.formats.request import Request, Terms
from custody.keys.hostapi import MAX_EK_SPKI_BYTES, Clock, HostKey, SealedSeed
from custody.ops.files import read_record
from custody.ops.folders import read_file
from custody.ops.landing import disk_errors, give_up, replace_file

_MAX_BYTES = 1 << 20
_MAX_PATH_BYTES = 1 << 16
#: Of so many requests that ended it is remembered what they died of, and of so many, where they
#: were opened to.
_REMEMBERED = 256

#: How a request's key dies of itself; each is also the check that refuses it.
Death = Literal["tpm.rebooted", "tpm.deadline"]
DEATHS: dict[Death, str] = {
    "tpm.rebooted": "the TPM was reset, restarted or suspended since the request",
    "tpm.deadline": "the request's deadline has passed",
}
_ASK_AGAIN = "its key is dead for good; ask again: custody host request, and the officers once more"


class Landing(Record, frozen=True):
    """The directory a model is being opened into: where it will appear, and which one it is."""

    target: str
    device: Annotated[int, msgspec.Meta(ge=0)]
    inode: Annotated[int, msgspec.Meta(ge=0)]

    @classmethod
    def of(cls, target: Path, directory: Path) -> Landing:
        """Say that ``directory`` is about to become ``target``; a rename keeps its inode."""
        about = directory.lstat()
        return cls(target=str(target.absolute()), device=about.st_dev, inode=about.st_ino)

    def done(self) -> bool:
        """Whether the target is there, and is that directory."""
        target = Path(self.target)
        return target.is_dir() and self == self.of(target, target)


class Outstanding(Record, frozen=True):
    """One open request: what only this host's TPM can use again, and only this boot."""

    kind: Literal["custody/outstanding/v1"]
    request: Digest
    manifest: Digest
    terms: Digest
    mode: Mode
    endorsement_key: Annotated[bytes, msgspec.Meta(max_length=MAX_EK_SPKI_BYTES)]
    """The enrolled EK (DER SPKI): to no other TPM is anything said of this request."""
    pcrs: tuple[Annotated[int, msgspec.Meta(ge=0, le=23)], ...]
    counter_index: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    counter: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    reset_count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    restart_count: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    requested_at: Moment
    host_key: HostKey
    seed: SealedSeed | None
    landing: Landing | None

    def alive(self, clock: Clock) -> bool:
        """Whether H can still open anything: same boot, and the deadline ahead."""
        return self.death(clock) is None

    def death(self, clock: Clock) -> Death | None:
        """Say what H died of, if it did."""
        return _death(self, clock)


class Ledger(msgspec.Struct, frozen=True):
    """The folder of outstanding requests in a host's home."""

    folder: Path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let no other process promise a counter while the block runs."""
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def keep(self, entry: Outstanding) -> None:
        """Remember a request before it leaves the host."""
        with disk_errors(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path(entry.request), encode(entry))

    def find(self, request: Digest) -> Outstanding:
        """Return what is remembered of a request, or raise `Incomplete`.

        One that died and was forgotten since: `Refused`, with what it died of.
        """
        path = self._path(request)
        if not path.exists():
            if cause := self._buried(request):
                raise _dead(request, cause)
            raise Incomplete(
                "this host has no such request open",
                where=request[:16],
                hint="custody host status lists the open ones",
            )
        return self._read(path)

    def left(self, request: Digest) -> Outstanding | None:
        """Return a request that has not come to its end; None where there is no such."""
        path = self._path(request)
        return self._read(path) if path.exists() else None

    def landed(self, request: Digest) -> Landing | None:
        """Return where a request that has ended was opened to, for as long as it is remembered."""
        path = self._landed(request)
        return self._read(path).landing if path.exists() else None

    def all(self) -> tuple[Outstanding, ...]:
        """Return every request that is remembered, oldest first."""
        if not self.folder.is_dir():
            return ()
        entries = [self._read(path) for path in sorted(self.folder.glob("*.json"))]
        return tuple(sorted(entries, key=lambda e: (e.requested_at, e.request)))

    def begin(self, request: Digest, target: Path) -> None:
        """Remember where a request is being opened to, before any of it is."""
        note, wanted = self._note(request), os.fsencode(target.absolute())
        if self._target(request) == target.absolute():
            return
        self._give_up(request)
        replace_file(note, wanted)

    def forget(self, request: Digest) -> None:
        """Forget a request: H is burnt, or dead; what it opened half way is removed.

        Where it was opened to is not forgotten: whoever types the command again is told.
        """
        self._give_up(request)
        entry, path = self.left(request), self._path(request)
        with disk_errors(self.folder):
            if entry is None or entry.landing is None:
                path.unlink(missing_ok=True)
                return
            # Another run may have been quicker to do the same.
            with suppress(FileNotFoundError):
                path.rename(self._landed(request))
            self._prune("*.landed")

    def bury(self, request: Digest, cause: Death) -> None:
        """Forget a request that died, but not what it died of: somebody will still ask."""
        replace_file(self._grave(request), cause.encode())
        self.forget(request)
        with disk_errors(self.folder):
            self._prune("*.dead")

    def _prune(self, pattern: str) -> None:
        found = sorted(self.folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
        for old in found[:-_REMEMBERED]:
            old.unlink(missing_ok=True)

    def _buried(self, request: Digest) -> Death | None:
        grave = self._grave(request)
        if not grave.exists():
            return None
        said = read_file(grave, max_bytes=_MAX_BYTES)
        return next((cause for cause in DEATHS if cause.encode() == said), None)

    def _give_up(self, request: Digest) -> None:
        target = self._target(request)
        if target is not None:
            give_up(target, request[:16])
        with disk_errors(self.folder):
            self._note(request).unlink(missing_ok=True)

    def _target(self, request: Digest) -> Path | None:
        note = self._note(request)
        if not note.exists():
            return None
        return Path(os.fsdecode(read_file(note, max_bytes=_MAX_PATH_BYTES)))

    def _note(self, request: Digest) -> Path:
        return self.folder / f"{request}.target"

    def _landed(self, request: Digest) -> Path:
        return self.folder / f"{request}.landed"

    def _grave(self, request: Digest) -> Path:
        return self.folder / f"{request}.dead"

    def _path(self, request: Digest) -> Path:
        return self.folder / f"{request}.json"

    @staticmethod
    def _read(path: Path) -> Outstanding:
        return read_record(Outstanding, path)


def check_alive(request: Statement[Request], clock: Clock) -> None:
    """Refuse a request whose H is dead, before anybody waits for answers to it.

    The TPM would say so too, but not before the quorum is complete.
    """
    if cause := _death(request.predicate.terms, clock):
        raise _dead(request.digest, cause)


def _death(of: Outstanding | Terms, clock: Clock) -> Death | None:
    if (clock.reset_count, clock.restart_count) != (of.reset_count, of.restart_count):
        return "tpm.rebooted"
    return None if clock.clock_ms < of.deadline_ms else "tpm.deadline"


def _dead(request: Digest, cause: Death) -> Refused:
    return Refused(DEATHS[cause], check=cause, where=f"request {request[:16]}", hint=_ASK_AGAIN)
