"""What lets interrupted work go on: the secrets of a seal, the parts a check has found good.

Both are kept in the actor's home and believed for lying there.  The secrets of a seal are sealed to
a share key in his token besides: without token and PIN a stolen disk gives no content key.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec

from custody.crypto.bind import bind
from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import seal as seal_slot
from custody.crypto.parts import ROW_BYTES
from custody.crypto.secret import fresh_secret, wipe
from custody.crypto.signature import public_bytes
from custody.encoding import Bytes32, Count, Digest, KeyId, Record, decode, encode
from custody.errors import Refused
from custody.formats.manifest import Core
from custody.formats.parts import PARTS, PAYLOAD
from custody.formats.policy import PartDigest, SuiteName
from custody.ops.folders import read_file, reading
from custody.ops.keys import ShareOpener, TokenRandom
from custody.ops.landing import (
    disk_errors,
    give_up,
    new_directory,
    replace_file,
    resumable_directory,
    unfinished_output,
)
from custody.ops.model_files import Identity, Layout

_SECRET_BYTES = 32
_MAX_BYTES = 1 << 23
_SAVE_SECONDS = 2.0


@dataclass(slots=True)
class SealSecrets:
    """Everything that must be forgotten when the manifest is signed; 32 bytes each."""

    cek: bytearray = field(repr=False)
    release: bytearray = field(repr=False)
    contents: bytearray = field(repr=False)

    @classmethod
    def draw(cls, token_random: TokenRandom | None) -> SealSecrets:
        """Draw fresh ones."""
        return cls(*(fresh_secret(_SECRET_BYTES, token_random) for _ in range(3)))

    @classmethod
    def unpack(cls, data: bytearray) -> SealSecrets:
        """Take what `pack` wrote."""
        if len(data) != 3 * _SECRET_BYTES:
            raise Refused("not the secrets of a seal", check="seal.unfinished")
        cut = (data[at : at + _SECRET_BYTES] for at in range(0, len(data), _SECRET_BYTES))
        return cls(*map(bytearray, cut))

    def pack(self) -> bytearray:
        """Join them, to be sealed."""
        return self.cek + self.release + self.contents

    def wipe(self) -> None:
        """Forget them."""
        wipe(self.cek, self.release, self.contents)


class UnfinishedSeal(Record, frozen=True):
    """A seal that was begun: of which model, for whom, and by which secrets."""

    kind: Literal["custody/unfinished-seal/v1"]
    model: Digest
    environment: Digest
    part_size_bytes: Count
    part_digest: PartDigest
    payload_id: Bytes32
    recipient: KeyId
    sealed: Annotated[bytes, msgspec.Meta(max_length=4096)]


class SealJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a seal is of; an unfinished one goes on only if it is of the same."""

    target: Path
    layout: Layout
    environment: Digest
    part_digest: PartDigest

    def model(self) -> Digest:
        """Digest every name, size, place and identity (`model_files.Identity`) of the files."""
        state = hashlib.sha256()
        for placed in self.layout.files:
            about = placed.file.identity
            numbers = (about.device, about.inode, about.size_bytes, about.mtime_ns, about.ctime_ns)
            place = placed.offset.to_bytes(8, "big")
            words = b"".join(n.to_bytes(16, "big", signed=True) for n in numbers)
            state.update(bind("unfinished-file", placed.name.encode(), place, words))
        return state.hexdigest()


class SealStage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a seal works, and with what.  ``kept`` says that an earlier run's work is there."""

    directory: Path
    payload_id: bytes
    secrets: SealSecrets
    kept: bool


class SealKeeper(msgspec.Struct, frozen=True):
    """Keeps what a seal needs to go on, one private file for each target."""

    folder: Path
    opener: ShareOpener
    suite: SuiteName

    def find(self, target: Path) -> UnfinishedSeal | None:
        """Return the seal that was begun for ``target`` and has left something, if any."""
        path = self._path(target)
        if not path.exists():
            return None
        with reading(path):
            found = decode(UnfinishedSeal, read_file(path, max_bytes=_MAX_BYTES))
        return found if unfinished_output(target, _key(found.payload_id)) else None

    def parts_there(self, target: Path) -> int | None:
        """Count the parts that claim to be there; None where no seal was interrupted."""
        found = self.find(target)
        output = unfinished_output(target, _key(found.payload_id)) if found else None
        if output is None:
            return None
        rows = output / PARTS
        data = rows.read_bytes() if rows.exists() else b""
        return sum(any(data[at : at + ROW_BYTES]) for at in range(0, len(data), ROW_BYTES))

    def keep(self, job: SealJob, payload_id: bytes, secrets: SealSecrets) -> None:
        """Remember a seal before its first part is written."""
        record = UnfinishedSeal(
            kind="custody/unfinished-seal/v1",
            model=job.model(),
            environment=job.environment,
            part_size_bytes=job.layout.part_size_bytes,
            part_digest=job.part_digest,
            payload_id=payload_id,
            recipient=self.opener.recipient,
            sealed=b"",
        )
        secret = secrets.pack()
        try:
            sealed = seal_slot(
                self.suite,
                public_bytes(self.opener.key.public_key()),
                self.opener.mlkem_public,
                secret,
                info=_info(record),
            )
        finally:
            wipe(secret)
        replace_file(self._path(job.target), encode(msgspec.structs.replace(record, sealed=sealed)))

    def open(self, found: UnfinishedSeal, job: SealJob) -> SealSecrets:
        """Open the secrets of a seal that is of the same job; another one is refused."""
        hint = "custody publisher seal --start-over throws away what is there"
        if found.model != job.model():
            raise Refused(
                "changed since its sealing was interrupted", check="model.changed", hint=hint
            )
        if (found.environment, found.part_size_bytes, found.part_digest, found.recipient) != (
            job.environment,
            job.layout.part_size_bytes,
            job.part_digest,
            self.opener.recipient,
        ):
            raise Refused(
                "an unfinished seal for another environment, part size or key lies there",
                check="seal.unfinished",
                where=str(job.target),
                hint=hint,
            )
        secret = bytearray(
            open_slot(
                self.suite,
                self.opener.key,
                self.opener.mlkem_seed,
                found.sealed,
                info=_info(found),
            )
        )
        try:
            return SealSecrets.unpack(secret)
        finally:
            wipe(secret)

    def forget(self, target: Path) -> None:
        """Throw away secrets and parts of an unfinished seal."""
        found = self.find(target)
        with disk_errors(self.folder):
            self._path(target).unlink(missing_ok=True)
        if found is not None:
            give_up(target, _key(found.payload_id))

    def _path(self, target: Path) -> Path:
        name = hashlib.sha256(os.fsencode(target.absolute())).hexdigest()
        return self.folder / f"{name}.json"


