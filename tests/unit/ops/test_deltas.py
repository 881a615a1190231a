"""Deltas: only what differs is carried, and what comes out is the new model or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.errors import Malformed, Refused
from custody.formats.contents import Contents, decode_padded, encode_padded
from custody.formats.parts import PAYLOAD
from custody.ops import payload_open
from custody.ops.bundle import check_contents
from custody.ops.delta import Known, KnownFiles, KnownParts, plan_delta
from custody.ops.model_files import Layout, scan
from custody.ops.part_map import PartMap
from custody.ops.part_source import LocalParts
from custody.ops.payload_open import check_payload
from custody.ops.payload_source import PayloadSource
from custody.ops.reader import Reader
from custody.ops.sealed_model import SealedModel
from tests.unit.ops.bundles import (
    NOBODY,
    PART,
    Sealed,
    names,
    noise,
    read_model,
    seal_model,
    write_model,
)

MANIFEST = "11" * 32
#: Some larger than a part, some smaller; no two alike.
LAYERS = {f"layer.{n}.weight": noise(size, n) for n, size in enumerate((90_000, 300, 70_000, 8))}
LAYERS |= {f"layer.{n}.weight": noise(120_000, n) for n in range(4, 10)}
FILES = {
    "config.json": b'{"layers":10}',
    "shard-1.bin": noise(4 * PART + 100, 20),
    "shard-2.bin": noise(3 * PART, 21),
    "tokenizer.json": noise(2000, 22),
}


def safetensors(tensors: Mapping[str, bytes], order: Sequence[str] = (), note: str = "") -> bytes:
    """Write a file of byte tensors, in an order of our own."""
    header: dict[str, object] = {"__metadata__": {"note": note}} if note else {}
    at, data = 0, b""
    for name in order or tensors:
        value = tensors[name]
        header[name] = {
            "dtype": "U8",
            "shape": [len(value)],
            "data_offsets": [at, at + len(value)],
        }
        at, data = at + len(value), data + value
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def known_by_parts(base: Sealed) -> KnownParts:
    """What a sealing leaves in its publisher's home."""
    assert base.payload is not None
    return KnownParts(
        SealedModel(
            kind="custody/sealed-model/v1",
            manifest=MANIFEST,
            part_size_bytes=base.core.part_size_bytes,
            files=base.contents.files,
            fingerprint_key=base.payload.fingerprint_key,
            fingerprints=base.payload.fingerprints,
        )
    )


def known_by_files(base: Path, model: Path) -> KnownFiles:
    """What the files of a base show."""
    return KnownFiles(MANIFEST, base, scan(model).size_bytes)


def plan(model: Path, known: Known, part_size: int | None = PART) -> Layout:
    """Lay out a model as a delta."""
    return plan_delta(model, scan(model).files, known, part_size_bytes=part_size)


def carried(layout: Layout) -> int:
    """Count the parts of a payload."""
    return PartMap.of_layout(layout).carried_count


