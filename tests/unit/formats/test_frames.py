"""The frames of a compressed model: strict rows, and Zstandard with nothing left to choose."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from custody import formats
from custody.encoding import encode
from custody.errors import Malformed, Refused
from custody.formats.contents import (
    MAX_CONTENTS_BYTES,
    Contents,
    File,
    decode_padded,
    encode_padded,
)
from custody.formats.frames import (
    MAX_FRAME_BYTES,
    ROW_BYTES,
    WIDTHS,
    Frame,
    FrameTable,
    check_zstandard,
)
from custody.ops.part_map import PartMap
from custody.ops.payload_seal import SealedPayload
from tests.unit.crypto.vectors import Vector, read
from tests.unit.ops.bundles import PART, core_of

SPECIFICATION = (Path(formats.__file__).parent / "frames.md").read_text(encoding="utf-8")
HEADERS = ("rows", "stored", "plaintext", "reason")
VECTORS = read("frames/frames.txt", *HEADERS)
CONFIG = b'{"layers":2}\n'
WEIGHTS = b"".join((0x3F00 + 37 * i % 256).to_bytes(2, "little") for i in range(1024))


def _row(width: int, planes: int, size: int, stored: int, digest: bytes = bytes(32)) -> bytes:
    return struct.pack(">BBII32s", width, planes, size, stored, digest)


def _as_it_is(*sizes: int) -> bytes:
    return b"".join(_row(0, 0, size, size) for size in sizes)


def _contents(frames: bytes | None, *files: tuple[str, int, int], parts: int = 1) -> Contents:
    return Contents(
        kind="custody/contents/v1",
        name="m",
        version="1",
        notes="",
        model_signature=b"{}",
        files=tuple(
            File(name=name, offset=offset, size_bytes=size, sha256="00" * 32)
            for name, offset, size in files
        ),
        part_digests=None,
        base=None,
        frames=frames,
    )


def test_worked_example() -> None:
    """The specification's rows are those of its two files, and its sum is right."""
    stored = bytes.fromhex("28b52ffd6000034d0000103f3f0100fb2b8005")
    check_zstandard(stored, size_bytes=1024)
    assert b"\x3f" * 1024 == zstandard.ZstdDecompressor().decompress(stored) == WEIGHTS[1::2]
    frames = [
        Frame(
            width=0,
            planes=0,
            size_bytes=len(CONFIG),
            stored_bytes=len(CONFIG),
            digest=blake3(CONFIG).digest(),
        ),
        Frame(
            width=2,
            planes=0b10,
            size_bytes=len(WEIGHTS),
            stored_bytes=1024 + len(stored),
            digest=blake3(WEIGHTS).digest(),
        ),
    ]
    assert 1056 == FrameTable(b"".join(frame.pack() for frame in frames)).stored_bytes
    rows = re.findall(r"^\| `[a-z.]+` \|(.*)\|$", SPECIFICATION, re.MULTILINE)
    written = [re.sub(r"[^0-9a-f]", "", row) for row in rows]
    assert [frame.pack().hex() for frame in frames] == written
    for shown in (WEIGHTS[:8], WEIGHTS[:16:2], stored):
        assert shown.hex() in SPECIFICATION


@pytest.mark.parametrize("vector", VECTORS, ids=[v["comment"] for v in VECTORS])
def test_rows_of_vectors(vector: Vector) -> None:
    """Rows that follow the rules are read, and written back; others are malformed, and say why."""
    rows = bytes.fromhex(vector["rows"])
    if "stored" in vector:
        assert ROW_BYTES == len(rows)
        frame = FrameTable(rows)[0]
        assert rows == frame.pack()
        assert len(bytes.fromhex(vector["stored"])) == frame.stored_bytes
        return
    with pytest.raises(ValueError, match=re.escape(vector["reason"])):
        FrameTable(rows)


