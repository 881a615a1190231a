"""Outputs appear whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from custody.errors import Refused, Unavailable
from custody.ops import landing, linux
from custody.ops.landing import (
    check_space,
    disk_errors,
    new_directory,
    new_file,
    replace_file,
    resumable_directory,
    sweep,
    write_new_file,
)
from tests.unit.ops.bundles import names


def _fill_directory(target: Path) -> None:
    with new_directory(target) as directory:
        (directory / "sub").mkdir()
        (directory / "sub/file").write_bytes(b"new")


def _fill_file(target: Path) -> None:
    write_new_file(target, b"new")


BOTH = pytest.mark.parametrize("fill", [_fill_directory, _fill_file], ids=["directory", "file"])


def test_directory_appears_whole(tmp_path: Path) -> None:
    """A directory has all of its files when its name appears, and nothing stays beside it."""
    with new_directory(tmp_path / "out") as directory:
        (directory / "file").write_bytes(b"new")
        assert not (tmp_path / "out").exists()
        assert 0o700 == directory.parent.stat().st_mode & 0o777
    assert b"new" == (tmp_path / "out/file").read_bytes()
    assert {"out"} == names(tmp_path)


def test_file_appears_whole(tmp_path: Path) -> None:
    """A file has all of its bytes when its name appears, and nothing stays beside it."""
    with new_file(tmp_path / "out", mode=0o600) as file:
        file.write(b"ne")
        assert not (tmp_path / "out").exists()
        file.write(b"w")
    assert b"new" == (tmp_path / "out").read_bytes()
    assert 0o600 == (tmp_path / "out").stat().st_mode & 0o777
    assert {"out"} == names(tmp_path)


def test_many_files_are_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of many files reaches the disk by one call, a small one file by file."""
    whole: list[int] = []
    each: list[int] = []
    monkeypatch.setattr(landing, "sync_filesystem", whole.append)
    monkeypatch.setattr(os, "fsync", each.append)
    for count in (3, 1000):
        with new_directory(tmp_path / str(count)) as directory:
            for n in range(count):
                (directory / str(n)).touch()
    # Three files and their directory, and both times the directory the output landed in.
    assert (1, 3 + 1 + 2) == (len(whole), len(each))


def test_sync_filesystem_syncs(tmp_path: Path) -> None:
    """The call for many files works on a real directory and fails on what is no file."""
    fd = os.open(tmp_path, os.O_RDONLY)
    linux.sync_filesystem(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.sync_filesystem(fd)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_leave_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """After an error, an interrupt too, neither output nor staging directory is there."""

    def fail_in_directory() -> None:
        with new_directory(tmp_path / "directory") as directory:
            (directory / "file").write_bytes(b"secret")
            raise error

    def fail_in_file() -> None:
        with new_file(tmp_path / "file") as file:
            file.write(b"secret")
            raise error

    for fail in (fail_in_directory, fail_in_file):
        with pytest.raises(error):
            fail()
    assert set() == names(tmp_path)


@BOTH
@pytest.mark.parametrize("kind", ["file", "directory", "full directory", "dangling link"])
def test_existing_target_is_kept(tmp_path: Path, kind: str, fill: Callable[[Path], None]) -> None:
    """A target that exists is refused and left alone."""
    target = tmp_path / "out"
    if kind == "file":
        target.write_bytes(b"old")
    elif kind == "dangling link":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "full directory":
        (target / "old").touch()
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(Refused) as refused:
        fill(target)
    assert "target.exists" == refused.value.check
    assert before == sorted(map(str, tmp_path.rglob("*")))


@BOTH
@pytest.mark.parametrize("native", [True, False], ids=["renameat2", "without"])
def test_target_made_meanwhile_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fill: Callable[[Path], None],
    native: bool,  # noqa: FBT001
) -> None:
    """A target that somebody made while we were writing is refused, never overwritten."""
    target = tmp_path / "out"
    rename_new = linux.rename_new

    def after_somebody_else(source: Path, target: Path) -> None:
        target.write_bytes(b"theirs")
        rename_new(source, target)

    monkeypatch.setattr(landing, "rename_new", after_somebody_else)
    if not native:
        monkeypatch.setattr(linux, "libc", object)
    with pytest.raises(Refused) as refused:
        fill(target)
    assert "target.exists" == refused.value.check
    assert b"theirs" == target.read_bytes()
    assert {"out"} == names(tmp_path)