class Room:
    """A base, and what is new."""

    def __init__(self, room: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
        self.path = room
        self.base = write_model(room / "base", old)
        self.model = write_model(room / "model", new)
        self.new = dict(new)

    def layouts(self) -> dict[str, Layout]:
        """Lay out what is new by all that can be known of the base."""
        sealed = seal_model(self.base, self.path / "base.bundle")
        return {
            "parts": plan(self.model, known_by_parts(sealed)),
            "files": plan(self.model, known_by_files(self.base, self.model)),
        }

    def seal(self, layout: Layout | None = None) -> Sealed:
        """Seal it as a delta."""
        layout = layout or plan(self.model, known_by_files(self.base, self.model))
        bundle = self.path / f"{len(names(self.path))}.bundle"
        sealed = seal_model(self.model, bundle, layout=layout)
        check_contents(sealed.contents, sealed.core)
        check_payload(sealed.bundle, sealed.core)
        return sealed

    def opens(self, sealed: Sealed) -> None:
        """See that the base and the delta make the new model."""
        target = self.path / f"{len(names(self.path))}.opened"
        sealed.open(target, base=self.base)
        assert self.new == read_model(target)


def _counts(room: Room) -> dict[str, int]:
    """Seal and open by every kind of knowledge; return how many parts were carried."""
    counts = {}
    for kind, layout in room.layouts().items():
        room.opens(room.seal(layout))
        counts[kind] = carried(layout)
    return counts


def test_a_changed_byte_costs_one_part(tmp_path: Path) -> None:
    """One byte changed in one shard carries one part; everything else is taken."""
    shard = bytearray(FILES["shard-1.bin"])
    shard[2 * PART + 5] ^= 1
    room = Room(tmp_path, FILES, FILES | {"shard-1.bin": bytes(shard)})
    assert {"parts": 1, "files": 1} == _counts(room)


def test_an_identical_model_carries_one_part_of_padding(tmp_path: Path) -> None:
    """A model that is its own base has a payload all the same: one part, of zeros."""
    room = Room(tmp_path, FILES, FILES)
    assert {"parts": 1, "files": 1} == _counts(room)


def test_an_added_shard_is_carried_alone(tmp_path: Path) -> None:
    """A new shard costs its own parts and no more."""
    room = Room(tmp_path, FILES, FILES | {"shard-3.bin": noise(2 * PART, 30)})
    assert {"parts": 2, "files": 2} == _counts(room)


def test_a_removed_or_renamed_file_costs_nothing(tmp_path: Path) -> None:
    """A file that is gone is not missed, and one that moved is found under its old name."""
    new = {name: data for name, data in FILES.items() if name != "shard-1.bin"}
    new["later/shard-2.bin"] = new.pop("shard-2.bin")
    assert {"parts": 1, "files": 1} == _counts(Room(tmp_path, FILES, new))


def test_tensors_that_move_are_found_where_they_went(tmp_path: Path) -> None:
    """A longer header and another order shift every tensor; only the header's part is carried.

    By the digests of parts nothing is found: that is why files are compared where they are there.
    """
    old = {"m.safetensors": safetensors(LAYERS)}
    order = [*reversed(LAYERS)]
    new = {"m.safetensors": safetensors(LAYERS, order, note="fine-tuned " * 9)}
    room = Room(tmp_path, old, new)
    counts = _counts(room)
    assert 1 == counts["files"]
    everything = plan(room.model, known_by_files(room.base, room.model)).part_count
    assert everything <= counts["parts"]


def test_fine_tuned_layers_are_carried(tmp_path: Path) -> None:
    """One layer of a safetensors file changed costs the parts it lies in."""
    changed = LAYERS | {"layer.5.weight": noise(120_000, 99)}
    room = Room(
        tmp_path, {"m.safetensors": safetensors(LAYERS)}, {"m.safetensors": safetensors(changed)}
    )
    assert {"parts": 3, "files": 3} == _counts(room)


def test_nothing_in_common_is_sealed_whole(tmp_path: Path) -> None:
    """Where a base has nothing of the model, the layout is that of a whole one."""
    room = Room(tmp_path, {"a": noise(PART, 1)}, {"a": noise(PART, 2)})
    assert [None, None] == [layout.base for layout in room.layouts().values()]


def test_the_part_size_that_carries_least_is_chosen(tmp_path: Path) -> None:
    """Small changes all over a model are carried in small parts, a whole model in usual ones."""
    old = noise(8 << 20, 1)
    new = bytearray(old)
    for at in range(0, len(new), 1 << 20):
        new[at] ^= 1
    room = Room(tmp_path, {"a": old}, {"a": bytes(new)})
    layout = plan(room.model, known_by_files(room.base, room.model), None)
    assert (PART, 8) == (layout.part_size_bytes, carried(layout))
    room.opens(room.seal(layout))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A model with one part changed, in a place of its own."""
    new = FILES | {"shard-1.bin": FILES["shard-1.bin"][:-1] + b"!"}
    return Room(tmp_path, FILES, new)


@pytest.mark.parametrize("name", ["shard-1.bin", "shard-2.bin", "tokenizer.json"])
def test_a_base_with_one_flipped_byte_is_refused(room: Room, name: str) -> None:
    """One flipped byte of the base is told by file and part, and nothing was written."""
    sealed = room.seal()
    data = bytearray(FILES[name])
    data[7] ^= 1
    (room.base / name).write_bytes(data)
    before = names(room.path)
    with pytest.raises(Refused) as refused:
        sealed.open(room.path / "opened", base=room.base)
    assert "base.different" == refused.value.check
    assert name in str(refused.value)
    assert "part " in refused.value.reason
    assert before == names(room.path)


def test_a_wrong_base_is_refused_before_any_work(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another base no part is opened, and no file made."""
    sealed = room.seal()
    monkeypatch.setattr("custody.ops.payload_open.open_parts", lambda *_, **__: 1 / 0)
    (room.base / "shard-2.bin").write_bytes(noise(3 * PART, 77))
    with pytest.raises(Refused) as refused:
        sealed.open(room.path / "opened", base=room.base)
    assert "base.different" == refused.value.check


def test_an_interrupted_opening_goes_on(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier run put together is kept where it is right, and made anew where it is not."""
    sealed = room.seal()
    left = room.path / "left"
    write_model(left, {"shard-2.bin": FILES["shard-2.bin"], "shard-1.bin": noise(PART, 5)})
    carried_parts: list[int] = []
    read = PayloadSource.read

    def counted(self: PayloadSource, index: int, part: memoryview) -> None:
        carried_parts.append(index)
        read(self, index, part)

    monkeypatch.setattr(PayloadSource, "read", counted)
    payload_open.open_into(
        sealed.bundle,
        left,
        core=sealed.core,
        contents=sealed.contents,
        cek=sealed.cek,
        base=room.base,
    )
    assert room.new == read_model(left)
    assert [0] == carried_parts


def test_what_is_missing_of_a_base_is_named(room: Room) -> None:
    """No base, no directory, a file that is gone or short: each is refused as what it is."""
    sealed = room.seal()
    short = bytearray(FILES["shard-2.bin"])[:-1]

    def check(base: Path | None) -> str:
        with pytest.raises(Refused) as refused:
            sealed.open(room.path / "opened", base=base)
        assert MANIFEST in (refused.value.hint or "")
        return refused.value.check

    assert "base.missing" == check(None)
    assert "base.missing" == check(room.path / "nowhere")
    (room.base / "shard-2.bin").write_bytes(short)
    assert "base.different" == check(room.base)
    (room.base / "shard-2.bin").unlink()
    assert "base.missing" == check(room.base)
    os.mkfifo(room.base / "shard-2.bin")
    assert "base.different" == check(room.base)
    (room.base / "shard-2.bin").unlink()
    (room.base / "shard-2.bin").symlink_to(room.base / "shard-1.bin")
    assert "base.missing" == check(room.base)


def test_a_base_that_changes_after_it_was_checked_is_refused(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every part is verified again when it is used, not only before."""
    sealed = room.seal()
    monkeypatch.setattr("custody.ops.base_source.BaseParts.check", lambda *_, **__: None)
    (room.base / "shard-2.bin").write_bytes(noise(3 * PART, 77))
    before = names(room.path)
    with pytest.raises(Refused) as refused:
        sealed.open(room.path / "opened", base=room.base)
    assert "base.different" == refused.value.check
    assert before == names(room.path)


def test_a_delta_has_nothing_of_its_base_in_it(room: Room) -> None:
    """The payload has the changed part's size, and no part of the base."""
    sealed = room.seal()
    assert PART == (sealed.bundle / PAYLOAD).stat().st_size


def reader_of(sealed: Sealed, base: Path | None) -> Reader:
    """Open a reader of a delta."""
    source = LocalParts(sealed.bundle, sealed.core)
    try:
        return Reader(
            source, core=sealed.core, contents=sealed.contents, cek=sealed.cek, base=base, workers=2
        )
    except Refused:
        source.close()
        raise


def test_a_delta_is_read_through_its_base(room: Room) -> None:
    """Every range is that of the new model, whether it is carried, taken, or across both."""
    sealed = room.seal()
    model = read_model(room.model)
    with reader_of(sealed, room.base) as reader:
        for name, data in model.items():
            assert data == reader.read(name)
            for at in range(0, len(data), PART // 2 + 1):
                assert data[at : at + PART] == reader.read(name, at, PART)
        reader.full_pass()
        assert "full pass" == reader.vouched_by


def test_a_delta_is_not_read_without_its_base(room: Room) -> None:
    """Without a base, or with one of which a file is missing or too short, nothing is read."""
    sealed = room.seal()

    def check(base: Path | None) -> str:
        with pytest.raises(Refused) as refused:
            reader_of(sealed, base)
        assert "--base" in (refused.value.hint or "")
        return refused.value.check

    assert "base.missing" == check(None)
    assert "base.missing" == check(room.path / "nowhere")
    file = room.base / sealed.contents.base.files[0]  # type: ignore[union-attr]
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert "base.different" == check(room.base)
    file.unlink()
    assert "base.missing" == check(room.base)


def test_a_base_that_changed_is_found_by_the_range_that_takes_of_it(room: Room) -> None:
    """A part taken from other bytes is refused by the name of file and base, and leaves zeros."""
    sealed = room.seal()
    base = sealed.contents.base
    assert base is not None
    run = base.taken[0]
    path = room.base / base.files[run.file]
    data = bytearray(path.read_bytes())
    data[run.file_offset] ^= 1
    path.write_bytes(data)
    name = next(
        f.name for f in sealed.contents.files if f.offset <= run.offset < f.offset + f.size_bytes
    )
    buffer = bytearray(b"x" * PART)
    with reader_of(sealed, room.base) as reader, pytest.raises(Refused) as refused:
        reader.read_into(name, 0, buffer)
    assert "base.different" == refused.value.check
    assert name in refused.value.reason
    assert str(path) == refused.value.where
    assert set(buffer) <= {0, ord("x")}


def test_another_base_directory_is_refused_when_sealing(room: Room) -> None:
    """A directory with another file than was sealed as the base is refused before it is read."""
    base = seal_model(room.base, room.path / "bundle")
    remembered = known_by_parts(base)._sealed
    known_by_files(room.base, room.model).check(remembered)
    (room.base / "shard-2.bin").unlink()
    with pytest.raises(Refused) as refused:
        known_by_files(room.base, room.model).check(remembered)
    assert ("base.different", str(room.base / "shard-2.bin")) == (
        refused.value.check,
        refused.value.where,
    )


def test_what_was_sealed_is_remembered(room: Room) -> None:
    """What a sealing leaves in a home comes back, and of another manifest there is nothing."""
    sealed = known_by_parts(seal_model(room.base, room.path / "bundle"))._sealed
    sealed.remember(room.path)
    assert sealed == SealedModel.recall(room.path, MANIFEST)
    assert SealedModel.recall(room.path, NOBODY) is None


def _with_base(contents: Contents, **changes: object) -> Contents:
    assert contents.base is not None
    base = msgspec.structs.replace(contents.base, **changes)
    return msgspec.structs.replace(contents, base=base)


def test_contents_that_take_a_part_in_half_are_refused(room: Room) -> None:
    """A run that ends inside a part, or a base more or less, does not fit the manifest."""
    sealed = room.seal()
    base = sealed.contents.base
    assert base is not None
    first, *rest = base.taken
    shorter = msgspec.structs.replace(first, size_bytes=first.size_bytes - 1)
    fewer = msgspec.structs.replace(first, size_bytes=first.size_bytes - PART)
    digests = sealed.contents.part_digests
    assert digests is not None
    for check, changed in (
        ("contents.base", _with_base(sealed.contents, taken=(shorter, *rest))),
        ("contents.parts", _with_base(sealed.contents, taken=(fewer, *rest))),
        ("contents.parts", msgspec.structs.replace(sealed.contents, part_digests=digests[32:])),
        ("contents.parts", msgspec.structs.replace(sealed.contents, part_digests=digests * 2)),
        (
            "contents.extent",
            msgspec.structs.replace(sealed.contents, base=None, part_digests=None),
        ),
    ):
        with pytest.raises(Refused) as refused:
            check_contents(changed, sealed.core)
        assert check == refused.value.check


def _run(file: int = 0, offset: int = 0, size_bytes: int = 1) -> dict[str, int]:
    return {"file": file, "fileOffset": 0, "offset": offset, "sizeBytes": size_bytes}


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["a"], []),
        ([], [_run()]),
        (["../a"], [_run()]),
        (["a"], [_run(file=1)]),
        (["a", "b"], [_run()]),
        (["b", "a"], [_run(), _run(file=1, offset=1)]),
        (["a"], [_run(size_bytes=0)]),
        (["a"], [_run(size_bytes=2**53 - 1)]),
        (["a"], [_run(offset=1), _run()]),
        (["a"], [_run(size_bytes=2), _run(offset=1)]),
    ],
)
def test_a_malformed_base_is_refused(
    room: Room, files: list[str], taken: list[dict[str, int]]
) -> None:
    """Names, indexes, order and extent of what is taken are checked when contents are read."""
    whole = seal_model(room.base, room.path / "bundle").contents
    padded = encode_padded(whole, 1 << 16)

    def read(files: list[str], taken: list[dict[str, int]]) -> Contents:
        base = {"files": files, "manifest": MANIFEST, "taken": taken}
        written = json.dumps(base, separators=(",", ":")).encode()
        body = padded[8 : 8 + int.from_bytes(padded[:8], "big")]
        body = body.replace(b'"base":null', b'"base":' + written)
        body = body.replace(b'"partDigests":null', b'"partDigests":"' + b"A" * 43 + b'="')
        return decode_padded(len(body).to_bytes(8, "big") + body)

    assert read(["a"], [_run()]).base is not None
    with pytest.raises(Malformed):
        read(files, taken)


