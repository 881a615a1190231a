"""Sealing models compressed, and opening them whole and from the middle."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.parts import padded_parts
from custody.errors import Refused, Unavailable
from custody.formats.contents import Contents
from custody.formats.frames import FrameTable
from custody.formats.parts import PARTS, PAYLOAD
from custody.ops import frame_opener
from custody.ops.frame_plan import plan_frames
from custody.ops.frame_seal import seal_frames, seal_stream
from custody.ops.landing import new_directory
from custody.ops.model_files import Segment, scan
from custody.ops.model_source import ModelSource
from custody.ops.payload_open import check_payload, open_into, open_payload
from custody.ops.payload_seal import PayloadKey
from custody.ops.tensors import load_all
from tests.unit.crypto.vectors import Vector, read
from tests.unit.ops.bundles import PART, Sealed, names, noise, read_model, write_model
from tests.unit.ops.compressed import (
    bf16,
    forge,
    frame_of,
    model_files,
    safetensors,
    seal_compressed,
)
from tests.unit.ops.test_frame_codec import floats
from tests.unit.ops.test_reader import Counted, damage, reading

FILES = model_files()
WEIGHTS = "model/a.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of files of every kind."""
    return write_model(tmp_path_factory.mktemp("compressed") / "model", FILES)


@pytest.fixture
def sealed(model: Path, tmp_path: Path) -> Sealed:
    """It, sealed compressed."""
    return seal_compressed(model, tmp_path / "bundle")