def _key(payload_id: bytes) -> str:
    return payload_id.hex()[:16]


def _info(record: UnfinishedSeal) -> bytes:
    return bind(
        "unfinished-seal",
        record.payload_id,
        bytes.fromhex(record.environment),
        bytes.fromhex(record.model),
        bytes.fromhex(record.recipient),
    )


@contextmanager
def seal_stage(
    job: SealJob, keeper: SealKeeper | None, token_random: TokenRandom | None
) -> Iterator[SealStage]:
    """Give the place and the secrets of a seal, new or gone on with; land it at the end.

    Without a keeper an interrupted seal leaves nothing, and starts again.
    """
    found = keeper.find(job.target) if keeper else None
    if keeper and found:
        payload_id, secrets = found.payload_id, keeper.open(found, job)
    else:
        payload_id, secrets = os.urandom(32), SealSecrets.draw(token_random)
    try:
        if keeper is None:
            place = new_directory(job.target)
        else:
            if not found:
                keeper.keep(job, payload_id, secrets)
            place = resumable_directory(job.target, _key(payload_id))
        with place as directory:
            yield SealStage(
                directory=directory,
                payload_id=payload_id,
                secrets=secrets,
                kept=found is not None,
            )
    finally:
        secrets.wipe()
        # Kept work is still there; whatever ended otherwise, landed or refused, needs no secrets.
        if keeper and not keeper.find(job.target):
            keeper.forget(job.target)


class CheckedParts(Record, frozen=True):
    """Which parts of a bundle were found good, and of which files that is true."""

    kind: Literal["custody/checked-parts/v1"]
    manifest: Digest
    files: tuple[tuple[int, int, int, int, int], ...]
    good: Annotated[bytes, msgspec.Meta(max_length=1 << 21)]


class CheckMemory:
    """Remembers good parts in a home while a check runs; gone when the check is through.

    It holds for files of the same device, inode, size and both times: whoever can set a file's
    change time owns the machine.
    """

    def __init__(self, folder: Path, manifest: Digest, bundle: Path, core: Core) -> None:
        """Read what an interrupted check of these very files left."""
        self._path = folder / f"{manifest}.json"
        self._manifest = manifest
        self._files = tuple(_identity(bundle / name) for name in (PARTS, PAYLOAD))
        self._good = bytearray(-(-core.part_count // 8))
        self._lock = threading.Lock()
        self._saved = time.monotonic()
        if self._path.exists():
            with reading(self._path):
                left = decode(CheckedParts, read_file(self._path, max_bytes=_MAX_BYTES))
            if (left.manifest, left.files) == (manifest, self._files) and len(left.good) == len(
                self._good
            ):
                self._good[:] = left.good

    @staticmethod
    def is_left(folder: Path, manifest: Digest) -> bool:
        """Tell whether an interrupted check left which parts were good."""
        return (folder / f"{manifest}.json").exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with disk_errors(self._path):
                self._path.unlink(missing_ok=True)
        else:
            self._save()

    @property
    def count(self) -> int:
        """How many parts were found good."""
        return int.from_bytes(self._good, "big").bit_count()

    def has(self, index: int) -> bool:
        """Whether a part was found good."""
        return bool(self._good[index // 8] >> index % 8 & 1)

    def add(self, index: int) -> None:
        """Remember a good part; on disk every now and then."""
        with self._lock:
            self._good[index // 8] |= 1 << index % 8
            due = time.monotonic() - self._saved > _SAVE_SECONDS
            if due:
                self._saved = time.monotonic()
        if due:
            self._save()

    def _save(self) -> None:
        with self._lock:
            record = CheckedParts(
                kind="custody/checked-parts/v1",
                manifest=self._manifest,
                files=self._files,
                good=bytes(self._good),
            )
            replace_file(self._path, encode(record))


def _identity(path: Path) -> tuple[int, int, int, int, int]:
    with disk_errors(path):
        about = Identity.of(path.stat())
    return about.device, about.inode, about.size_bytes, about.mtime_ns, about.ctime_ns
