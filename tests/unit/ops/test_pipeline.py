"""Many parts at once, each file in order."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import random
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.parts import PART_SIZES
from custody.errors import Refused
from custody.formats.contents import File
from custody.ops import pipeline
from custody.ops.model_files import Segments, interleave, runs_of
from custody.ops.pipeline import (
    FileHashes,
    Pool,
    files_at_once,
    part_buffer,
    worker_count,
    workers_between,
    zero,
)
from custody.ops.progress import silent
from tests.unit.ops.bundles import PART, noise

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


def _files(sizes: list[int], gap: int) -> list[File]:
    offsets = itertools.accumulate(sizes, lambda end, size: end + size + gap, initial=0)
    return [
        File(name=f"{n:02}", size_bytes=size, sha256="00" * 32, offset=offset)
        for n, (size, offset) in enumerate(zip(sizes, offsets, strict=False))
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 300_000), min_size=1, max_size=8), st.integers(0, 9), st.integers(1, 6)
)
def test_files_are_hashed_in_order(sizes: list[int], gap: int, workers: int) -> None:
    """However threads meet, every file's digest is that of its bytes in order."""
    files = _files(sizes, gap)
    end = files[-1].offset + files[-1].size_bytes
    count = -(-end // PART) or 1
    payload = noise(count * PART)
    segments = Segments(files, PART)
    hashes = FileHashes(files, segments)

    def work(index: int, buffer: memoryview) -> None:
        time.sleep(random.random() / 5000)
        for segment in segments.of_part(index):
            begin = index * PART + segment.part_offset
            view = memoryview(payload)[begin : begin + segment.size_bytes]
            hashes.feed(index, segment, view)

    order = interleave(runs_of(files, segments, count), workers)
    pool = Pool(work, order, part_size_bytes=PART, stop=hashes.stop)
    pool.run("hash", count, workers, silent)
    expected = [hashlib.sha256(payload[f.offset : f.offset + f.size_bytes]).digest() for f in files]
    assert expected == [hashes.digest(n) for n in range(len(files))]


def test_error_frees_who_waits_for_the_failed_part() -> None:
    """When a part fails, workers that wait for a turn after it stop, and its error is raised."""
    files = _files([8 * PART], 0)
    segments = Segments(files, PART)
    hashes = FileHashes(files, segments)

    def work(index: int, buffer: memoryview) -> None:
        if index == 0:
            time.sleep(0.05)
            raise Refused("part 0 is bad", check="test")
        for segment in segments.of_part(index):
            hashes.feed(index, segment, buffer[:PART])

    pool = Pool(work, iter(range(8)), part_size_bytes=PART, stop=hashes.stop)
    with pytest.raises(Refused, match="part 0 is bad"):
        pool.run("hash", 8, 4, silent)


def test_first_of_several_errors_is_raised() -> None:
    """Of parts that fail together, the one begun first is named, whoever failed first."""
    both = threading.Barrier(2)

    def work(index: int, buffer: memoryview) -> None:
        both.wait()
        time.sleep(0.05 * (1 - index))
        raise Refused(f"part {index}", check="test")

    pool = Pool(work, iter(range(2)), part_size_bytes=PART, stop=lambda: None)
    with pytest.raises(Refused, match="part 0"):
        pool.run("work", 2, 2, silent)


def test_digest_of_a_file_not_fed_is_no_digest() -> None:
    """A file that was not fed whole has no digest to believe."""
    files = _files([2 * PART], 0)
    segments = Segments(files, PART)
    hashes = FileHashes(files, segments)
    assert hashes.feed(0, segments.of_part(0)[0], memoryview(bytes(PART))) is None
    with pytest.raises(ValueError, match="not all"):
        hashes.digest(0)


@pytest.mark.parametrize("cores", [1, 2, 64, 512])
@pytest.mark.parametrize("size", PART_SIZES)
def test_buffers_are_bounded(monkeypatch: pytest.MonkeyPatch, cores: int, size: int) -> None:
    """However many cores and however large the parts, buffers take at most 192 MiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert 1 <= worker_count(size)
    assert 192 << 20 >= worker_count(size) * size
    assert min(cores + 1, (192 << 20) // size) == worker_count(size)


def test_workers_wait_only_for_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In memory a core has one worker, with a disk at either end several."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(pipeline, "in_memory", lambda path: path.name == "memory")
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    assert 4 == workers_between(memory, memory)
    assert 32 == workers_between(memory, disk) == workers_between(disk, memory)
    assert [1, 4, 5, 5] == [files_at_once(count) for count in (1, 4, 5, 12)]


def test_buffer_is_zeroed() -> None:
    """A part's buffer holds nothing when its worker is done with it, errors or not."""
    kept: list[memoryview] = []

    def use() -> None:
        with part_buffer(PART) as buffer:
            kept.append(buffer)
            buffer[:] = b"\xff" * len(buffer)
            raise Refused("no", check="test")

    with pytest.raises(Refused):
        use()
    assert bytes(PART + 16) == bytes(kept[0])


@pytest.mark.parametrize("size", [PART, 4 << 20])
def test_a_buffer_begins_with_a_huge_page(size: int) -> None:
    """Its memory is aligned to one; what is large enough asks for them, and only what is used."""
    with part_buffer(size) as buffer:
        begin = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        assert 0 == begin % (2 << 20)
        assert size + 16 == len(buffer)
        assert not any(buffer)
        asked = "hg" in _flags_at(begin)
        assert (
            asked == (size >= 2 << 20) or not Path("/sys/kernel/mm/transparent_hugepage").exists()
        )
        assert {"dd", "wf"} <= _flags_at(begin)


def _flags_at(address: int) -> set[str]:
    """The flags of the mapping around ``address`` (proc(5), smaps)."""
    here = False
    for line in Path("/proc/self/smaps").read_text("ascii", "replace").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(found[1], 16) <= address < int(found[2], 16)
        elif here and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"nothing is mapped at {address:x}")


def test_a_forked_child_finds_zeros_in_a_buffer() -> None:
    """It may read, write and drop a buffer that was in use at the fork, and learns nothing."""
    with part_buffer(PART) as buffer:
        buffer[:] = b"\1" * len(buffer)
        child = os.fork()
        if not child:
            clean = not any(buffer)
            zero(buffer)
            os._exit(0 if clean else 1)
        assert 0 == os.waitpid(child, 0)[1]
        assert bytes(buffer) == b"\1" * len(buffer)


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3 << 18])
def test_zero_clears_all(size: int) -> None:
    """Every byte is cleared, and none beside."""
    data = bytearray(b"\xff" * (size + 2))
    zero(memoryview(data)[1:-1])
    assert b"\xff" + bytes(size) + b"\xff" == data