SMALL = {
    "a.safetensors": safetensors({"w": ("BF16", bf16(9000)), "v": ("F32", floats(70_000))}),
    "b.txt": b"a line of text\n" * 300,
    "c.bin": noise(500),
}


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A small model, sealed compressed once."""
    room = tmp_path_factory.mktemp("fixed")
    return seal_compressed(write_model(room / "model", SMALL), room / "bundle")


def table_of(sealed: Sealed) -> FrameTable:
    """Read the frames of a bundle."""
    table = sealed.contents.frame_table()
    assert table is not None
    return table


def file_at(sealed: Sealed, frame: int) -> str:
    """Say which file a frame is of."""
    begin = table_of(sealed).begins[frame]
    return next(f.name for f in sealed.contents.files if 0 <= begin - f.offset < f.size_bytes)


def _kinds() -> st.SearchStrategy[bytes]:
    size = st.one_of(
        st.sampled_from([0, 1, PART - 1, PART, PART + 1, 2 * PART]), st.integers(0, 3 * PART)
    )
    return st.one_of(
        st.builds(noise, size),
        st.builds(bytes, size),
        st.builds(lambda n: (b"a line of text %d\n" * (n // 15))[:n], size),
        st.builds(bf16, size),
        st.builds(lambda n: floats(n // 4), size),
        st.builds(
            lambda n, m: safetensors(
                {"a": ("BF16", bf16(n & ~1)), "b": ("F32", floats(m // 4)), "c": ("U8", noise(n))}
            ),
            size,
            size,
        ),
    )


@settings(deadline=None, max_examples=40)
@given(
    kinds=st.lists(_kinds(), min_size=1, max_size=5),
    ranges=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4 * PART), st.integers(0, 4 * PART)),
        max_size=8,
    ),
    digest=st.sampled_from(["blake3", "sha256"]),
    workers=st.integers(1, 4),
)
def test_open_undoes_seal(
    kinds: list[bytes], ranges: list[tuple[int, int, int]], digest: str, workers: int
) -> None:
    """Any model comes back as it was, whole and by any range, however its files compress."""
    files = {f"f{n}.safetensors": data for n, data in enumerate(kinds)}
    # Enough of it to make compressing pay.
    files["zeros"] = bytes(max(100, sum(map(len, kinds)) // 8))
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        sealed = seal_compressed(
            write_model(room / "model", files),
            room / "bundle",
            part_digest="sha256" if digest == "sha256" else "blake3",
            workers=workers,
        )
        check_payload(sealed.bundle, sealed.core, workers=workers)
        sealed.open(room / "opened", workers=workers)
        assert files == read_model(room / "opened")
        assert {"bundle", "model", "opened"} == names(room)
        with reading(sealed, workers=workers) as reader:
            for which, offset, size in ranges:
                file = sorted(files)[which % len(files)]
                assert files[file][offset : offset + size] == reader.read(file, offset, size)
            reader.full_pass()
            loaded = {each.name: each.data.tobytes() for each in load_all(reader)}
            assert files == loaded


def test_what_shrinks_and_what_does_not(sealed: Sealed) -> None:
    """Floats, text and zeros take less, noise takes what it took; padding comes after that."""
    table = table_of(sealed)
    stored = {file.name: 0 for file in sealed.contents.files}
    widths: dict[str, set[int]] = {name: set() for name in stored}
    for index in range(len(table)):
        name = file_at(sealed, index)
        stored[name] += table[index].stored_bytes
        widths[name].add(table[index].width)
    assert len(FILES["noise.bin"]) == stored["noise.bin"]
    assert stored["zeros.bin"] < 1000
    assert stored["vocab.txt"] < len(FILES["vocab.txt"]) // 2
    assert stored[WEIGHTS] < 0.75 * len(FILES[WEIGHTS])
    assert {0, 2, 4, 8} == widths[WEIGHTS]
    assert sum(stored.values()) == table.stored_bytes
    assert padded_parts(table.stored_bytes, PART) == sealed.core.part_count
    assert sealed.core.part_count * PART == (sealed.bundle / PAYLOAD).stat().st_size
    assert sealed.core.part_count * 72 == (sealed.bundle / PARTS).stat().st_size


def test_sealing_alike_gives_the_same_frames(model: Path, tmp_path: Path) -> None:
    """However many threads work, frames and their order are the same."""
    seals = [seal_compressed(model, tmp_path / str(n), workers=n) for n in (1, 2, 5)]
    assert 1 == len({sealed.contents.frames for sealed in seals})


def test_noise_is_not_compressed(tmp_path: Path) -> None:
    """A model that does not get smaller has no plan, and so is sealed as any other."""
    model = write_model(tmp_path / "model", {"a": noise(10 * PART), "b": b"", "c": b" " * 999})
    assert plan_frames(model, scan(model).files, part_size_bytes=PART) is None
    nothing = write_model(tmp_path / "nothing", {"a": b""})
    assert plan_frames(nothing, scan(nothing).files, part_size_bytes=PART) is None


def test_a_file_that_only_ends_like_one(tmp_path: Path) -> None:
    """What is called safetensors and is none is tried like any other file."""
    files = {"a.safetensors": b"\xff" * 9 + bf16(PART), "b.safetensors": b"", "c.safetensors": b"{"}
    sealed = seal_compressed(write_model(tmp_path / "model", files), tmp_path / "bundle")
    assert 2 in {table_of(sealed)[n].width for n in range(len(table_of(sealed)))}
    sealed.open(tmp_path / "opened")
    assert files == read_model(tmp_path / "opened")


# ── from the middle ─────────────────────────────────────────────────────────────────────────────


def test_a_byte_costs_two_parts_at_most(sealed: Sealed) -> None:
    """A byte anywhere costs its frame, which lies in one part or two."""
    table, most = table_of(sealed), 0
    for file in sealed.contents.files:
        for offset in range(0, file.size_bytes, PART // 2 + 1):
            source = Counted(sealed)
            with reading(sealed, source) as reader:
                assert FILES[file.name][offset : offset + 1] == reader.read(file.name, offset, 1)
            frame = table.at(file.offset + offset)
            first = table.place(frame) // PART
            last = (table.place(frame) + table[frame].stored_bytes - 1) // PART
            assert list(range(first, last + 1)) == source.parts
            most = max(most, len(source.parts))
    assert 2 == most


def test_all_of_a_file_opens_each_part_once(sealed: Sealed) -> None:
    """Frames that share a part share the work of opening it."""
    source = Counted(sealed)
    with reading(sealed, source, workers=1) as reader:
        assert FILES[WEIGHTS] == reader.read(WEIGHTS)
    assert len(source.parts) == len(set(source.parts))


def test_tensors(sealed: Sealed) -> None:
    """Tensors of a compressed bundle are those of the plain file."""
    with reading(sealed) as reader:
        file = reader.tensor_file(WEIGHTS)
        assert ("wide", "small", "narrow", "places", "bytes") == file.names()
        for name in file.names():
            entry = file.entry(name)
            plain = FILES[WEIGHTS][entry.offset : entry.offset + entry.size_bytes]
            assert plain == reader.tensor(WEIGHTS, name).tobytes()


# ── bad bundles ─────────────────────────────────────────────────────────────────────────────────

_BAD = [
    vector
    for vector in read("frames/frames.txt", "rows", "stored", "plaintext", "reason")
    if "stored" in vector and "reason" in vector
]


def _refusals(sealed: Sealed, target: Path, name: str) -> Iterator[Refused]:
    """Open it whole and from the middle; both must be refused, and nothing be left."""
    with pytest.raises(Refused) as whole:
        sealed.open(target)
    assert target.name not in names(target.parent)
    yield whole.value
    with reading(sealed) as reader:
        buffer = bytearray(b"\xaa" * reader.file(name).size_bytes)
        with pytest.raises(Refused) as ranged:
            reader.read_into(name, 0, buffer)
        # What other frames have, zeros, or what was there before.
        plain = FILES.get(name, bytes(len(buffer)))
        assert all(found in {0, 0xAA, byte} for found, byte in zip(buffer, plain, strict=True))
    yield ranged.value


@pytest.mark.parametrize("vector", _BAD, ids=[v["comment"] for v in _BAD])
def test_a_frame_stored_as_something_else_is_refused(vector: Vector, tmp_path: Path) -> None:
    """A frame that would expand past its size, is cut off, or is stored another way: refused."""
    stored = bytes.fromhex(vector["stored"])
    frame = FrameTable(bytes.fromhex(vector["rows"]))[0]
    after = bf16(1000)
    files = {"a": bytes(frame.size_bytes), "b": after}
    sealed = forge(tmp_path / "bundle", [(frame, stored), (frame_of(after, after), after)], files)
    for refused in _refusals(sealed, tmp_path / "opened", "a"):
        assert "frame.stored" == refused.check
        assert "'a'" in str(refused)
    with reading(sealed) as reader:
        assert after == reader.read("b")


def test_a_frame_stored_another_way_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    """Rows that say another width or other planes than was stored, under a true signature."""
    frames = bytearray(sealed.contents.frames or b"")
    changed = 0
    for at in range(0, len(frames), 42):
        # Another plane is compressed; grouped by four, not two; not grouped at all.
        for width, planes in ((2, 0b01), (4, 0b1000), (1, 1)):
            other = bytearray(frames)
            other[at : at + 2] = bytes([width, planes])
            if frames[at] != 2 or other == frames:
                continue
            try:
                contents = _with(sealed.contents, frames=bytes(other))
            except ValueError:
                continue
            changed += 1
            lying = Sealed(sealed.bundle, sealed.core, contents, sealed.cek)
            for refused in _refusals(lying, tmp_path / "opened", file_at(sealed, at // 42)):
                assert refused.check in {"frame.stored", "frame.plaintext", "file.digest"}
    assert changed


def test_another_plaintext_is_refused(tmp_path: Path) -> None:
    """A frame that expands to other bytes than the signed digests are of is refused by name."""
    plain, other = bf16(5000, 1), bf16(5000, 2)
    sealed = forge(tmp_path / "bundle", [(frame_of(plain, other), other)], {"a": plain})
    whole, ranged = _refusals(sealed, tmp_path / "opened", "a")
    assert ("file.digest", "frame.plaintext") == (whole.check, ranged.check)
    # And where a row's digest is wrong, but the file is right, only the whole can be had.
    sealed = forge(tmp_path / "other", [(frame_of(other, plain), plain)], {"a": plain})
    sealed.open(tmp_path / "opened")
    with reading(sealed) as reader, pytest.raises(Refused) as refused:
        reader.read("a", 5, 1)
    assert "frame.plaintext" == refused.value.check


def test_damage_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    """A flipped bit is refused by its part, naming a file that is in it; others can be read."""
    damage(sealed.bundle / PAYLOAD, table_of(sealed).stored_bytes - 1)
    with pytest.raises(Refused) as checked:
        check_payload(sealed.bundle, sealed.core)
    assert "part.digest" == checked.value.check
    whole, ranged = _refusals(sealed, tmp_path / "opened", "zeros.bin")
    assert ("part.digest", "part.digest") == (whole.check, ranged.check)
    assert "in it: 'vocab.txt'" in str(whole) or "in it: 'zeros.bin'" in str(whole)
    with reading(sealed) as reader:
        assert FILES["config.json"] == reader.read("config.json")


def _with(contents: Contents, frames: bytes) -> Contents:
    """Take contents with other frames, held to their rules."""
    fields = {name: getattr(contents, name) for name in contents.__struct_fields__}
    return Contents(**(fields | {"frames": frames}))


@settings(deadline=None, max_examples=150)
@given(pick=st.data())
def test_any_other_rows_give_the_model_or_nothing(fixed: Sealed, pick: st.DataObject) -> None:
    """Whatever bytes of its rows a publisher signs otherwise, the model comes out, or nothing."""
    frames = bytearray(fixed.contents.frames or b"")
    for _ in range(pick.draw(st.integers(1, 3))):
        at = pick.draw(st.integers(0, len(frames) - 1))
        frames[at] ^= pick.draw(st.integers(1, 255))
    try:
        contents = _with(fixed.contents, bytes(frames))
        with tempfile.TemporaryDirectory() as room:
            lying = Sealed(fixed.bundle, fixed.core, contents, fixed.cek)
            lying.open(Path(room) / "opened", workers=1)
            assert SMALL == read_model(Path(room) / "opened")
    except (ValueError, Refused):
        pass


@pytest.mark.parametrize("by", [-1, 1])
def test_shifted_frames_are_refused(sealed: Sealed, tmp_path: Path, by: int) -> None:
    """A frame said to be stored in a byte less or more moves all behind it, and is refused."""
    frames = bytearray(sealed.contents.frames or b"")
    stored = int.from_bytes(frames[6:10], "big")
    assert frames[0]
    frames[6:10] = (stored + by).to_bytes(4, "big")
    lying = Sealed(sealed.bundle, sealed.core, _with(sealed.contents, bytes(frames)), sealed.cek)
    for refused in _refusals(lying, tmp_path / "opened", "config.json"):
        assert "frame.stored" == refused.check


def test_without_the_extra(sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where zstandard is not installed a compressed bundle is unavailable, and says what to do."""
    monkeypatch.setitem(sys.modules, "custody.ops.frame_codec", None)
    with pytest.raises(Unavailable) as whole:
        sealed.open(tmp_path / "opened")
    assert "pip install 'custody[compress]'" == whole.value.hint
    with pytest.raises(Unavailable):
        reading(sealed)
    assert {"bundle"} == names(tmp_path)


