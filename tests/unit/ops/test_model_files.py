"""Scanning a model, and placing its files in a payload."""

from __future__ import annotations

import os
import socket
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.parts import DEFAULT_PART_SIZE, MAX_PARTS, padme
from custody.errors import Refused, Unavailable
from custody.ops.model_files import (
    Identity,
    Layout,
    Segments,
    SourceFile,
    default_part_size,
    interleave,
    plan_layout,
    runs_of,
    scan,
)
from tests.unit.ops.bundles import PART, write_model

STATE = Identity(1, 2, 3, 4, 5)


def _files(sizes: list[int]) -> list[SourceFile]:
    return [SourceFile(name=f"{n:03}", size_bytes=s, identity=STATE) for n, s in enumerate(sizes)]


def test_scan_lists_files_in_code_point_order(tmp_path: Path) -> None:
    """Every file is listed with its size, in code-point order; empty directories apart."""
    files = {"b": b"1", "a/z": b"22", "a.txt": b"", "Z": b"4444", "é": b"5"}
    model = write_model(tmp_path / "model", files)
    (model / "none/at/all").mkdir(parents=True)
    (model / "a/hollow").mkdir()
    scanned = scan(model)
    assert [(n, len(files[n])) for n in sorted(files)] == [
        (f.name, f.size_bytes) for f in scanned.files
    ]
    assert ("a/hollow", "none/at/all") == scanned.empty_directories
    assert 8 == scanned.size_bytes


def test_scan_takes_a_linked_model(tmp_path: Path) -> None:
    """The model itself may be named through a link; only links inside it are refused."""
    write_model(tmp_path / "v3", {"file": b"1"})
    (tmp_path / "latest").symlink_to("v3")
    assert ["file"] == [f.name for f in scan(tmp_path / "latest").files]


def test_symlink_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """A link, as in a model hub's cache, is refused by name with the command that copies it."""
    model = write_model(tmp_path / "my model", {"blobs/1": b"1"})
    (model / "snapshots").mkdir()
    (model / "snapshots/weights").symlink_to("../blobs/1")
    with pytest.raises(Refused) as refused:
        scan(model)
    assert ("model.symlink", str(model / "snapshots/weights")) == (
        refused.value.check,
        refused.value.where,
    )
    assert f"cp -rL '{model}' 'my model-plain'" == refused.value.hint


def test_linked_directory_is_refused(tmp_path: Path) -> None:
    """A link to a directory, even to one outside, is refused and not entered."""
    model = write_model(tmp_path / "model", {"a": b"1"})
    (model / "out").symlink_to(tmp_path)
    with pytest.raises(Refused) as refused:
        scan(model)
    assert "model.symlink" == refused.value.check


def test_special_files_are_refused(tmp_path: Path) -> None:
    """A FIFO and a socket are refused by name, and not waited for."""
    for kind in ("fifo", "socket"):
        model = write_model(tmp_path / kind, {"a": b"1"})
        path = model / "special"
        if kind == "fifo":
            os.mkfifo(path)
        else:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        with pytest.raises(Refused) as refused:
            scan(model)
        assert ("model.special", str(path)) == (refused.value.check, refused.value.where)


@pytest.mark.parametrize(
    "names",
    [(b"\xff",), (b"README", b"readme"), (b"A/x", b"a/y"), (b"a\\b",), (b"a\nb",), (b"dir\xe9/x",)],
    ids=str,
)
def test_bad_names_are_refused(tmp_path: Path, names: tuple[bytes, ...]) -> None:
    """Names that are not UTF-8, collide where case is folded or carry controls are refused."""
    for name in names:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/model/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(Refused) as refused:
        scan(tmp_path / "model")
    assert "model.name" == refused.value.check


def test_model_without_files_is_refused(tmp_path: Path) -> None:
    """A model of nothing but directories is refused."""
    (tmp_path / "model/empty").mkdir(parents=True)
    with pytest.raises(Refused) as refused:
        scan(tmp_path / "model")
    assert "model.empty" == refused.value.check


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_no_directory_is_unavailable(tmp_path: Path, kind: str) -> None:
    """A model that is not there, or is a file, is unavailable."""
    if kind == "file":
        (tmp_path / "model").touch()
    with pytest.raises(Unavailable) as unavailable:
        scan(tmp_path / "model")
    assert str(tmp_path / "model") == unavailable.value.where


