"""Reading a bundle from the middle."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.parts import ROW_BYTES, TAG_BYTES, open_part, part_key
from custody.errors import Incomplete, Refused, Unavailable
from custody.formats.contents import Contents, File
from custody.formats.parts import PARTS, PAYLOAD, PartTable
from custody.ops.file_view import FileView
from custody.ops.part_source import LocalParts
from custody.ops.reader import Reader
from tests.unit.ops.bundles import PART, Sealed, noise, seal_model, write_model

FILES = {
    "config.json": noise(300),
    "empty": b"",
    "model/a.safetensors": noise(6 * PART + 17, 2),
    "model/b.safetensors": noise(PART, 3),
    "model/c.safetensors": noise(2 * PART - 1, 4),
    "tokenizer.json": noise(PART - 200, 5),
    "vocab.txt": noise(1000, 6),
}
LARGE = "model/a.safetensors"
SIZES = st.one_of(
    st.sampled_from([0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1]),
    st.integers(0, 300),
    st.integers(0, 4 * PART),
)


class Counted(LocalParts):
    """Parts on disk that remember which of them were read."""

    def __init__(self, sealed: Sealed) -> None:
        super().__init__(sealed.bundle, sealed.core)
        self.parts: list[int] = []

    def read(self, index: int, buffer: memoryview) -> None:
        self.parts.append(index)
        super().read(index, buffer)


def reading(sealed: Sealed, source: LocalParts | None = None, *, workers: int = 3) -> Reader:
    """Open a bundle for reading."""
    source = source or LocalParts(sealed.bundle, sealed.core)
    return Reader(
        source, core=sealed.core, contents=sealed.contents, cek=sealed.cek, workers=workers
    )


def part_of(sealed: Sealed, name: str, offset: int = 0) -> int:
    """Say which part a byte of a file lies in."""
    file = next(f for f in sealed.contents.files if f.name == name)
    return (file.offset + offset) // sealed.core.part_size_bytes


def damage(path: Path, offset: int) -> None:
    """Flip one bit."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """A bundle of a few files, large, small and empty."""
    return seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")


@pytest.fixture
def reader(sealed: Sealed) -> Iterator[Reader]:
    """A reader of that bundle."""
    with reading(sealed) as opened:
        yield opened


# ── what is read ───────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(SIZES, min_size=1, max_size=6),
    ranges=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5 * PART), st.integers(0, 5 * PART)),
        max_size=12,
    ),
    digest=st.sampled_from(["blake3", "sha256"]),
)
def test_every_range_is_the_slice(
    sizes: list[int], ranges: list[tuple[int, int, int]], digest: str
) -> None:
    """Any range of any file of any model is what slicing the plain file gives, every way."""
    files = {f"f{n}": noise(size, n) for n, size in enumerate(sizes)}
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", files)
        sealed = seal_model(model, Path(folder) / "bundle", part_digest=digest)  # type: ignore[arg-type]
        with reading(sealed) as reader:
            for which, offset, size in ranges:
                name = f"f{which % len(files)}"
                plain = files[name]
                wanted = plain[offset : offset + size]
                assert wanted == reader.read(name, offset, size)
                buffer = bytearray(b"x" * size)
                assert len(wanted) == reader.read_into(name, offset, buffer)
                assert wanted + b"x" * (size - len(wanted)) == buffer
                with reader.open(name) as file:
                    file.seek(offset)
                    assert wanted == file.read(size)


def test_thousands_of_files(tmp_path: Path) -> None:
    """Of three thousand files each is read whole, and files that share parts share the work."""
    files = {f"d{n % 7}/f{n}": noise(n % 401, n) for n in range(3000)}
    sealed = seal_model(write_model(tmp_path / "model", files), tmp_path / "bundle")
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        # In the order they lie in, a small cache is enough to open every part once.
        order = sorted(reader.files(), key=lambda file: file.offset)
        assert files == {file.name: reader.read(file.name) for file in order}
    assert len(source.parts) == len(set(source.parts))


def test_only_the_parts_that_are_touched(sealed: Sealed) -> None:
    """A range costs the parts it touches and the table of rows, and not a byte more."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        reader.read(LARGE, PART + 5, PART)
        first = part_of(sealed, LARGE)
        assert [first + 1, first + 2] == sorted(source.parts)
        assert 2 * PART + sealed.core.part_count * ROW_BYTES == source.bytes_read


