"""Sealing from any source, opening to any sink, and what disks do meanwhile."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import pytest

from custody.crypto.parts import SALT_BYTES, TAG_BYTES, Row, seal_part
from custody.encoding import decode, encode
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.contents import File
from custody.formats.manifest import Core
from custody.formats.parts import PARTS, PAYLOAD
from custody.ops import linux
from custody.ops.model_files import Identity, Layout, Segment, Segments, SourceFile, plan_layout
from custody.ops.payload_open import check_payload, open_parts
from custody.ops.payload_seal import PayloadKey, seal_parts
from custody.ops.payload_source import PayloadSource
from tests.unit.ops.bundles import (
    PART,
    Sealed,
    contents_of,
    core_of,
    names,
    noise,
    read_model,
    seal_model,
    write_model,
)

_CHECKOUT = Path(__file__).parents[3]
FILES = {"a": noise(3 * PART + 5, 1), "b": noise(PART, 2), "c": noise(99, 3)}


class Generated:
    """A source without a disk: every byte of a file follows from its offset."""

    def __init__(self) -> None:
        self._block = memoryview(noise(1 << 22) * 2)

    def read(self, segment: Segment, view: memoryview) -> None:
        """Fill with a stretch of noise."""
        for at in range(0, len(view), 1 << 22):
            size = min(1 << 22, len(view) - at)
            begin = (segment.file_offset + at) // 4096 % 1024
            view[at : at + size] = self._block[begin : begin + size]

    def release(self, segments: Sequence[Segment]) -> None:
        """Nothing to let go of."""

    def finish(self) -> None:
        """Nothing can have changed."""


class Discard:
    """Counts what it is given."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def write(self, data: memoryview, offset: int) -> None:
        """Count."""
        self.size_bytes += len(data)


class Memory:
    """Keeps an opened model in memory."""

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}

    def left(self, segments: Sequence[Segment], part: memoryview) -> bool:
        """Nothing is there before."""
        return False

    def write(self, segment: Segment, view: memoryview) -> None:
        """Keep a segment."""
        end = segment.file_offset + len(view)
        file = self.files.setdefault(segment.file, bytearray())
        file.extend(bytes(max(0, end - len(file))))
        file[segment.file_offset : end] = view

    def release(self, segments: Sequence[Segment]) -> None:
        """Nothing to close."""


def generated_layout(sizes: Sequence[int], part_size: int) -> Layout:
    """Lay out files that are on no disk."""
    return plan_layout(
        [
            SourceFile(name=f"{n:03}", size_bytes=size, identity=Identity(0, n, size, 0, 0))
            for n, size in enumerate(sizes)
        ],
        part_size,
    )


def test_seal_from_anywhere() -> None:
    """A generated model is sealed to sinks that keep nothing, and its digests are right."""
    payload, rows = Discard(), Discard()
    layout = generated_layout([5 * PART + 3, 70], PART)
    key = PayloadKey(cek=bytes(32), payload_id=bytes(32), part_digest="blake3")
    sealed = seal_parts(Generated(), layout, key=key, payload=payload, rows=rows)
    assert layout.size_bytes == payload.size_bytes
    assert 72 * layout.part_count == rows.size_bytes
    view = bytearray(70)
    Generated().read(Segment(1, 0, 0, 70), memoryview(view))
    assert hashlib.sha256(view).hexdigest() == sealed.files[1].sha256


def test_open_to_memory(tmp_path: Path) -> None:
    """A bundle is opened into memory, with nothing written."""
    sealed = seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")
    sink = Memory()
    with PayloadSource(sealed.bundle, sealed.core) as source:
        open_parts(
            source, sink, core=sealed.core, contents=sealed.contents, cek=sealed.cek, workers=1
        )
    assert FILES == {sealed.contents.files[n].name: bytes(b) for n, b in sink.files.items()}
    assert {"bundle", "model"} == names(tmp_path)


class Resealed:
    """The payload of a generated model without a disk: each part is sealed when it is asked for."""

    def __init__(self, layout: Layout, key: PayloadKey) -> None:
        self._segments = Segments(layout.files, layout.part_size_bytes)
        self._plain = Generated()
        self._size = layout.part_size_bytes
        self._key = key
        self._sealed: dict[int, memoryview] = {}

    def row(self, index: int) -> Row:
        """Seal a part, to be read next."""
        buffer = memoryview(bytearray(self._size + TAG_BYTES))
        for segment in self._segments.of_part(index):
            end = segment.part_offset + segment.size_bytes
            self._plain.read(segment, buffer[segment.part_offset : end])
        salt = bytes(SALT_BYTES)
        tag = seal_part(self._key.cek, self._key.payload_id, index, buffer, salt=salt)
        self._sealed[index] = buffer
        return Row(salt=salt, tag=tag, digest=bytes(32))

    def read(self, index: int, part: memoryview) -> None:
        """Give the ciphertext of a part whose row was given."""
        part[:] = self._sealed.pop(index)[: len(part)]

    def bad(self, index: int) -> Refused:
        """No part is."""
        raise AssertionError(index)