@given(
    st.sampled_from(WIDTHS),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_a_row_is_refused_or_bounds_everything(
    width: int, planes: int, size: int, stored: int
) -> None:
    """Whatever four numbers a row has, what is read of it promises no more than 4 MiB."""
    row = _row(width, planes, size, stored)
    try:
        frame = FrameTable(row)[0]
    except ValueError:
        return
    assert row == frame.pack()
    assert 1 <= frame.stored_bytes <= frame.size_bytes <= MAX_FRAME_BYTES
    assert 0 <= frame.raw_bytes <= frame.stored_bytes
    assert frame.raw_bytes + frame.packed_bytes == frame.size_bytes


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.data())
def test_every_byte_is_in_one_frame(sizes: list[int], data: st.DataObject) -> None:
    """Frames begin where those before end, in the plaintext and where they are stored."""
    table = FrameTable(_as_it_is(*sizes))
    assert (len(sizes), sum(sizes), sum(sizes)) == (
        len(table),
        table.size_bytes,
        table.stored_bytes,
    )
    offset = data.draw(st.integers(0, sum(sizes) - 1))
    index = table.at(offset)
    assert table.begins[index] <= offset < table.begins[index + 1]
    assert table.place(index) == sum(sizes[:index])
    assert (offset in {sum(sizes[:n]) for n in range(len(sizes))}) == table.is_edge(offset)
    with pytest.raises(IndexError):
        table[len(sizes)]


# ── contents ────────────────────────────────────────────────────────────────────────────────────


def test_contents_with_frames_are_read_as_written() -> None:
    """Rows travel as base64, and come back."""
    contents = _contents(_as_it_is(10, 5, 7), ("a", 0, 15), ("b", 22, 0), ("c", 15, 7))
    padded = encode_padded(contents, 1 << 12)
    assert contents == decode_padded(padded)
    assert 22 == contents.end
    assert b'"frames":"AAAAAAAK' in encode(contents)


@pytest.mark.parametrize(
    ("sizes", "files", "reason"),
    [
        ((10,), [("a", 1, 9)], "belong to no file"),
        ((10, 10), [("a", 0, 9), ("b", 10, 10)], "bytes of two files"),
        ((10, 10), [("a", 0, 10), ("b", 11, 9)], "belong to no file"),
        ((20,), [("a", 0, 10), ("b", 10, 10)], "bytes of two files"),
        ((10,), [("a", 0, 10), ("b", 10, 10)], "end within a file"),
        ((10, 9), [("a", 0, 10), ("b", 10, 10)], "end within a file"),
        ((10, 11), [("a", 0, 10), ("b", 10, 10)], "end within a file"),
        ((10, 10, 1), [("a", 0, 10), ("b", 10, 10)], "go on after the last file"),
        ((10,), [("a", 0, 2**53 - 1)], "end within a file"),
        ((1,), [("a", 0, 0)], "go on after the last file"),
    ],
    ids=[
        "a hole before the first file",
        "a frame across two files and a hole",
        "a hole between two files",
        "one frame of two files",
        "a file without a frame",
        "frames that end in a file",
        "frames that end behind a file",
        "a frame of no file",
        "a file of 2**53 - 1 bytes in a frame of 10",
        "a frame of an empty file",
    ],
)
def test_frames_that_are_not_the_files_are_refused(
    sizes: tuple[int, ...], files: list[tuple[str, int, int]], reason: str
) -> None:
    """Frames with a gap, an overlap or another sum than their files make the contents malformed."""
    with pytest.raises(ValueError, match=reason):
        _contents(_as_it_is(*sizes), *files)


@pytest.mark.parametrize(
    "frames", ['""', '"AAAA"', '"AAAAAAAK"', "0", "[]", "{}", '"!"', "true"], ids=repr
)
def test_frames_that_are_no_rows_are_malformed(frames: str) -> None:
    """Whatever else stands for frames is malformed, as is leaving them out."""
    body = encode(_contents(None, ("a", 0, 10)))
    for written in (b'"frames":' + frames.encode() + b",", b""):
        other = body.replace(b'"frames":null,', written)
        with pytest.raises(Malformed):
            decode_padded(len(other).to_bytes(8, "big") + other)


def test_a_size_past_any_memory_is_refused_by_name() -> None:
    """A file of 2**63 bytes, and a frame of more than 4 MiB, are malformed before anything else."""
    body = encode(_contents(_as_it_is(10), ("a", 0, 10)))
    huge = body.replace(b'"sizeBytes":10', b'"sizeBytes":9223372036854775808')
    with pytest.raises(Malformed, match="sizeBytes"):
        decode_padded(len(huge).to_bytes(8, "big") + huge)
    with pytest.raises(ValueError, match="4294967295 bytes"):
        _contents(_row(1, 1, 2**32 - 1, 100), ("a", 0, 2**32 - 1))