def _edits() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    what = st.sampled_from(["flip", "cut", "insert", "swap", "rename", "drop", "add"])
    return st.lists(st.tuples(what, st.integers(0, 7), st.integers(0, 5 * PART)), max_size=5)


def _edited(model: dict[str, bytes], edits: list[tuple[str, int, int]]) -> dict[str, bytes]:
    new = dict(model)
    for number, (what, which, at) in enumerate(edits):
        name = sorted(new)[which % len(new)]
        data = bytearray(new[name])
        place = at % (len(data) + 1)
        if what == "flip" and data:
            data[place % len(data)] ^= 1
        elif what == "cut":
            del data[place:]
        elif what == "insert":
            data[place:place] = noise(9, number)
        elif what == "swap":
            data = data[place:] + data[:place]
        elif what == "rename":
            del new[name]
            name = f"{number}-new"
        elif what == "drop" and len(new) > 1:
            del new[name]
            continue
        elif what == "add":
            name, data = f"{number}-added", bytearray(noise(at, number))
        new[name] = bytes(data)
    return new


SIZES = st.one_of(
    st.sampled_from([0, 1, PART - 1, PART, PART + 1, 2 * PART]), st.integers(0, 3 * PART)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=6), _edits(), st.sampled_from(["safetensors", "plain"]))
def test_open_undoes_seal_with_a_base(
    sizes: list[int], edits: list[tuple[str, int, int]], kind: str
) -> None:
    """Whatever was edited, base and delta make the new model, by digests and by files."""
    old = {f"f{n}": noise(size, n) for n, size in enumerate(sizes)}
    tensors = kind == "safetensors"
    if tensors:
        old["m.safetensors"] = safetensors(old)
    new = _edited(old, edits)
    if tensors and "m.safetensors" in new:
        plain = {k: v for k, v in new.items() if k != "m.safetensors"}
        new["m.safetensors"] = safetensors(plain or old, note="again")
    with tempfile.TemporaryDirectory() as name:
        room = Room(Path(name), old, new)
        for layout in room.layouts().values():
            room.opens(room.seal(layout))