class Nowhere:
    """Takes an opened model and keeps nothing."""

    def left(self, segments: Sequence[Segment], part: memoryview) -> bool:
        """Nothing is there before."""
        return False

    def write(self, segment: Segment, view: memoryview) -> None:
        """Keep nothing."""

    def release(self, segments: Sequence[Segment]) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Streamed:
    """What a model took to be sealed to nothing and opened to nothing."""

    size_bytes: int
    seal_seconds: float
    open_seconds: float
    peak_mib: int


def stream(size_bytes: int) -> Streamed:
    """Seal a generated model of that size to nothing, and open it to nothing."""
    key = PayloadKey(cek=bytes(32), payload_id=bytes(32), part_digest="blake3")
    layout = generated_layout([size_bytes // 4] * 4, 4 << 20)
    begun = time.monotonic()
    sealed = seal_parts(Generated(), layout, key=key, payload=Discard(), rows=Discard(), workers=2)
    between = time.monotonic()
    open_parts(
        Resealed(layout, key),
        Nowhere(),
        core=core_of(sealed, cek=bytes(32), payload_id=bytes(32), part_size=4 << 20),
        contents=contents_of(sealed),
        cek=bytes(32),
        workers=2,
    )
    status = Path("/proc/self/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return Streamed(
        size_bytes=size_bytes,
        seal_seconds=round(between - begun, 2),
        open_seconds=round(time.monotonic() - between, 2),
        peak_mib=peak_kib >> 10,
    )


_STREAM = """
import json, sys
from dataclasses import asdict
from tests.unit.ops.test_streams import stream
print(json.dumps(asdict(stream(int(sys.argv[1])))))
"""


def _streamed(size_bytes: int) -> Streamed:
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(size_bytes)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(_CHECKOUT)},
    )
    return Streamed(**json.loads(done.stdout))


def test_memory_of_a_stream() -> None:
    """Half a gigabyte through two workers, either way, takes less than 300 MiB of memory."""
    assert 300 >= _streamed(1 << 29).peak_mib


@pytest.mark.soak
def test_memory_of_a_long_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """So do a hundred gigabytes; what they took is printed, and kept for docs/benchmarks.md."""
    took = _streamed(100 * 10**9)
    kept = _CHECKOUT / "benchmarks" / "stream.json"
    kept.write_text(json.dumps(asdict(took), indent=1) + "\n")
    with capsys.disabled():
        sys.stdout.write(f"\n{took}\n")
    assert 300 >= took.peak_mib


# ── disks that do what disks do ─────────────────────────────────────────────────────────────────


def _round_trip(room: Path) -> None:
    sealed = seal_model(write_model(room / "model", FILES), room / "bundle")
    check_payload(sealed.bundle, sealed.core)
    sealed.open(room / "opened")
    assert FILES == read_model(room / "opened")


