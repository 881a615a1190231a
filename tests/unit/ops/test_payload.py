"""Sealing, checking and opening payloads."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.parts import ROW_BYTES, open_part, row_digest, seal_part
from custody.errors import Incomplete, Refused, Unavailable
from custody.formats.contents import Contents, File, check_names
from custody.formats.parts import PARTS, PAYLOAD, PartTable
from custody.ops import payload_open, payload_seal, payload_source
from custody.ops.landing import new_directory
from custody.ops.model_files import plan_layout, scan
from custody.ops.payload_open import check_payload, open_payload
from custody.ops.payload_seal import seal_payload
from tests.unit.ops.bundles import (
    MARKER,
    PART,
    Sealed,
    marked,
    names,
    noise,
    read_model,
    seal_model,
    write_model,
)

FILES = {
    "config.json": noise(300),
    "empty": b"",
    "model/a.safetensors": noise(3 * PART + 17, 2),
    "model/b.safetensors": noise(PART, 3),
    "model/c.safetensors": noise(2 * PART - 1, 4),
    "tokenizer.json": noise(PART - 200, 5),
    "vocab.txt": noise(1000, 6),
}


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """A bundle of a few files, large, small and empty."""
    return seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")


def _names() -> st.SearchStrategy[str]:
    piece = st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), max_size=12
    ).filter(lambda s: s not in ("", ".", ".."))
    return st.lists(piece, min_size=1, max_size=3).map("/".join)


def _allowed(names: list[str]) -> bool:
    try:
        check_names(sorted(names))
    except ValueError:
        return False
    return True


SIZES = st.one_of(
    st.sampled_from([0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1]),
    st.integers(0, 300),
    st.integers(0, 4 * PART),
)
MODELS = st.dictionaries(_names(), SIZES, min_size=1, max_size=9).filter(
    lambda model: _allowed(list(model))
)


@settings(max_examples=60, deadline=None)
@given(MODELS, st.sampled_from(["blake3", "sha256"]), st.integers(1, 5))
def test_open_undoes_seal(sizes: dict[str, int], digest: str, workers: int) -> None:
    """Whatever files a model has, opening its bundle gives the same names and bytes."""
    model = {name: noise(size, n) for n, (name, size) in enumerate(sizes.items())}
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        bundle = seal_model(
            write_model(room / "model", model),
            room / "bundle",
            part_digest="sha256" if digest == "sha256" else "blake3",
            workers=workers,
        )
        check_payload(bundle.bundle, bundle.core, workers=workers)
        bundle.open(room / "opened", workers=workers)
        assert model == read_model(room / "opened")
        assert {"bundle", "model", "opened"} == names(room)


def test_file_table(sealed: Sealed) -> None:
    """The file table gives every file's size and SHA-256, in code-point order."""
    expected = [
        (name, len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(FILES.items())
    ]
    assert expected == [(f.name, f.size_bytes, f.sha256) for f in sealed.contents.files]


def test_parts_open_alone(sealed: Sealed) -> None:
    """Each part opens alone, by its row, to file bytes at their offsets and zeros elsewhere."""
    size = sealed.core.part_count * PART
    expected = bytearray(size)
    for file in sealed.contents.files:
        expected[file.offset : file.offset + file.size_bytes] = FILES[file.name]
    payload = (sealed.bundle / PAYLOAD).read_bytes()
    table = PartTable((sealed.bundle / PARTS).read_bytes())
    found = bytearray()
    for index in reversed(range(len(table))):
        row = table.row(index)
        buffer = bytearray(payload[index * PART : (index + 1) * PART] + bytes(16))
        payload_id = bytes.fromhex(sealed.core.payload_id)
        open_part(sealed.cek, payload_id, index, buffer, salt=row.salt, tag=row.tag)
        found[:0] = buffer[:PART]
    assert expected == found


def test_salts_are_fresh(tmp_path: Path) -> None:
    """The same model sealed twice under one key repeats no salt and no part."""
    model = write_model(tmp_path / "model", {"zeros": bytes(8 * PART)})
    seen: set[bytes] = set()
    for n in range(2):
        bundle = seal_model(model, tmp_path / str(n), cek=bytes(32)).bundle
        table = PartTable((bundle / PARTS).read_bytes())
        payload = (bundle / PAYLOAD).read_bytes()
        seen |= {table.row(i).salt for i in range(len(table))}
        seen |= {payload[i * PART : (i + 1) * PART] for i in range(len(table))}
    assert 2 * 2 * 8 == len(seen)


def test_many_small_files(tmp_path: Path) -> None:
    """Ten thousand small files come back from few parts."""
    files = {f"layer{i % 10}/shard-{i:05}": noise(i % 700, i) for i in range(10_000)}
    bundle = seal_model(write_model(tmp_path / "model", files), tmp_path / "bundle")
    total = sum(map(len, files.values()))
    assert total < bundle.core.part_count * PART <= total * 1.12 + PART
    bundle.open(tmp_path / "opened")
    assert files == read_model(tmp_path / "opened")


def test_long_and_foreign_names(tmp_path: Path) -> None:
    """Names of 255 bytes and outside ASCII come back unchanged, and so does a target so named."""
    files = {
        "n" * 255: b"1",
        "é" * 127 + "/" + "語" * 85: b"2",
        "Größe (1).json": b"3",
        ".hidden/-rf": b"4",
    }
    bundle = seal_model(write_model(tmp_path / "model", files), tmp_path / "bundle")
    target = tmp_path / ("é" * 127)
    bundle.open(target)
    assert files == read_model(target)


def test_opened_files_are_private(sealed: Sealed, tmp_path: Path) -> None:
    """What is opened is readable by its owner alone."""
    sealed.open(tmp_path / "opened")
    opened = tmp_path / "opened"
    assert {0o700} == {p.stat().st_mode & 0o777 for p in (opened, opened / "model")}
    assert 0o600 == (opened / "model/a.safetensors").stat().st_mode & 0o777


# ── bad bundles ─────────────────────────────────────────────────────────────────────────────────

Damage = Callable[[Path], None]


def _with(sealed: Sealed, *, cek: bytes | None = None, contents: Contents | None = None) -> Sealed:
    """Take a bundle with another key or other contents."""
    return Sealed(sealed.bundle, sealed.core, contents or sealed.contents, cek or sealed.cek)


def _flip(name: str, offset: int) -> Damage:
    def damage(bundle: Path) -> None:
        data = bytearray((bundle / name).read_bytes())
        data[offset] ^= 1
        (bundle / name).write_bytes(data)

    return damage


def _cut(name: str, size: int) -> Damage:
    def damage(bundle: Path) -> None:
        data = (bundle / name).read_bytes()
        (bundle / name).write_bytes(data[: len(data) - size])

    return damage


def _grow(name: str, size: int) -> Damage:
    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes((bundle / name).read_bytes() + bytes(size))

    return damage


def _swap(name: str, size: int) -> Damage:
    def damage(bundle: Path) -> None:
        data = (bundle / name).read_bytes()
        (bundle / name).write_bytes(data[size : 2 * size] + data[:size] + data[2 * size :])

    return damage


def _both(*damages: Damage) -> Damage:
    def damage(bundle: Path) -> None:
        for one in damages:
            one(bundle)

    return damage


def _fifo(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        (bundle / name).unlink()
        os.mkfifo(bundle / name)

    return damage


DAMAGES = [
    ("payload.size", "cut by a byte", _cut(PAYLOAD, 1)),
    ("payload.size", "cut by a part", _cut(PAYLOAD, PART)),
    ("payload.size", "emptied", lambda bundle: (bundle / PAYLOAD).write_bytes(b"")),
    ("payload.size", "a byte more", _grow(PAYLOAD, 1)),
    ("payload.size", "a part more", _grow(PAYLOAD, PART)),
    ("payload.size", "a FIFO", _fifo(PAYLOAD)),
    ("parts.size", "a row less", _cut(PARTS, ROW_BYTES)),
    ("parts.size", "a byte less", _cut(PARTS, 1)),
    ("parts.size", "a row more", _grow(PARTS, ROW_BYTES)),
    ("parts.size", "a FIFO", _fifo(PARTS)),
    ("parts.root", "salt changed", _flip(PARTS, 0)),
    ("parts.root", "tag changed", _flip(PARTS, 24)),
    ("parts.root", "digest changed", _flip(PARTS, 71)),
    ("parts.root", "last row changed", _flip(PARTS, -1)),
    ("parts.root", "rows swapped", _swap(PARTS, ROW_BYTES)),
    ("parts.root", "parts and rows swapped", _both(_swap(PARTS, ROW_BYTES), _swap(PAYLOAD, PART))),
    ("part.digest", "first byte changed", _flip(PAYLOAD, 0)),
    ("part.digest", "last byte, in the padding, changed", _flip(PAYLOAD, -1)),
    ("part.digest", "parts swapped", _swap(PAYLOAD, PART)),
]


@pytest.mark.parametrize(
    ("check", "damage"), [(c, d) for c, _, d in DAMAGES], ids=[f"{c}: {w}" for c, w, _ in DAMAGES]
)
def test_damage_is_refused(sealed: Sealed, tmp_path: Path, check: str, damage: Damage) -> None:
    """A damaged bundle is refused by name, with and without the key, and leaves nothing behind."""
    damage(sealed.bundle)
    with pytest.raises(Refused) as checked:
        check_payload(sealed.bundle, sealed.core)
    with pytest.raises(Refused) as opened:
        sealed.open(tmp_path / "opened")
    assert (check, check) == (checked.value.check, opened.value.check)
    assert {"bundle", "model"} == names(tmp_path)


@pytest.mark.parametrize("name", [PAYLOAD, PARTS])
def test_missing_file_is_incomplete(sealed: Sealed, tmp_path: Path, name: str) -> None:
    """A file that has not arrived is named as missing, with and without the key."""
    (sealed.bundle / name).unlink()
    with pytest.raises(Incomplete) as checked:
        check_payload(sealed.bundle, sealed.core)
    with pytest.raises(Incomplete) as opened:
        sealed.open(tmp_path / "opened")
    assert ((name,), (name,)) == (checked.value.missing, opened.value.missing)
    assert {"bundle", "model"} == names(tmp_path)


@pytest.mark.parametrize(
    ("names", "check"), [((PAYLOAD,), "part.digest"), ((PARTS,), "parts.root")], ids=str
)
def test_other_bundle_is_refused(
    sealed: Sealed, tmp_path: Path, names: tuple[str, ...], check: str
) -> None:
    """Payload or rows of another bundle of the same model and key are refused."""
    other = seal_model(tmp_path / "model", tmp_path / "other", cek=sealed.cek)
    for name in names:
        (sealed.bundle / name).write_bytes((other.bundle / name).read_bytes())
    with pytest.raises(Refused) as refused:
        sealed.open(tmp_path / "opened")
    assert check == refused.value.check


def test_other_key_is_refused_first(sealed: Sealed, tmp_path: Path) -> None:
    """A key that is not the committed one is refused before anything is read."""
    (sealed.bundle / PAYLOAD).unlink()
    with pytest.raises(Refused) as refused:
        _with(sealed, cek=bytes(32)).open(tmp_path / "opened")
    assert "cek.commitment" == refused.value.check


def test_dishonest_row_fails_at_the_tag(sealed: Sealed, tmp_path: Path) -> None:
    """A part whose row matches but whose tag does not is refused, naming part and files."""
    # Only who signs the manifest can do this: rows and root follow the changed ciphertext.
    payload = bytearray((sealed.bundle / PAYLOAD).read_bytes())
    payload[PART] ^= 1
    (sealed.bundle / PAYLOAD).write_bytes(payload)
    rows = bytearray((sealed.bundle / PARTS).read_bytes())
    row = PartTable(bytes(rows)).row(1)
    digest = row_digest("blake3", 1, row.salt, payload[PART : 2 * PART], row.tag)
    rows[ROW_BYTES + 40 : 2 * ROW_BYTES] = digest
    (sealed.bundle / PARTS).write_bytes(rows)
    core = msgspec.structs.replace(sealed.core, parts_root=PartTable(bytes(rows)).root())
    check_payload(sealed.bundle, core)
    with pytest.raises(Refused) as refused:
        Sealed(sealed.bundle, core, sealed.contents, sealed.cek).open(tmp_path / "opened")
    assert "part.tag" == refused.value.check
    assert "part 1 " in refused.value.reason
    assert "'model/a.safetensors'" in refused.value.reason
    assert {"bundle", "model"} == names(tmp_path)


@pytest.mark.parametrize("name", list(FILES))
def test_other_file_digest_is_refused(sealed: Sealed, tmp_path: Path, name: str) -> None:
    """A file that does not have its digest is refused by name: empty, small or in many parts."""
    files = tuple(
        msgspec.structs.replace(file, sha256="00" * 32) if file.name == name else file
        for file in sealed.contents.files
    )
    contents = msgspec.structs.replace(sealed.contents, files=files)
    with pytest.raises(Refused) as refused:
        _with(sealed, contents=contents).open(tmp_path / "opened")
    assert ("file.digest", name) == (refused.value.check, refused.value.where)
    assert {"bundle", "model"} == names(tmp_path)


def test_contents_of_another_size_are_refused(sealed: Sealed, tmp_path: Path) -> None:
    """Contents with a file past the payload's end are refused."""
    last = sealed.contents.files[-1]
    far = msgspec.structs.replace(last, offset=sealed.core.part_count * PART - 1)
    files = (*sealed.contents.files[:-1], far)
    contents = msgspec.structs.replace(sealed.contents, files=files)
    with pytest.raises(Refused) as refused:
        _with(sealed, contents=contents).open(tmp_path / "opened")
    assert "contents.extent" == refused.value.check


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_layout_opens(data: st.DataObject) -> None:
    """Files at any offsets that do not overlap open, whichever file shares a part with which."""
    gaps = data.draw(st.lists(st.tuples(st.integers(0, PART), SIZES), min_size=1, max_size=8))
    plain = bytearray()
    files: list[File] = []
    for n, (gap, size) in enumerate(gaps):
        plain += bytes(gap)
        body = noise(size, n)
        files.append(
            File(
                name=f"{n:02}",
                size_bytes=size,
                sha256=hashlib.sha256(body).hexdigest(),
                offset=len(plain),
            )
        )
        plain += body
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        bundle = seal_model(write_model(room / "m", {"all": bytes(plain)}), room / "bundle")
        contents = msgspec.structs.replace(bundle.contents, files=tuple(files))
        _with(bundle, contents=contents).open(room / "opened", workers=3)
        expected = {f.name: bytes(plain[f.offset : f.offset + f.size_bytes]) for f in files}
        assert expected == read_model(room / "opened")


# ── models that change, disks that are full ─────────────────────────────────────────────────────


def _seal_with_change(model: Path, out: Path, change: Callable[[], object]) -> None:
    """Seal, with ``change`` made after the first part was read."""
    changes = iter([change])

    def and_change(*args: object, **named: object) -> bytes:
        next(changes, lambda: None)()
        return seal_part(*args, **named)  # type: ignore[arg-type]

    layout = plan_layout(scan(model).files, PART)
    with pytest.MonkeyPatch.context() as patch, new_directory(out) as directory:
        patch.setattr(payload_seal, "seal_part", and_change)
        seal_payload(
            model,
            layout,
            cek=bytes(32),
            payload_id=bytes(32),
            part_digest="blake3",
            directory=directory,
            workers=1,
        )


def _rewrite(path: Path) -> Callable[[], None]:
    def change() -> None:
        data = path.read_bytes()
        path.write_bytes(bytes(len(data)))

    return change


def _replace_by(path: Path, make: Callable[[Path], object]) -> Callable[[], None]:
    def change() -> None:
        path.unlink()
        make(path)

    return change


# An empty file that is cut to nothing did not change, and not every file system says otherwise.
@pytest.mark.parametrize(
    ("how", "name"),
    [
        (how, name)
        for how in ("rewritten", "cut", "gone", "link", "fifo", "appended")
        for name in ("a-long", "b-long", "small", "empty")
        if (how, name) != ("cut", "empty")
    ],
)
def test_changing_model_is_refused(tmp_path: Path, name: str, how: str) -> None:
    """A file changed, cut or replaced while it is being sealed stops the sealing."""
    sizes = {"a-long": 3 * PART, "b-long": 2 * PART, "small": 9, "empty": 0}
    model = write_model(tmp_path / "model", {n: noise(s) for n, s in sizes.items()})
    path = model / name
    # A clock that ticks every 4 ms may stamp the change as it stamped the making.
    os.utime(path, ns=(1, 1))
    changes: dict[str, Callable[[], object]] = {
        "rewritten": _rewrite(path),
        "cut": lambda: os.truncate(path, sizes[name] // 2),
        "gone": path.unlink,
        "link": _replace_by(path, lambda p: p.symlink_to("/dev/null")),
        "fifo": _replace_by(path, os.mkfifo),
        "appended": lambda: path.write_bytes(bytes(sizes[name] + 1)),
    }
    with pytest.raises(Refused) as refused:
        _seal_with_change(model, tmp_path / "bundle", changes[how])
    assert ("model.changed", str(path)) == (refused.value.check, refused.value.where)
    assert {"model"} == names(tmp_path)


def test_existing_target_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    """A target that exists, be it only a dangling link, is refused and left as it was."""
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "link", tmp_path / "empty", tmp_path / "model/empty"):
        with pytest.raises(Refused) as refused:
            sealed.open(target)
        assert "target.exists" == refused.value.check
    assert "nowhere" == str((tmp_path / "link").readlink())
    assert set() == names(tmp_path / "empty")


def test_small_disk_is_seen_before_decrypting(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk too small is reported with both sizes before a part is decrypted."""
    real = os.statvfs(tmp_path)
    free = os.statvfs_result(tuple(7 if i == 4 else v for i, v in enumerate(real)))
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    monkeypatch.setattr(payload_source, "open_part", lambda *_, **__: pytest.fail("decrypted"))
    with pytest.raises(Unavailable, match=rf"needed, {7 * real.f_frsize} free"):
        sealed.open(tmp_path / "opened")
    assert {"bundle", "model"} == names(tmp_path)


@contextmanager
def _small_disk(path: Path, size: int) -> Iterator[Path]:
    """Mount a disk of ``size`` bytes, where we may."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "custody-test", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_disk_full_while_opening(
    sealed: Sealed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while opening is reported, and nothing stays on it."""
    monkeypatch.setattr(payload_open, "check_space", lambda *_, **__: None)
    with _small_disk(tmp_path / "disk", 4 * PART) as disk:
        with pytest.raises(Unavailable, match="disk full"):
            sealed.open(disk / "opened")
        assert set() == names(disk)


def test_disk_full_while_sealing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up while sealing is reported, and nothing stays on it."""
    model = write_model(tmp_path / "model", FILES)
    monkeypatch.setattr(payload_seal, "check_space", lambda *_, **__: None)
    with _small_disk(tmp_path / "disk", 4 * PART) as disk:
        with pytest.raises(Unavailable, match="disk full"):
            seal_model(model, disk / "bundle")
        assert set() == names(disk)


def test_file_size_limit_while_opening(sealed: Sealed, tmp_path: Path) -> None:
    """A file longer than the process may write is reported like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PART, hard))
    try:
        with pytest.raises(Unavailable, match="disk full"):
            sealed.open(tmp_path / "opened")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {"bundle", "model"} == names(tmp_path)


def test_progress_and_cancelling(sealed: Sealed, tmp_path: Path) -> None:
    """Progress ends at the total; what it raises stops the work and leaves nothing behind."""
    seen: list[tuple[str, int, int]] = []
    check_payload(sealed.bundle, sealed.core, progress=lambda *step: seen.append(step))
    total = sealed.core.part_count * PART
    assert ("check", total, total) == seen[-1]
    assert seen == sorted(seen)

    def cancel(phase: str, done_bytes: int, total_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_payload(
            sealed.bundle,
            tmp_path / "opened",
            core=sealed.core,
            contents=sealed.contents,
            cek=sealed.cek,
            progress=cancel,
        )
    assert {"bundle", "model"} == names(tmp_path)


def test_no_plaintext_in_bundle(tmp_path: Path) -> None:
    """Nothing of a model's bytes or names is in its bundle's public files."""
    model = write_model(tmp_path / "model", {f"{MARKER.decode()}.bin": marked(3 * PART)})
    bundle = seal_model(model, tmp_path / "bundle").bundle
    assert {PAYLOAD, PARTS} == names(bundle)
    assert not any(MARKER in (bundle / name).read_bytes() for name in (PAYLOAD, PARTS))


# ── memory and size ─────────────────────────────────────────────────────────────────────────────

_MEASURE = """
import sys
from pathlib import Path
from tests.unit.ops.bundles import seal_model
from custody.ops.payload_open import check_payload
model, room, part_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sealed = seal_model(model, room / "bundle", part_size=part_size)
check_payload(sealed.bundle, sealed.core)
sealed.open(room / "opened")
print(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def _peak_mib(model: Path, room: Path, part_size: int) -> int:
    """Seal, check and open in a process of its own; return its peak memory in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(model), str(room), str(part_size)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    return int(done.stdout) >> 10


def _sparse(path: Path, size: int) -> None:
    """Make a file with a byte here and there and holes between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for offset in (0, size // 3, size - len(MARKER)):
            file.seek(offset)
            file.write(MARKER)


def test_memory_with_largest_parts(tmp_path: Path) -> None:
    """Peak memory stays below 300 MiB with the largest part size there is."""
    _sparse(tmp_path / "model/weights", 300 << 20)
    assert 300 >= _peak_mib(tmp_path / "model", tmp_path, 64 << 20)


@pytest.mark.soak
def test_large_model(tmp_path: Path) -> None:
    """A model of 8 GiB, one file of it past 4 GiB, comes back whole in less than 300 MiB."""
    sizes = {"a": (4 << 30) + 4097, "b": (2 << 30) + 1, "c": 2 << 30}
    for name, size in sizes.items():
        _sparse(tmp_path / "model" / name, size)
    assert 300 >= _peak_mib(tmp_path / "model", tmp_path, 4 << 20)
    subprocess.run(["diff", "-r", tmp_path / "model", tmp_path / "opened"], check=True)