# ── sealing and opening go wrong ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("workers", [1, 3])
def test_a_changing_model_is_refused(tmp_path: Path, workers: int) -> None:
    """A file that is cut while it is sealed is refused by name; nothing is left, nobody waits."""
    files = {"a": bytes(40 * PART), "b": bf16(4 * PART)}
    model = write_model(tmp_path / "model", files)
    plan = plan_frames(model, scan(model).files, part_size_bytes=PART)
    assert plan is not None

    class Cut:
        def read(self, segment: Segment, view: memoryview) -> None:
            if segment.file_offset == 20 * PART:
                raise Refused("changed while it was being sealed", check="model.changed")

        def release(self, segments: Sequence[Segment]) -> None:
            pass

        def finish(self) -> None:
            pass

    class Nowhere:
        def write(self, data: memoryview, offset: int) -> None:
            pass

    key = PayloadKey(cek=bytes(32), payload_id=bytes(32), part_digest="blake3")
    with pytest.raises(Refused) as refused:
        seal_stream(Cut(), plan, key=key, payload=Nowhere(), rows=Nowhere(), workers=workers)
    assert "model.changed" == refused.value.check
    (model / "b").write_bytes(bf16(4 * PART, 9))
    with pytest.raises(Refused) as refused:
        seal_frames(model, plan, key=key, directory=tmp_path)
    assert "model.changed" == refused.value.check


