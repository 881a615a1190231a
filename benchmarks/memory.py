"""Reading with the key in hand: a whole bundle into NumPy memory, and one tensor of a large one."""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.bench import Bench
from benchmarks.rows import Row, alone, compared
from benchmarks.timing import Contestant, Took, alternate, run_process
from custody.crypto.contentbox import open_contents, seal_contents
from custody.crypto.parts import (
    DEFAULT_PART_SIZE,
    ROW_BYTES,
    TAG_BYTES,
    cek_commitment,
    padded_parts,
    row_digest,
    seal_part,
)
from custody.crypto.parts import (
    Row as PartRow,
)
from custody.encoding import decode, encode
from custody.formats.contents import Contents, File, decode_padded, encode_padded, padded_size
from custody.formats.manifest import Core
from custody.formats.parts import PARTS, PAYLOAD, PartTable
from custody.ops.bundle import check_contents
from custody.ops.part_source import LocalParts
from custody.ops.reader import Reader
from tests.unit.ops.bundles import NOBODY, seal_model

_CEK: Final = bytes(range(32))
_ID: Final = bytes(range(32, 64))
_KEY: Final = bytes(range(64, 96))
_LARGE_BYTES: Final = 10 * 10**9
#: 4096 × 4096 of bfloat16, a projection of a model of that size.
_SIDE: Final = 4096
_FILE: Final = "model-00001-of-00001.safetensors"
_FIRSTS: Final = 20


def rows(bench: Bench) -> Iterator[Row]:
    """Open into memory beside age to nothing, then look for one tensor among 10 GB."""
    yield _whole(bench)
    yield _first(bench)


def _whole(bench: Bench) -> Row:
    room = bench.room
    place = room.path / "memory"
    place.mkdir()
    sealed = seal_model(bench.model.path, place / "bundle", part_size=DEFAULT_PART_SIZE, cek=_CEK)
    (place / "core.json").write_bytes(encode(sealed.core))
    (place / "contents.json").write_bytes(encode(sealed.contents))
    if not bench.encrypted.exists():
        run_process(bench.age.encrypt(bench.model.archive, bench.encrypted))

    def load() -> Took:
        run_process([sys.executable, "-m", "benchmarks.memory", place])
        wall, cpu = map(float, (place / "seconds").read_text().split())
        return Took(wall, cpu)

    times = alternate(
        room,
        [
            Contestant(name="custody", run=load),
            Contestant(
                name="age",
                run=lambda: run_process(bench.age.decrypt(bench.encrypted, Path(os.devnull))),
            ),
        ],
        bench.rounds,
    )
    room.clear(place.name)
    ours, theirs = times["custody"], times["age"]
    return compared(
        "open_to_memory_vs_age",
        "s",
        ours.wall,
        theirs.wall,
        f"ours in a process that has NumPy, memory and the key; age to {os.devnull}; "
        f"cpu {ours.cpu:.2f} and {theirs.cpu:.2f} s; ours {ours.spread}, age {theirs.spread}",
    )


def _touch(size_bytes: int) -> None:
    """Take memory, fill it and give it back: as `Room.warm`, for memory that is in no file.

    By the process that is measured, right before: what is free for two seconds, a virtual machine
    may give back to its host (free page reporting), and getting it again costs more than opening.
    """
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for begin in range(0, size_bytes, mmap.PAGESIZE):
            memory[begin] = 1


def open_into_memory(place: Path) -> None:
    """Do what is timed: read contents, open a reader, load every file."""
    from custody.ops.tensors import load_all

    _touch((place / "bundle" / PAYLOAD).stat().st_size)
    begun, used = time.perf_counter(), time.process_time()
    core = decode(Core, (place / "core.json").read_bytes())
    contents = decode(Contents, (place / "contents.json").read_bytes())
    source = LocalParts(place / "bundle", core)
    with Reader(source, core=core, contents=contents, cek=_CEK) as reader:
        loaded = load_all(reader)
        wall, cpu = time.perf_counter() - begun, time.process_time() - used
        (place / "seconds").write_text(f"{wall} {cpu}")
        if sum(len(file.data) for file in loaded) != sum(f.size_bytes for f in contents.files):
            raise SystemExit("bench: not all was loaded")


