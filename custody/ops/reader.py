"""Read a bundle from the middle, with its key in hand and no plaintext on any disk.

A part is the least that can be verified, so it is the least that is read: a range costs the parts
it touches, and in a compressed bundle the frames it touches, each of which lies in two parts at
most.  Parts are believed by their rows, which the manifest is signed over, and opened under the
committed CEK.  That is the publisher's word: SHA-256 of a whole file, which the model
signature is over, is known only when all of the file has been read.  `Reader.vouched_by` says which
of the two it is.

Plaintext lies in the caller's memory, and in a few parts kept by the reader, which are locked where
the system lets us and zeroed at `Reader.close`.  Formats: parts.md, "Verifying", steps 5 to 10;
frames.md.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from custody.crypto.parts import TAG_BYTES, check_cek
from custody.crypto.secret import Octets
from custody.errors import Refused, Unavailable
from custody.formats.contents import Contents, File
from custody.formats.manifest import Core
from custody.ops.base_source import open_base
from custody.ops.bundle import Bundle, check_contents
from custody.ops.crew import Crew
from custody.ops.file_view import FileView
from custody.ops.memory import SecretMemory
from custody.ops.part_cache import PartCache
from custody.ops.part_source import LocalParts, PartSource
from custody.ops.pieces import Frames, Parts, Pieces
from custody.ops.progress import Progress, silent

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from numpy.typing import NDArray

    from custody.ops.tensors import TensorFile

_KEY_BYTES = 32
_BUFFER_BYTES = 128 << 10
_NAMES_SHOWN = 3

VouchedBy = Literal["publisher", "full pass"]


def open_reader(
    bundle: Bundle,
    contents: Contents,
    cek: Octets,
    *,
    base: Path | None = None,
    workers: int | None = None,
) -> Reader:
    """Open the payload of ``bundle`` for reading; the manifest and ``contents`` are verified ones.

    Copies ``cek``; ``base`` is the directory of the model that a delta is to, and must stay there
    while it is read.  Raises ``Refused`` (``cek.commitment``, ``contents.parts``, ``payload.size``,
    ``parts.size``, ``parts.root``, ``base.missing``, ``base.different``) and `Incomplete` where a
    file of the bundle is missing.
    """
    core = bundle.core
    source = LocalParts(bundle.path, core)
    try:
        return Reader(source, core=core, contents=contents, cek=cek, base=base, workers=workers)
    except BaseException:
        source.close()
        raise


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Bytes of one piece that are wanted somewhere, and whose they are."""

    file: str
    offset: int
    target: memoryview


@dataclass(frozen=True, slots=True)
class _Job:
    piece: int
    wanted: Sequence[_Wanted]


