"""Memory for an output, made before the output is."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.ops.ahead import (
    Ahead,
    opening_ahead,
    sealing_ahead,
    tree_bytes,
)
from custody.ops.landing import new_directory
from custody.ops.linux import in_memory
from custody.ops.model_files import plan_layout, scan
from custody.ops.payload_open import open_into
from custody.ops.payload_seal import SealedPayload, seal_payload
from tests.unit.ops.bundles import (
    PART,
    contents_of,
    core_of,
    names,
    noise,
    read_model,
    write_model,
)

STRETCH = 16 << 20
PATIENCE_SECONDS = 20
SHARED_MEMORY = Path("/dev/shm")
CEK = bytes(32)
ID = bytes(range(32))


@pytest.fixture
def room() -> Iterator[Path]:
    """Give a directory in memory."""
    if not SHARED_MEMORY.is_dir() or not in_memory(SHARED_MEMORY):
        pytest.skip("no tmpfs in /dev/shm")
    path = Path(tempfile.mkdtemp(dir=SHARED_MEMORY))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Write a model whose larger file is more than what is reserved at a time."""
    return write_model(
        tmp_path / "model", {"a/large": noise(STRETCH + PART + 1), "b": noise(3 * PART), "c": b"c"}
    )


def reserved(growing: Ahead, size_bytes: int) -> Ahead:
    """Wait until it has so much."""
    until = time.monotonic() + PATIENCE_SECONDS
    while sum(os.fstat(fd).st_blocks for fd in growing._fds) * 512 < size_bytes:
        assert time.monotonic() < until, "nothing was reserved"
        time.sleep(0.001)
    return growing


def seal(model: Path, bundle: Path, ahead: Ahead | None) -> SealedPayload:
    """Seal into a new directory."""
    bundle.mkdir()
    return seal_payload(
        model,
        plan_layout(scan(model).files, PART),
        cek=CEK,
        payload_id=ID,
        part_digest="blake3",
        directory=bundle,
        ahead=ahead,
    )


def test_reserved_memory_becomes_the_output(room: Path, model: Path) -> None:
    """What is sealed into and opened into reserved files is what is sealed and opened."""
    bundle, target = room / "bundle", room / "opened"
    with sealing_ahead(model, bundle) as growing:
        sealed = seal(model, bundle, reserved(growing, STRETCH))
        assert [] == growing._fds
    core = core_of(sealed, cek=CEK, payload_id=ID)
    with opening_ahead(bundle / "payload", target) as growing, new_directory(target) as directory:
        before = len(reserved(growing, STRETCH)._fds)
        open_into(
            bundle, directory, core=core, contents=contents_of(sealed), cek=CEK, ahead=growing
        )
        assert max(0, before - 2) == len(growing._fds)
    assert read_model(model) == read_model(target)
    assert {0o600} == {path.stat().st_mode & 0o777 for path in target.rglob("*") if path.is_file()}
    assert {"bundle", "opened"} == names(room)


def test_taking_cuts_to_size(room: Path) -> None:
    """A file that turns out smaller than what was reserved has its own size."""
    growing = reserved(Ahead(room, lambda: 2 * STRETCH), STRETCH)
    fd = growing.take(room / "small", 5)
    assert fd is not None
    os.close(fd)
    assert 5 == (room / "small").stat().st_size
    assert growing.take(room / "another", 5) is None
    growing.close()
    assert {"small"} == names(room)


def test_taken_names_are_left_alone(room: Path) -> None:
    """A file that is there already is not replaced."""
    (room / "there").write_bytes(b"mine")
    growing = Ahead(room, lambda: STRETCH)
    assert growing.take(room / "there", STRETCH) is None
    growing.close()
    assert b"mine" == (room / "there").read_bytes()


def test_an_earlier_run_is_gone_on_with(
    room: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reserved memory does not take the place of parts that an interrupted seal has left."""
    first = seal(model, room / "bundle", None)
    with sealing_ahead(model, room / "bundle") as growing:
        monkeypatch.setattr(Path, "mkdir", lambda *_: None)
        again = seal(model, room / "bundle", reserved(growing, STRETCH))
    assert again.part_count == again.kept_parts
    assert first.parts_root == again.parts_root


def test_what_is_not_taken_is_given_back(room: Path) -> None:
    """Nothing is left of a command that ends before it writes."""
    free = shutil.disk_usage(room).free
    with sealing_ahead(room, room / "bundle"):
        pass
    growing = reserved(Ahead(room, lambda: 4 * STRETCH, files=2), STRETCH)
    assert growing.reserved_bytes >= STRETCH
    growing.close()
    assert set() == names(room)
    assert shutil.disk_usage(room).free > free - STRETCH


def test_a_hole_reserves_nothing(room: Path, tmp_path: Path) -> None:
    """A bundle that was not judged yet says how large it is for nothing: it takes no memory."""
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.truncate(1 << 40)
    with opening_ahead(payload, room / "opened") as growing:
        assert growing._thread is not None
        growing._thread.join(PATIENCE_SECONDS)
        assert 0 == growing.reserved_bytes
    with payload.open("r+b") as file:
        file.write(bytes(2 * STRETCH))
        file.flush()
        os.fsync(file.fileno())
    with opening_ahead(payload, room / "opened") as growing:
        assert 2 * STRETCH == reserved(growing, 2 * STRETCH).reserved_bytes


def test_disks_are_left_alone(tmp_path: Path) -> None:
    """Nothing is reserved on a disk, nor where there is no directory."""
    if in_memory(tmp_path):
        pytest.skip("the temporary directory is in memory")
    for folder in (tmp_path, tmp_path / "missing"):
        growing = Ahead(folder, lambda: STRETCH)
        assert 0 == growing.reserved_bytes
        assert growing.take(tmp_path / "any", 1) is None
        growing.close()
    assert set() == names(tmp_path)


def test_sizes_of_a_tree(tmp_path: Path) -> None:
    """Files count, links do not, and what is not there has no bytes."""
    write_model(tmp_path / "m", {"a": b"12345", "b/c": b"678"})
    (tmp_path / "m" / "link").symlink_to("a")
    assert 8 == tree_bytes(tmp_path / "m")
    assert 0 == tree_bytes(tmp_path / "missing")