def test_deep_directories_are_scanned(tmp_path: Path) -> None:
    """A file below 500 directories is found, with few descriptors open."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_CREAT, dir_fd=here))
    os.close(here)
    assert ["d/" * 500 + "f"] == [f.name for f in scan(tmp_path).files]


SIZES = st.lists(
    st.one_of(st.integers(0, 4 * PART), st.sampled_from([0, 1, PART - 1, PART, PART + 1])),
    min_size=1,
    max_size=20,
)


@given(SIZES)
def test_layout_follows_the_rule(sizes: list[int]) -> None:
    """Long files start on parts in order, then short ones follow packed, then Padmé's padding."""
    layout = plan_layout(_files(sizes), PART)
    long = [p for p in layout.files if p.size_bytes >= PART]
    short = [p for p in layout.files if p.size_bytes < PART]
    end = 0
    for placed in long:
        assert end == placed.offset
        end = -(-(placed.offset + placed.size_bytes) // PART) * PART
    for placed in short:
        assert end == placed.offset
        end += placed.size_bytes
    assert [f"{n:03}" for n in range(len(sizes))] == [p.name for p in layout.files]
    assert max(1, -(-padme(end) // PART)) == layout.part_count


@given(SIZES)
def test_segments_cover_every_byte_once(sizes: list[int]) -> None:
    """The segments of all parts are every byte of every file, once and at its offset."""
    layout = plan_layout(_files(sizes), PART)
    segments = Segments(layout.files, PART)
    seen: dict[int, int] = dict.fromkeys(range(len(sizes)), 0)
    for index in range(layout.part_count):
        end = 0
        for segment in segments.of_part(index):
            placed = layout.files[segment.file]
            assert seen[segment.file] == segment.file_offset
            assert index * PART + segment.part_offset == placed.offset + segment.file_offset
            assert end <= segment.part_offset
            end = segment.part_offset + segment.size_bytes
            assert end <= PART
            assert index in segments.parts_of(placed)
            seen[segment.file] += segment.size_bytes
    assert dict(enumerate(sizes)) == seen


@given(SIZES, st.integers(1, 6))
def test_parts_of_a_file_are_begun_in_order(sizes: list[int], width: int) -> None:
    """Every part is begun once, and the parts of any one file in their order."""
    layout = plan_layout(_files(sizes), PART)
    segments = Segments(layout.files, PART)
    order = list(interleave(runs_of(layout.files, segments, layout.part_count), width))
    assert list(range(layout.part_count)) == sorted(order)
    place = {index: n for n, index in enumerate(order)}
    for placed in layout.files:
        assert all(place[a] < place[b] for a, b in pairwise(segments.parts_of(placed)))


def test_runs_advance_side_by_side() -> None:
    """Two long files are begun alternately, so that two cores hash one each."""
    layout = plan_layout(_files([3 * PART, 2 * PART, PART]), PART)
    segments = Segments(layout.files, PART)
    runs = runs_of(layout.files, segments, layout.part_count)
    assert [0, 3, 1, 4, 2, 5] == list(interleave(runs, 2))


def test_offsets_past_four_gib() -> None:
    """Files past 4 GiB and a payload past 16 TiB are placed without a byte lost."""
    sizes = [(4 << 30) + 1, (16 << 40) + 5, 7]
    layout = plan_layout(_files(sizes), 64 << 20)
    segments = Segments(layout.files, 64 << 20)
    for placed in layout.files:
        parts = segments.parts_of(placed)
        last = next(s for s in segments.of_part(parts[-1]) if layout.files[s.file] == placed)
        assert placed.size_bytes == last.file_offset + last.size_bytes
    assert layout.files[1].offset == (4 << 30) + (64 << 20)


@pytest.mark.parametrize(
    ("total", "size"),
    [(0, 4 << 20), (1 << 40, 4 << 20), ((1 << 40) + 1, 8 << 20), (1 << 60, 64 << 20)],
)
def test_part_size_grows_with_the_model(total: int, size: int) -> None:
    """Parts have 4 MiB up to 1 TiB, then grow so that tables stay small."""
    assert size == default_part_size(total)
    assert DEFAULT_PART_SIZE <= default_part_size(total)


def test_too_many_parts_are_refused() -> None:
    """A model of more parts than a payload may have is refused before it is read."""
    with pytest.raises(Refused) as refused:
        plan_layout(_files([(MAX_PARTS + 1) * PART]), PART)
    assert "parts.count" == refused.value.check


def test_many_files_are_placed_in_time() -> None:
    """Placing 200,000 small files takes a few seconds at most."""
    files = [SourceFile(name=f"{n:06}", size_bytes=n % 999, identity=STATE) for n in range(200_000)]
    begun = time.monotonic()
    layout: Layout = plan_layout(files, PART)
    segments = Segments(layout.files, PART)
    found = sum(len(segments.of_part(index)) for index in range(layout.part_count))
    assert time.monotonic() - begun < 20
    assert found >= 200_000 - 201