class Reader:
    """A bundle's files, readable from any byte on.  Safe to use from several threads.

    Every read raises `Refused` naming file and part where a part it touches is not the sealed one
    (``part.digest``, ``part.tag``, ``frame.stored``, ``frame.plaintext``), and `Unavailable`
    where the disk fails; parts that it does not touch do not matter.  What a failed read was to
    fill holds verified bytes, zeros, or what it held before.  A reader does not survive fork(2):
    the child finds no key in it.
    """

    def __init__(
        self,
        source: PartSource,
        *,
        core: Core,
        contents: Contents,
        cek: Octets,
        base: Path | None = None,
        workers: int | None = None,
    ) -> None:
        """Take over ``source``; raises as `open_reader` does.

        A compressed bundle is `Unavailable` without the extra ``compress``.
        """
        check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
        check_contents(contents, core)
        self._base = open_base(base, contents, core)
        self.contents = contents
        self._part_size_bytes = core.part_size_bytes
        self._files = {file.name: file for file in contents.files}
        self._source = source
        self._key = SecretMemory(_KEY_BYTES)
        self._key.view[:] = cek
        self._crew = Crew(workers)
        try:
            self._pieces = self._cut(core)
        except BaseException:
            self._key.close()
            self._close_base()
            raise
        self._cache = PartCache(self._pieces.largest_bytes, self._pieces.open_in_place)
        self._tensor_files: dict[str, TensorFile] = {}
        self._vouched: VouchedBy = "publisher"
        self._process = os.getpid()
        self._turn = threading.Condition()
        self._reading = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for reads that have begun, then zero the key and every part that was kept."""
        if self._process != os.getpid():
            return
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._turn.wait_for(lambda: not self._reading)
        self._crew.close()
        self._cache.close()
        self._pieces.close()
        self._key.close()
        self._close_base()
        self._source.close()

    @property
    def vouched_by(self) -> VouchedBy:
        """Who vouches for what is read.

        ``publisher``: every part is the one he sealed and signed for.  ``full pass``: `full_pass`
        has also found every file to have the SHA-256 that the model signature is over.
        """
        return self._vouched

    @property
    def part_size_bytes(self) -> int:
        """The least that is read at a time."""
        return self._part_size_bytes

    def files(self) -> tuple[File, ...]:
        """List the files, in code-point order of their names."""
        return self.contents.files

    def file(self, name: str) -> File:
        """Return the entry of a file; raises ``Refused("file.name")`` where there is none."""
        try:
            return self._files[name]
        except KeyError as error:
            raise Refused("the bundle has no such file", check="file.name", where=name) from error

    # ── bytes ──────────────────────────────────────────────────────────────────────────────────

    def read(self, name: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Read a range, or what there is of it: ``whole[offset:offset + size_bytes]``."""
        file = self.file(name)
        if offset < 0 or (size_bytes is not None and size_bytes < 0):
            raise ValueError("a range begins and ends after byte 0")
        there = max(0, file.size_bytes - offset)
        data = bytearray(there if size_bytes is None else min(size_bytes, there))
        self.read_into(name, offset, data)
        return bytes(data)

    def read_into(self, name: str, offset: int, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` (writable, contiguous) from ``offset`` on; return how many bytes.

        That is less than its size only where the file ends.  Parts that lie in the range whole
        are decrypted right there.
        """
        if offset < 0:
            raise ValueError("a range begins after byte 0")
        with memoryview(buffer) as given:
            # An empty array of several sides cannot be cast.
            view = given.cast("B") if given.nbytes else memoryview(bytearray())
            wanted = view[: max(0, self.file(name).size_bytes - offset)]
            self.read_many([(name, offset, wanted)])
            return len(wanted)

    def read_many(
        self, ranges: Iterable[tuple[str, int, memoryview]], *, progress: Progress = silent
    ) -> None:
        """Fill many buffers of bytes (name, offset, buffer), all cores at once.

        Each range lies in its file.  A part that several ranges touch is opened once.
        """
        jobs = self._plan(ranges)
        total, done = len(jobs) * self._pieces.largest_bytes, _Tally()

        def work(job: _Job) -> None:
            self._read_piece(job)
            done.add(self._pieces.largest_bytes)

        with self._begun():
            self._crew.run(jobs, work, lambda: progress("read", done.value, total))
        progress("read", total, total)

    def open(self, name: str) -> io.BufferedReader:
        """Open a file for reading: seekable, binary, and as lazy as a file on disk.

        A buffer of 128 KiB of plaintext lies in ordinary memory until the file is closed.
        """
        return io.BufferedReader(FileView(self, self.file(name)), _BUFFER_BYTES)

    # ── tensors ────────────────────────────────────────────────────────────────────────────────

    def tensor_file(self, name: str) -> TensorFile:
        """Read the header of a safetensors file, once; raises `Malformed` where it is none."""
        # NumPy is an extra: whoever reads bytes does without.
        from custody.ops.tensors import TensorFile  # noqa: PLC0415

        with self._turn:
            known = self._tensor_files.get(name)
        if known is None:
            known = TensorFile(self, self.file(name))
            with self._turn:
                self._tensor_files[name] = known
        return known

    def tensor(self, file: str, name: str) -> NDArray[Any]:
        """Read one tensor into new memory, from only the parts it touches."""
        return self.tensor_file(file).array(name)

    def torch_tensor(self, file: str, name: str) -> Any:
        """Read one tensor into new memory as a `torch.Tensor`, which needs torch."""
        return self.tensor_file(file).torch(name)

    # ── the whole ──────────────────────────────────────────────────────────────────────────────

    def full_pass(self, progress: Progress = silent) -> None:
        """Read everything once, and hold every file against its SHA-256; keep nothing.

        Raises ``Refused("file.digest")`` naming the file.  Afterwards `vouched_by` is "full pass".
        """
        total, done = sum(file.size_bytes for file in self.contents.files), _Tally()

        def work(file: File) -> None:
            self._check_file(file, done)

        # The largest first: a file is hashed by one core, from its beginning to its end.
        order = sorted(self.contents.files, key=lambda file: -file.size_bytes)
        with self._begun():
            self._crew.run(order, work, lambda: progress("verify", done.value, total))
        self._vouched = "full pass"
        progress("verify", total, total)

    def _check_file(self, file: File, done: _Tally) -> None:
        state = hashlib.sha256()
        own: SecretMemory | None = None
        try:
            for index, offset, size in self._pieces.cut(file.offset, file.size_bytes):
                with self._naming(index, (file.name,)):
                    if size == self._pieces.size_of(index):
                        own = own or SecretMemory(self._pieces.largest_bytes + TAG_BYTES)
                        self._pieces.open_in_place(index, own.view)
                        state.update(own.view[:size])
                    else:
                        with self._cache.part(index) as part:
                            state.update(part[offset : offset + size])
                done.add(size)
        finally:
            if own:
                own.close()
        if not compare_digest(state.digest(), bytes.fromhex(file.sha256)):
            raise Refused(
                "does not have the digest that its contents and model signature give",
                check="file.digest",
                where=file.name,
            )

    # ── pieces ─────────────────────────────────────────────────────────────────────────────────

    def _cut(self, core: Core) -> Pieces:
        workers = self._crew.workers
        parts = Parts(
            self._source, self.contents, core, self._key, base=self._base, workers=workers
        )
        table = self.contents.frame_table()
        return parts if table is None else Frames(table, parts, core, workers=workers)

    def _close_base(self) -> None:
        if self._base is not None:
            self._base.close()

    def _plan(self, ranges: Iterable[tuple[str, int, memoryview]]) -> list[_Job]:
        wanted: dict[int, list[_Wanted]] = {}
        for name, offset, target in ranges:
            file = self.file(name)
            if target and not 0 <= offset <= file.size_bytes - len(target):
                raise ValueError("a range lies outside its file")
            done = 0
            for index, begin, size in self._pieces.cut(file.offset + offset, len(target)):
                one = _Wanted(name, begin, target[done : done + size])
                wanted.setdefault(index, []).append(one)
                done += size
        return [_Job(index, of_piece) for index, of_piece in wanted.items()]

    def _read_piece(self, job: _Job) -> None:
        with self._naming(job.piece, [one.file for one in job.wanted]):
            first = job.wanted[0].target
            if len(first) == self._pieces.size_of(job.piece) and not self._cache.holds(job.piece):
                self._pieces.open_apart(job.piece, first)
                return
            with self._cache.part(job.piece) as piece:
                for one in job.wanted:
                    one.target[:] = piece[one.offset : one.offset + len(one.target)]

    @contextmanager
    def _naming(self, index: int, files: Sequence[str]) -> Iterator[None]:
        """Say which file a bad piece was read for, and where it lies."""
        try:
            yield
        except Refused as error:
            names = ", ".join(map(repr, files[:_NAMES_SHOWN]))
            more = f" and {len(files) - _NAMES_SHOWN} more" if len(files) > _NAMES_SHOWN else ""
            raise Refused(
                f"{error.reason} ({self._pieces.word} {index}, read for {names}{more})",
                check=error.check,
                where=error.where or self._source.where,
                hint=error.hint or "fetch it again: any copy that matches will do",
            ) from error

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Count a read, which `close` waits for."""
        if self._process != os.getpid():
            # Its key and threads stayed behind: what it read here would be noise, or for ever.
            raise Unavailable(
                "a reader does not survive a fork",
                where=self._source.where,
                hint="open it in the process that reads, or let that be a thread",
            )
        with self._turn:
            if self._closed:
                raise ValueError("the reader is closed")
            self._reading += 1
        try:
            yield
        finally:
            with self._turn:
                self._reading -= 1
                self._turn.notify_all()


class _Tally:
    """A count that several threads add to."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, more: int) -> None:
        with self._lock:
            self.value += more