@BOTH
def test_without_the_linux_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Path], None]
) -> None:
    """Where the C library lacks the calls, outputs still land."""
    monkeypatch.setattr(linux, "libc", object)
    fill(tmp_path / "out")
    linux.sync_filesystem(0)
    assert {"out"} == names(tmp_path)


def test_leftovers_are_swept(tmp_path: Path) -> None:
    """What a killed run left, in whatever state, is removed by the next landing beside it."""
    states: list[list[str]] = [[], ["lock"], ["lock", "output/model/file"], ["output/file"]]
    for n, files in enumerate(states):
        staging = tmp_path / f".model.custody-{n:016x}.partial"
        staging.mkdir()
        for name in files:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(b"secret")
    write_new_file(tmp_path / "other", b"")
    assert {"other"} == names(tmp_path)


def test_live_runs_are_not_swept(tmp_path: Path) -> None:
    """A staging directory whose maker lives is left alone, and both outputs land."""
    with new_directory(tmp_path / "a") as directory:
        (directory / "file").write_bytes(b"a")
        _fill_directory(tmp_path / "b")
        assert (directory / "file").exists()
    assert {"a", "b"} == names(tmp_path)


def test_strangers_are_not_swept(tmp_path: Path) -> None:
    """Links and files of a staging directory's name are left alone, and so is what they name."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "output").write_bytes(b"mine")
    link = tmp_path / f".a.custody-{1:016x}.partial"
    link.symlink_to(precious)
    file = tmp_path / f".b.custody-{2:016x}.partial"
    file.touch()
    near = tmp_path / f".c.custody-{3:015x}.partial"
    near.mkdir()
    sweep(tmp_path)
    assert sorted([precious, link, file, near]) == sorted(tmp_path.iterdir())
    assert b"mine" == (precious / "output").read_bytes()


def test_output_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A leftover's output that became a link is removed, not what it points to."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    staging = tmp_path / f".a.custody-{1:016x}.partial"
    staging.mkdir()
    (staging / "output").symlink_to(precious)
    sweep(tmp_path)
    assert {"precious"} == names(tmp_path)
    assert {"file"} == names(precious)


def test_lock_is_held_while_writing(tmp_path: Path) -> None:
    """The lock of a live staging directory cannot be had."""
    with new_file(tmp_path / "out"):
        [staging] = tmp_path.iterdir()
        with (staging / "lock").open("rb") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _land_some(directory: Path, who: int) -> None:
    for n in range(40):
        _fill_directory(directory / f"{who}-{n}")


def test_landings_side_by_side(tmp_path: Path) -> None:
    """Processes that land and sweep in one directory at once lose nothing of one another."""
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_land_some, args=(tmp_path, who)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [0] * 4 == [process.exitcode for process in processes]
    expected = {f"{who}-{n}" for who in range(4) for n in range(40)}
    assert expected == names(tmp_path)


def test_maker_overtaken_by_sweeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A staging directory swept between its making and its locking is made again."""
    try_lock = landing._try_lock
    calls: list[Path] = []

    def swept_once(staging: Path) -> int | None:
        calls.append(staging)
        if len(calls) == 1:
            staging.rmdir()
        return try_lock(staging)

    monkeypatch.setattr(landing, "_try_lock", swept_once)
    write_new_file(tmp_path / "out", b"new")
    assert 2 == len(set(calls))
    assert {"out"} == names(tmp_path)