def test_short_reads_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little the disk gives or takes at a time, nothing is lost."""
    preadv, pwrite = os.preadv, os.pwrite

    def read_little(fd: int, views: list[memoryview], offset: int) -> int:
        return preadv(fd, [views[0][: 1 + len(views[0]) // 3]], offset)

    def write_little(fd: int, data: memoryview, offset: int) -> int:
        return pwrite(fd, data[: 1 + len(data) // 3], offset)

    monkeypatch.setattr(os, "preadv", read_little)
    monkeypatch.setattr(os, "pwrite", write_little)
    _round_trip(tmp_path)


@pytest.mark.parametrize("fails", [None, errno.EINVAL])
def test_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int | None
) -> None:
    """Read and written past the page cache, or where the disk will not have it, all comes back."""
    monkeypatch.setattr(linux, "_DIRECT_BYTES", 0)
    monkeypatch.setattr(linux, "on_block_device", lambda _: True)
    monkeypatch.setattr(linux, "_cached_bytes", lambda *_: 0)
    opened: list[int] = []
    reopen, preadv, pwrite = linux._reopen_direct, os.preadv, os.pwrite

    def reopened(fd: int, flags: int) -> int | None:
        direct = reopen(fd, flags)
        opened.extend([] if direct is None else [direct])
        return direct

    def refusing(call: Callable[..., int]) -> Callable[..., int]:
        def maybe(fd: int, *args: object) -> int:
            if fails and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(fails, os.strerror(fails))
            return call(fd, *args)

        return maybe

    monkeypatch.setattr(linux, "_reopen_direct", reopened)
    monkeypatch.setattr(os, "preadv", refusing(preadv))
    monkeypatch.setattr(os, "pwrite", refusing(pwrite))
    _round_trip(tmp_path)
    assert opened


def test_interrupted_calls(tmp_path: Path) -> None:
    """Signals that interrupt system calls lose nothing."""
    import signal

    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        _round_trip(tmp_path)
        time.sleep(0.002)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
@pytest.mark.parametrize("call", ["preadv", "pwrite", "fsync"])
@pytest.mark.parametrize("verb", ["seal", "open"])
def test_failing_disk_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, call: str, number: int
) -> None:
    """A disk that fails at any kind of call is named as the reason, and nothing half-made stays."""
    model = write_model(tmp_path / "model", FILES)
    sealed = seal_model(model, tmp_path / "bundle")
    real: Callable[..., object] = getattr(os, call)
    calls = iter(range(2))

    def fail(*args: object) -> object:
        if next(calls, None) is None:
            raise OSError(number, os.strerror(number))
        return real(*args)

    monkeypatch.setattr(os, call, fail)
    work: dict[str, Callable[[], object]] = {
        "seal": lambda: seal_model(model, tmp_path / "target"),
        "open": lambda: sealed.open(tmp_path / "target"),
    }
    with pytest.raises(Unavailable) as unavailable:
        work[verb]()
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert full == unavailable.value.reason.startswith("disk full")
    assert {"bundle", "model"} == names(tmp_path)


def test_holes_and_hard_links(tmp_path: Path) -> None:
    """Holes are zeros, and names of one inode are files of their own."""
    model = tmp_path / "model"
    model.mkdir()
    with (model / "sparse").open("wb") as file:
        file.truncate(3 * PART)
        file.seek(PART)
        file.write(b"data")
    os.link(model / "sparse", model / "twin")
    sealed = seal_model(model, tmp_path / "bundle")
    sealed.open(tmp_path / "opened")
    assert read_model(model) == read_model(tmp_path / "opened")
    assert {1} == {path.stat().st_nlink for path in (tmp_path / "opened").iterdir()}


# ── promises no disk could keep ─────────────────────────────────────────────────────────────────


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """A bundle."""
    return seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")


@pytest.mark.parametrize(
    ("field", "value"),
    [("partCount", 10**9), ("partCount", 1 << 63), ("partSizeBytes", 1 << 63), ("partCount", 0)],
)
def test_impossible_core_is_malformed(sealed: Sealed, field: str, value: int) -> None:
    """A manifest that promises 10^9 parts or 2^63 bytes does not get past its reader."""
    fields = msgspec.json.decode(encode(sealed.core))
    fields[field] = value
    data = msgspec.json.encode(fields, order="sorted")
    with pytest.raises(Malformed):
        decode(Core, data)


def test_large_core_is_refused_before_memory_is_taken(sealed: Sealed) -> None:
    """The most parts there can be are held against the disk before a byte is allocated for them."""
    core = msgspec.structs.replace(sealed.core, part_count=1 << 24, part_size_bytes=64 << 20)
    with pytest.raises(Refused) as refused:
        check_payload(sealed.bundle, core)
    assert "parts.size" == refused.value.check
    # With rows for all of them, the payload is what is too short.
    os.truncate(sealed.bundle / PARTS, 72 * sealed.core.part_count)
    os.truncate(sealed.bundle / PAYLOAD, 0)
    with pytest.raises(Refused) as refused:
        check_payload(sealed.bundle, sealed.core)
    assert "payload.size" == refused.value.check


def test_file_of_impossible_size_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    """A file of 2^63 - 1 bytes in the contents is refused before anything is made for it."""
    last = sealed.contents.files[-1]
    huge = File(name=last.name, size_bytes=2**63 - 1, sha256=last.sha256, offset=last.offset)
    contents = msgspec.structs.replace(sealed.contents, files=(*sealed.contents.files[:-1], huge))
    with pytest.raises((Malformed, Refused)):
        Sealed(sealed.bundle, sealed.core, contents, sealed.cek).open(tmp_path / "opened")
    assert {"bundle", "model"} == names(tmp_path)


def test_core_in_this_file_is_a_real_one(sealed: Sealed) -> None:
    """What the tests above change is otherwise read without complaint."""
    again = decode(Core, encode(sealed.core))
    assert again == sealed.core