def _first(bench: Bench) -> Row:
    place = bench.room.path / "large"
    place.mkdir()
    core, box = _large_bundle(place)
    took = []
    read = 0
    for turn in range(_FIRSTS + 1):
        begun = time.perf_counter()
        contents = decode_padded(open_contents(_KEY, _ID, box))
        check_contents(contents, core)
        source = LocalParts(place, core)
        with Reader(source, core=core, contents=contents, cek=_CEK) as reader:
            tensor = reader.tensor(_FILE, "wanted")
            took.append(1000 * (time.perf_counter() - begun))
        read = source.bytes_read
        if tensor.tobytes() != bytes(tensor.nbytes) or not turn:
            took.clear()
    bench.room.clear(place.name)
    size, table = 2 * _SIDE * _SIDE, core.part_count * ROW_BYTES
    return alone(
        "first_tensor_ms",
        "ms",
        median(took),
        f"from the sealed contents to {size >> 20} MiB in NumPy's memory, in a bundle of "
        f"{_LARGE_BYTES / 1e9:g} GB; {read} bytes read: the tensor, "
        f"{(read - table - size) / DEFAULT_PART_SIZE:g} parts and {table} bytes of rows; "
        f"{min(took):.1f}–{max(took):.1f} ms",
    )


def _large_bundle(place: Path) -> tuple[Core, bytes]:
    """Make a bundle of which only the parts exist that will be read; the rest are holes."""
    size, part = 2 * _SIDE * _SIDE, DEFAULT_PART_SIZE
    count = padded_parts(_LARGE_BYTES, part)
    header, data_bytes = _header(size)
    begin = len(header) + data_bytes // 2
    touched = {0, *range(begin // part, (begin + size - 1) // part + 1)}
    with (place / PAYLOAD).open("wb") as payload, (place / PARTS).open("wb") as table:
        payload.truncate(count * part)
        table.truncate(count * ROW_BYTES)
        for index in sorted(touched):
            buffer = bytearray(part + TAG_BYTES)
            if not index:
                buffer[: len(header)] = header
            salt = os.urandom(24)
            tag = seal_part(_CEK, _ID, index, buffer, salt=salt)
            payload.seek(index * part)
            payload.write(memoryview(buffer)[:part])
            table.seek(index * ROW_BYTES)
            digest = row_digest("blake3", index, salt, buffer[:part], tag)
            table.write(PartRow(salt=salt, tag=tag, digest=digest).pack())
    contents = Contents(
        kind="custody/contents/v1",
        name="large",
        version="1",
        notes="",
        model_signature=b"{}",
        files=(File(name=_FILE, size_bytes=len(header) + data_bytes, sha256=NOBODY, offset=0),),
        part_digests=None,
        base=None,
        frames=None,
    )
    plain = encode_padded(contents, padded_size(contents))
    rows = PartTable((place / PARTS).read_bytes())
    return _core(rows), seal_contents(_KEY, _ID, plain)


def _header(size: int) -> tuple[bytes, int]:
    """Describe a file of 10 GB with tensors of one size, the wanted one in the middle."""
    count = _LARGE_BYTES // size
    tensors = {
        "wanted" if n == count // 2 else f"model.layers.{n}.weight": {
            "dtype": "BF16",
            "shape": [_SIDE, _SIDE],
            "data_offsets": [n * size, (n + 1) * size],
        }
        for n in range(count // 2 * 2)
    }
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, count // 2 * 2 * size


def _core(rows: PartTable) -> Core:
    return Core(
        payload_id=_ID.hex(),
        environment=NOBODY,
        policy_version=1,
        tree=NOBODY,
        publisher=NOBODY,
        part_size_bytes=DEFAULT_PART_SIZE,
        part_count=len(rows),
        part_digest="blake3",
        parts_root=rows.root(),
        cek_commitment=cek_commitment(_CEK, _ID).hex(),
        contents=NOBODY,
        contents_size_bytes=1 << 16,
        site=None,
        recovery=None,
        sealed_at=datetime(2027, 1, 5, tzinfo=UTC),
        not_after=datetime(2027, 2, 5, tzinfo=UTC),
        replaces=None,
    )


if __name__ == "__main__":
    open_into_memory(Path(sys.argv[1]))