def test_sweeper_overtaken_by_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A staging directory that its maker removes under the sweeper's hands is no error."""
    staging = tmp_path / f".a.custody-{1:016x}.partial"
    staging.mkdir()
    unlink = Path.unlink

    def then_gone(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name == "lock":
            staging.rmdir()

    monkeypatch.setattr(Path, "unlink", then_gone)
    sweep(tmp_path)
    assert set() == names(tmp_path)


def test_unfinished_work_swept_before_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory for unfinished work that a sweeper takes at once is made again."""
    lstat = Path.lstat
    swept: list[Path] = []

    def swept_once(path: Path) -> os.stat_result:
        if path.suffix == ".unfinished" and not swept:
            swept.append(path)
            path.rmdir()
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", swept_once)
    with resumable_directory(tmp_path / "out", "0" * 16) as directory:
        (directory / "file").touch()
    assert 1 == len(swept)
    assert {"out"} == names(tmp_path)


def test_replace_file_replaces(tmp_path: Path) -> None:
    """Remembered state is replaced whole, made where it was not, and private."""
    state = tmp_path / "state"
    for data in (b"one", b"two"):
        replace_file(state, data)
        assert data == state.read_bytes()
    assert 0o600 == state.stat().st_mode & 0o777
    assert {"state"} == names(tmp_path)


@BOTH
def test_no_parent_is_unavailable(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    """A target in a directory that does not exist is unavailable, naming the directory."""
    with pytest.raises(Unavailable) as unavailable:
        fill(tmp_path / "nowhere/out")
    assert str(tmp_path / "nowhere") == unavailable.value.where


def test_space_is_checked(tmp_path: Path) -> None:
    """A disk too small is told with what is needed and what is free."""
    check_space(tmp_path, size_bytes=1)
    with pytest.raises(Unavailable, match=r"disk too small: \d{18,} bytes needed, \d+ free"):
        check_space(tmp_path, size_bytes=1 << 60)


def test_a_full_disk_is_told_by_a_folder_that_people_know(tmp_path: Path) -> None:
    """Unfinished work lies in a hidden folder; an error names the one around it, and a way out."""
    with resumable_directory(tmp_path / "out", "0" * 16) as directory:
        with pytest.raises(Unavailable) as unavailable:
            check_space(directory, size_bytes=1 << 60)
        with pytest.raises(Unavailable) as full, disk_errors(directory / "payload"):
            raise OSError(errno.ENOSPC, "No space left on device")
    for error in (unavailable.value, full.value):
        assert str(tmp_path) == error.where
        assert "make room, or name another place" == error.hint


def test_file_count_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for so many files is told with both counts."""
    real = os.statvfs(tmp_path)
    few = os.statvfs_result(tuple({5: 9, 6: 9, 7: 9}.get(i, v) for i, v in enumerate(real)))
    monkeypatch.setattr(os, "statvfs", lambda _: few)
    with pytest.raises(Unavailable, match="10 files to make, room for 9"):
        check_space(tmp_path, size_bytes=1, files=10)


def test_writes_reserve_each_stretch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long file is reserved once per stretch, never past its end, and holds what was written."""
    reserved: list[tuple[int, int]] = []
    monkeypatch.setattr(linux, "_RESERVED_BYTES", 1000)
    monkeypatch.setattr(linux, "reserve", lambda _, begin, size: reserved.append((begin, size)))
    monkeypatch.setattr(os, "major", lambda _: 8)
    with (tmp_path / "file").open("wb") as file:
        out = linux.NewFile(file.fileno(), 2100)
        for offset in (2000, 0, 500, 1000, 1500):
            out.write(memoryview(bytes([offset // 500]) * min(500, 2100 - offset)), offset)
    assert [(2000, 100), (0, 1000), (1000, 1000)] == reserved
    expected = b"".join(bytes([n]) * 500 for n in range(4)) + b"\4" * 100
    assert expected == (tmp_path / "file").read_bytes()


def test_reserving(tmp_path: Path) -> None:
    """Disk is reserved where it can be; where the library cannot, or nothing is asked, none is."""
    with (tmp_path / "file").open("wb") as file:
        linux.reserve(file.fileno(), 0, 0)
        assert 0 == os.fstat(file.fileno()).st_size
        linux.reserve(file.fileno(), 0, 5000)
        assert os.fstat(file.fileno()).st_size in (0, 5000)
    with (tmp_path / "file").open("rb") as file, pytest.raises(OSError, match="Bad file"):
        linux.reserve(file.fileno(), 0, 5000)