def test_an_opening_goes_on(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that an interrupted opening left are kept if they are good, and expanded if not."""
    target = tmp_path / "staging"
    target.mkdir()

    def opened() -> list[int]:
        expanded: list[int] = []
        expand = frame_opener.FrameOpener.open_into

        def counted(self: frame_opener.FrameOpener, index: int, view: memoryview) -> None:
            expanded.append(index)
            expand(self, index, view)

        with monkeypatch.context() as patch:
            patch.setattr(frame_opener.FrameOpener, "open_into", counted)
            open_into(
                sealed.bundle,
                target,
                core=sealed.core,
                contents=sealed.contents,
                cek=sealed.cek,
            )
        assert FILES == read_model(target)
        return sorted(expanded)

    table = table_of(sealed)
    assert list(range(len(table))) == opened()
    assert [] == opened()
    offset = len(FILES[WEIGHTS]) // 2
    damage(target / WEIGHTS, offset)
    (target / "config.json").unlink()
    begins = {file.name: file.offset for file in sealed.contents.files}
    again = {table.at(begins[WEIGHTS] + offset), table.at(begins["config.json"])}
    assert sorted(again) == opened()


def test_a_disk_that_fills_up_is_reported(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while sealing or opening is unavailable, and nothing stays on it."""
    sealed = seal_compressed(model, tmp_path / "bundle")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PART, hard))
    try:
        with pytest.raises(Unavailable, match="disk full"):
            sealed.open(tmp_path / "opened", workers=3)
        with pytest.raises(Unavailable, match="disk full"):
            seal_compressed(model, tmp_path / "other", workers=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {"bundle"} == names(tmp_path)
    monkeypatch.setattr("custody.ops.landing.os.statvfs", lambda *_: os.statvfs_result([0] * 11))
    with pytest.raises(Unavailable, match="too small"):
        seal_compressed(model, tmp_path / "other")
    assert {"bundle"} == names(tmp_path)


def test_cancelling_leaves_nothing(model: Path, tmp_path: Path) -> None:
    """What the progress raises stops compressing and expanding, and leaves nothing behind."""

    class Enough(Exception):
        pass

    def stop(phase: str, done: int, total: int) -> None:
        if phase in {"seal", "open"}:
            raise Enough

    plan = plan_frames(model, scan(model).files, part_size_bytes=PART)
    assert plan is not None
    key = PayloadKey(cek=bytes(32), payload_id=bytes(32), part_digest="blake3")
    with pytest.raises(Enough), new_directory(tmp_path / "bundle") as directory:
        seal_frames(model, plan, key=key, directory=directory, progress=stop)
    assert set() == names(tmp_path)
    sealed = seal_compressed(model, tmp_path / "bundle")
    with pytest.raises(Enough):
        open_payload(
            sealed.bundle,
            tmp_path / "opened",
            core=sealed.core,
            contents=sealed.contents,
            cek=sealed.cek,
            progress=stop,
        )
    assert {"bundle"} == names(tmp_path)


def test_progress_is_of_the_plaintext(model: Path, tmp_path: Path) -> None:
    """Bytes are counted as the model has them, up to all of it, when sealing and when opening."""
    total = sum(map(len, FILES.values()))
    plan = plan_frames(model, scan(model).files, part_size_bytes=PART)
    assert plan is not None
    told: list[tuple[str, int, int]] = []

    class Nowhere:
        def write(self, data: memoryview, offset: int) -> None:
            pass

    key = PayloadKey(cek=bytes(32), payload_id=bytes(32), part_digest="blake3")
    source = ModelSource(model, plan.layout, plan.cut())
    seal_stream(
        source,
        plan,
        key=key,
        payload=Nowhere(),
        rows=Nowhere(),
        progress=lambda *all_of_it: told.append(all_of_it),
    )
    source.close()
    assert ("seal", total, total) == told[-1]
    assert {total} == {end for _, _, end in told}


def test_digests_are_of_the_plaintext(sealed: Sealed) -> None:
    """Every row's digest is of what its frame has, never of what it is stored as."""
    table = table_of(sealed)
    plain = b"".join(
        FILES[file.name] for file in sorted(sealed.contents.files, key=lambda file: file.offset)
    )
    assert len(plain) == table.size_bytes
    for index in range(len(table)):
        begin, end = table.begins[index], table.begins[index + 1]
        assert blake3(plain[begin:end]).digest() == table.digest(index)


def test_frames_are_not_taken_for_parts(sealed: Sealed, tmp_path: Path) -> None:
    """Without their frames the contents of a compressed bundle fit nothing."""
    plain = msgspec.structs.replace(sealed.contents, frames=None)
    other = Sealed(sealed.bundle, sealed.core, plain, sealed.cek)
    with pytest.raises(Refused) as refused:
        other.open(tmp_path / "opened")
    assert refused.value.check in {"contents.extent", "file.digest"}


# ── memory ──────────────────────────────────────────────────────────────────────────────────────

_MEASURE = """
import os
import resource
import subprocess
import sys
from pathlib import Path
from tests.unit.ops.compressed import seal_compressed

model, room, part_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sealed = seal_compressed(model, room / "bundle", part_size=part_size, workers=2)
sealed.open(room / "opened", workers=2)
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def _peak_mib(model: Path, room: Path, part_size: int) -> int:
    """Seal and open in a process of its own; return its peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(model), str(room), str(part_size)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    return int(done.stdout) >> 10


def _repeat(path: Path, data: bytes, times: int) -> None:
    with path.open("wb") as file:
        for _ in range(times):
            file.write(data)


@pytest.mark.parametrize("part_size", [4 << 20, 64 << 20], ids=["4 MiB", "64 MiB"])
def test_memory_is_bounded(tmp_path: Path, part_size: int) -> None:
    """Two workers seal and open compressed in less than 300 MiB, with the largest parts too."""
    model = write_model(tmp_path / "model", {"a": b""})
    _repeat(model / "a", bf16(1 << 20), 200)
    assert 300 >= _peak_mib(model, tmp_path, part_size)


@pytest.mark.soak
def test_memory_of_a_large_model_is_bounded(tmp_path: Path) -> None:
    """So for 8 GiB, which come back as they were."""
    model = write_model(tmp_path / "model", {"a": b"", "b": b""})
    for name, times in (("a", 4097), ("b", 4095)):
        _repeat(model / name, bf16(1 << 20, times), times)
    assert 300 >= _peak_mib(model, tmp_path, 4 << 20)
    subprocess.run(["diff", "-r", model, tmp_path / "opened"], check=True)