def test_more_frames_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row above the limit is refused before any is read; 10**9 would not fit contents at all."""
    assert MAX_CONTENTS_BYTES < 10**9 * ROW_BYTES
    monkeypatch.setattr(formats.frames, "MAX_FRAMES", 3)
    assert 3 == len(FrameTable(_as_it_is(1, 1, 1)))
    with pytest.raises(ValueError, match="not 1 to"):
        FrameTable(bytes(4 * ROW_BYTES))


def test_a_delta_has_no_frames() -> None:
    """Contents that take from a base and have frames too are malformed."""
    taken = b'{"files":["a"],"manifest":"' + b"00" * 32
    taken += b'","taken":[{"file":0,"fileOffset":0,"offset":0,"sizeBytes":1}]}'
    body = encode(_contents(_as_it_is(10), ("a", 0, 10)))
    body = body.replace(b'"base":null', b'"base":' + taken)
    body = body.replace(b'"partDigests":null', b'"partDigests":"' + b"A" * 43 + b'="')
    with pytest.raises(Malformed, match="a delta has none"):
        decode_padded(len(body).to_bytes(8, "big") + body)


def test_frames_fit_their_parts() -> None:
    """A frame larger than a part, and frames stored past the last part, are refused by name."""
    payload = SealedPayload(parts_root="00" * 32, part_count=2, files=())
    core = core_of(payload, cek=bytes(32), payload_id=bytes(32))
    PartMap.of(_contents(_as_it_is(PART, PART), ("a", 0, 2 * PART), parts=2), core)
    packed = _row(1, 1, PART, 20) * 3
    PartMap.of(_contents(packed, ("a", 0, 3 * PART), parts=2), core)
    for check, rows, size in (
        ("contents.frames", _as_it_is(PART + 1), PART + 1),
        ("contents.extent", _as_it_is(PART, PART, 1), 2 * PART + 1),
    ):
        with pytest.raises(Refused) as refused:
            PartMap.of(_contents(rows, ("a", 0, size), parts=2), core)
        assert check == refused.value.check


# ── Zstandard ───────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=2000), st.integers(1, 12), st.integers(1, 200))
def test_what_the_library_writes_is_taken(data: bytes, level: int, times: int) -> None:
    """Every frame of the library's, of any level, is taken as what it is, and as nothing else."""
    data *= times
    frame = zstandard.ZstdCompressor(level=level).compress(data)
    check_zstandard(frame, size_bytes=len(data))
    for other in (len(data) + 1, len(data) - 1, 2 * len(data) + 1):
        with pytest.raises(Malformed):
            check_zstandard(frame, size_bytes=other)


@given(st.binary(min_size=1, max_size=400), st.data())
def test_a_cut_frame_is_malformed(data: bytes, pick: st.DataObject) -> None:
    """A frame without its last bytes, or with bytes behind them, is malformed."""
    frame = zstandard.ZstdCompressor(level=1).compress(data)
    cut = pick.draw(st.integers(0, len(frame) - 1))
    for other in (frame[:cut], frame + pick.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(Malformed):
            check_zstandard(other, size_bytes=len(data))


@given(st.binary(max_size=120), st.integers(0, 10_000))
def test_junk_is_no_zstandard_frame(data: bytes, size: int) -> None:
    """Random bytes are malformed and nothing else, with and without a magic number before them."""
    for junk in (data, bytes.fromhex("28b52ffd") + data):
        try:
            check_zstandard(junk, size_bytes=size)
        except Malformed:
            continue
        assert junk.startswith(bytes.fromhex("28b52ffd"))
        assert size == zstandard.frame_content_size(junk)


def test_a_row_takes_42_bytes() -> None:
    """The specification's count of bytes is the program's."""
    assert 42 == ROW_BYTES == len(_row(0, 0, 1, 1))


def test_a_frame_of_nothing_but_block_headers_is_not_walked_to_its_end() -> None:
    """A million empty blocks take a second to look at, in each of a publisher's frames."""
    size = 1024
    header = bytes.fromhex("28b52ffda0") + size.to_bytes(4, "little")
    repeated = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + bytes(1)
    check_zstandard(header + bytes(3) * 8191 + repeated, size_bytes=size)
    with pytest.raises(Malformed, match="more than 8192 blocks"):
        check_zstandard(header + bytes(3) * 8192 + repeated, size_bytes=size)