def test_a_second_look_is_free(sealed: Sealed) -> None:
    """Small reads in one part read it once; whole parts do not push out what is kept."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        for offset in range(0, PART, 4096):
            reader.read(LARGE, offset, 100)
        reader.read(LARGE, PART, 4 * PART)
        reader.read(LARGE, 10, 10)
    first = part_of(sealed, LARGE)
    assert [first, *range(first + 1, first + 5)] == sorted(source.parts)


def test_no_more_than_a_few_parts_are_kept(sealed: Sealed) -> None:
    """However many parts are read in pieces, only four of them are kept."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        for part in range(6):
            reader.read(LARGE, part * PART, 1)
        del source.parts[:]
        for part in (5, 4, 3, 2):
            reader.read(LARGE, part * PART + 7, 1)
        assert [] == source.parts
        reader.read(LARGE, 0, 1)
        assert [part_of(sealed, LARGE)] == source.parts


def test_whole_parts_go_straight_to_the_caller(
    sealed: Sealed, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is wanted whole is decrypted in the caller's memory, past the kept parts."""
    monkeypatch.setattr(reader._cache, "part", None)
    buffer = bytearray(3 * PART)
    assert 3 * PART == reader.read_into(LARGE, PART, buffer)
    assert FILES[LARGE][PART : 4 * PART] == buffer


def test_many_ranges_at_once(sealed: Sealed) -> None:
    """All files are read in one go, with every part opened once."""
    buffers = {name: bytearray(len(data)) for name, data in FILES.items()}
    source = Counted(sealed)
    seen: list[tuple[str, int, int]] = []
    with reading(sealed, source) as reader:
        reader.read_many(
            [(name, 0, memoryview(buffer)) for name, buffer in buffers.items()],
            progress=lambda *said: seen.append(said),
        )
    assert FILES == buffers
    assert len(source.parts) == len(set(source.parts))
    assert ("read", len(source.parts) * PART, len(source.parts) * PART) == seen[-1]


def test_ranges_that_are_none(reader: Reader) -> None:
    """Negative numbers and ranges past the end are mistakes, an unknown name is refused."""
    with pytest.raises(ValueError, match="begins"):
        reader.read(LARGE, -1)
    with pytest.raises(ValueError, match="begins"):
        reader.read(LARGE, 0, -1)
    with pytest.raises(ValueError, match="begins"):
        reader.read_into(LARGE, -1, bytearray(1))
    with pytest.raises(ValueError, match="outside"):
        reader.read_many([("vocab.txt", 999, memoryview(bytearray(2)))])
    with pytest.raises(Refused) as caught:
        reader.read("no such file")
    assert ("file.name", "no such file") == (caught.value.check, caught.value.where)


def test_a_file_is_a_seekable_stream(reader: Reader) -> None:
    """What is opened behaves as a file on disk does."""
    plain = FILES["vocab.txt"]
    file = reader.open("vocab.txt")
    assert (True, True, False) == (file.readable(), file.seekable(), file.writable())
    assert plain[:10] == file.read(10)
    assert 10 == file.tell()
    assert len(plain) - 5 == file.seek(-5, os.SEEK_END)
    assert plain[-5:] == file.read()
    assert b"" == file.read(1)
    file.seek(0)
    assert io.BytesIO(plain).readlines() == file.readlines()
    file.seek(len(plain) + 100)
    assert b"" == file.read()
    with pytest.raises(ValueError, match="negative"):
        FileView(reader, reader.file("vocab.txt")).seek(-1)
    with pytest.raises(ValueError, match="whence"):
        FileView(reader, reader.file("vocab.txt")).seek(0, 7)
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.raw.tell()


def test_many_threads(sealed: Sealed) -> None:
    """Sixteen threads that read what they like get what they asked for."""
    with reading(sealed) as reader, ThreadPoolExecutor(16) as pool:

        def look(seed: int) -> bool:
            name = sorted(FILES)[seed % len(FILES)]
            offset = seed * 7919 % (len(FILES[name]) + 1)
            size = seed * 104729 % (3 * PART)
            return FILES[name][offset : offset + size] == reader.read(name, offset, size)

        assert all(pool.map(look, range(400)))


# ── what is refused ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [10, PART], ids=["in pieces", "whole"])
def test_a_bad_part_is_refused_by_name(sealed: Sealed, size: int) -> None:
    """A changed part refuses reads that touch it, naming file and part, and hands out nothing."""
    bad = part_of(sealed, LARGE, PART)
    damage(sealed.bundle / PAYLOAD, bad * PART + 99)
    with reading(sealed) as reader:
        buffer = bytearray(b"x" * size)
        with pytest.raises(Refused) as caught:
            reader.read_into(LARGE, PART, buffer)
        assert "part.digest" == caught.value.check
        assert str(sealed.bundle / PAYLOAD) == caught.value.where
        assert repr(LARGE) in caught.value.reason
        assert f"part {bad}" in caught.value.reason
        assert buffer in (bytes(size), b"x" * size)
        assert FILES[LARGE][:PART] == reader.read(LARGE, 0, PART)
        assert FILES[LARGE][2 * PART :] == reader.read(LARGE, 2 * PART)
        assert FILES["vocab.txt"] == reader.read("vocab.txt")


@pytest.mark.parametrize("at", [0, 24, 40], ids=["salt", "tag", "digest"])
def test_a_bad_row_opens_no_reader(sealed: Sealed, at: int) -> None:
    """Rows that are not the signed ones are refused before any part is read."""
    damage(sealed.bundle / PARTS, part_of(sealed, LARGE) * ROW_BYTES + at)
    with pytest.raises(Refused) as caught:
        LocalParts(sealed.bundle, sealed.core)
    assert ("parts.root", str(sealed.bundle / PARTS)) == (caught.value.check, caught.value.where)


def test_a_part_moved_with_its_row(sealed: Sealed) -> None:
    """A part that stands in another's place, row and all, is refused: its row has its index.

    Even under a root that was made for it: the publisher himself can move none.
    """
    one, two = part_of(sealed, LARGE), part_of(sealed, LARGE, PART)
    for name, size in ((PAYLOAD, PART), (PARTS, ROW_BYTES)):
        data = bytearray((sealed.bundle / name).read_bytes())
        first, second = slice(one * size, (one + 1) * size), slice(two * size, (two + 1) * size)
        data[first], data[second] = data[second], data[first]
        (sealed.bundle / name).write_bytes(data)
    with pytest.raises(Refused) as refused:
        LocalParts(sealed.bundle, sealed.core)
    assert "parts.root" == refused.value.check
    root = PartTable((sealed.bundle / PARTS).read_bytes()).root()
    moved = replace(sealed, core=msgspec.structs.replace(sealed.core, parts_root=root))
    with reading(moved) as reader, pytest.raises(Refused) as caught:
        reader.read(LARGE, 0, 10)
    assert "part.digest" == caught.value.check


def test_a_host_with_the_key_makes_no_other_part(sealed: Sealed, tmp_path: Path) -> None:
    """Whoever has the key, as another host has, can make a part with the same tag; no reader
    takes it, and no opening.
    """
    index = part_of(sealed, LARGE)
    path = sealed.bundle / PAYLOAD
    payload = bytearray(path.read_bytes())
    row = PartTable((sealed.bundle / PARTS).read_bytes()).row(index)
    payload_id = bytes.fromhex(sealed.core.payload_id)
    key, _ = part_key(sealed.cek, payload_id, row.salt, index)
    part = memoryview(payload)[index * PART : (index + 1) * PART]
    change_unseen(part, key)
    forged = bytearray(bytes(part) + bytes(TAG_BYTES))
    open_part(sealed.cek, payload_id, index, forged, salt=row.salt, tag=row.tag)
    assert FILES[LARGE][:PART] != forged[:PART]
    part.release()
    path.write_bytes(payload)
    with reading(sealed) as reader:
        for size in (10, PART):
            buffer = bytearray(size)
            with pytest.raises(Refused) as caught:
                reader.read_into(LARGE, 0, buffer)
            assert "part.digest" == caught.value.check
            assert not any(buffer)
    with pytest.raises(Refused) as refused:
        sealed.open(tmp_path / "opened")
    assert ("file.digest", LARGE) == (refused.value.check, refused.value.where)


def change_unseen(part: memoryview, key: bytes) -> None:
    """Change two blocks of a ciphertext so that GCM's sum over all of them stays what it is.

    A block counts H times as much as the one behind it (NIST SP 800-38D, 6.4).
    """
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    h = int.from_bytes(encryptor.update(bytes(16)), "big")
    one = int.from_bytes(b"\x80" + bytes(15), "big")
    for at, change in ((0, one), (16, h)):
        block = int.from_bytes(part[at : at + 16], "big") ^ change
        part[at : at + 16] = block.to_bytes(16, "big")


def test_what_does_not_fit_is_refused_at_once(sealed: Sealed) -> None:
    """A wrong key, contents of another payload, or files of another size open no reader."""

    def check(*, cek: bytes = sealed.cek, contents: Contents = sealed.contents) -> str:
        source = LocalParts(sealed.bundle, sealed.core)
        with pytest.raises(Refused) as caught:
            Reader(source, core=sealed.core, contents=contents, cek=cek)
        source.close()
        return caught.value.check

    far = msgspec.structs.replace(sealed.contents.files[0], offset=1 << 40)
    assert "cek.commitment" == check(cek=bytes(32))
    assert "contents.extent" == check(
        contents=msgspec.structs.replace(sealed.contents, files=(far, *sealed.contents.files[1:]))
    )


@pytest.mark.parametrize("name", [PAYLOAD, PARTS])
def test_a_bundle_that_is_not_all_there(sealed: Sealed, name: str) -> None:
    """A file that is cut, no file, or missing is told before anything is read."""
    path = sealed.bundle / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(Refused) as caught:
        LocalParts(sealed.bundle, sealed.core)
    assert (f"{name}.size", str(path)) == (caught.value.check, caught.value.where)
    path.unlink()
    with pytest.raises(Incomplete) as missing:
        LocalParts(sealed.bundle, sealed.core)
    assert (name,) == missing.value.missing
    os.mkfifo(path)
    with pytest.raises(Refused) as special:
        LocalParts(sealed.bundle, sealed.core)
    assert f"{name}.size" == special.value.check


def test_a_payload_that_shrinks_meanwhile(sealed: Sealed, reader: Reader) -> None:
    """A payload that is cut after it was opened is refused by its size, not read as zeros."""
    os.truncate(sealed.bundle / PAYLOAD, part_of(sealed, LARGE) * PART + 1)
    with pytest.raises(Refused) as caught:
        reader.read(LARGE)
    assert "payload.size" == caught.value.check


def test_a_disk_that_fails(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is that, whichever thread meets it, and the reader goes on after it."""
    with reading(sealed) as reader:

        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(os, "preadv", fail)
            with pytest.raises(Unavailable):
                reader.read(LARGE)
        assert FILES[LARGE] == reader.read(LARGE)


def test_short_reads_are_continued(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that gives a little at a time gives the same bytes."""
    whole = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, offset: whole(fd, [views[0][:4099]], offset)
    )
    with reading(sealed) as reader:
        assert FILES[LARGE] == reader.read(LARGE)


# ── who vouches for it ─────────────────────────────────────────────────────────────────────────


def test_a_range_is_the_publishers_word_until_a_full_pass(reader: Reader) -> None:
    """The publisher vouches for what is read, until every file had the SHA-256 that was signed."""
    seen: list[tuple[str, int, int]] = []
    reader.read(LARGE)
    before: str = reader.vouched_by
    reader.full_pass(lambda *said: seen.append(said))
    assert ("publisher", "full pass") == (before, reader.vouched_by)
    total = sum(map(len, FILES.values()))
    assert ("verify", total, total) == seen[-1]


@pytest.mark.parametrize("name", ["empty", "vocab.txt", LARGE])
def test_a_full_pass_finds_what_ranges_cannot(sealed: Sealed, name: str) -> None:
    """Parts that are as signed, in a file that is not, are found by the full pass, by name."""

    def changed(file: File) -> File:
        wrong = hashlib.sha256(b"another").hexdigest()
        return msgspec.structs.replace(file, sha256=wrong) if file.name == name else file

    files = tuple(map(changed, sealed.contents.files))
    contents = msgspec.structs.replace(sealed.contents, files=files)
    source = LocalParts(sealed.bundle, sealed.core)
    with Reader(source, core=sealed.core, contents=contents, cek=sealed.cek) as reader:
        assert FILES[name] == reader.read(name)
        with pytest.raises(Refused) as caught:
            reader.full_pass()
        assert ("file.digest", name) == (caught.value.check, caught.value.where)
        assert "publisher" == reader.vouched_by


# ── what is left behind ────────────────────────────────────────────────────────────────────────


def test_closing_zeroes(sealed: Sealed) -> None:
    """After closing, key and kept parts are zeros, and nothing more is read."""
    reader = reading(sealed)
    reader.read(LARGE, 0, 10)
    with reader._cache.part(part_of(sealed, LARGE)) as part:
        kept = part.obj
    key = reader._key.view.obj
    # Views of the same pages, so that they can still be looked at.
    held = [memoryview(kept), memoryview(key)]
    assert all(any(view) for view in held)
    reader.close()
    reader.close()
    assert not any(any(view) for view in held)
    with pytest.raises(ValueError, match="closed"):
        reader.read(LARGE)


def test_closing_waits_for_those_who_read(sealed: Sealed) -> None:
    """A reader that is closed while another thread reads lets that one finish."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(LocalParts):
        def read(self, index: int, buffer: memoryview) -> None:
            begun.set()
            assert go_on.wait(10)
            super().read(index, buffer)

    reader = reading(sealed, Slow(sealed.bundle, sealed.core))
    with ThreadPoolExecutor(2) as pool:
        read = pool.submit(reader.read, LARGE)
        assert begun.wait(10)
        closing = pool.submit(reader.close)
        assert not closing.done()
        go_on.set()
        assert FILES[LARGE] == read.result(10)
        closing.result(10)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_no_key(sealed: Sealed, reader: Reader) -> None:
    """In a forked child key and parts are zeros, reading is refused, and closing does nothing."""
    reader.read(LARGE, 0, 10)
    child = os.fork()
    if not child:
        code = 1
        try:
            with reader._cache.part(part_of(sealed, LARGE)) as part:
                wiped = not any(part) and not any(reader._key.view)
            try:
                reader.read(LARGE, 0, 10)
            except Unavailable:
                reader.close()
                code = 0 if wiped else 2
        finally:
            os._exit(code)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert FILES[LARGE][:10] == reader.read(LARGE, 0, 10)


def test_no_plaintext_on_disk(sealed: Sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a whole bundle opens nothing for writing."""
    opened: list[int] = []
    plain = os.open

    def watch(path: str, flags: int, *args: int, **named: int) -> int:
        opened.append(flags)
        return plain(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", watch)
    with reading(sealed) as reader:
        for name, data in FILES.items():
            assert data == reader.read(name)
    assert len(opened) >= 2
    assert not any(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) for flags in opened)
