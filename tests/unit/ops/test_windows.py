"""Windows end where tensors do, and cover every byte once."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from custody.errors import Refused
from custody.ops.model_files import scan
from custody.ops.windows import cut_at_tensors, cut_evenly, digest_windows, least_part_size
from tests.unit.ops.bundles import noise, write_model
from tests.unit.ops.test_deltas import safetensors

TENSORS = {"a": noise(1000, 1), "b": b"", "c": noise(70_000, 2), "d": noise(10, 3)}
FILE = safetensors(TENSORS)
HEADER = len(FILE) - sum(map(len, TENSORS.values()))


def test_windows_end_where_tensors_end(tmp_path: Path) -> None:
    """The header, then each tensor by itself, a large one in several windows."""
    model = write_model(tmp_path / "model", {"m.safetensors": FILE})
    files = scan(model).files
    windows = cut_at_tensors(model, files, 1 << 16)
    assert [
        (0, HEADER),
        (HEADER, 1000),
        (HEADER + 1000, 1 << 16),
        (HEADER + 1000 + (1 << 16), 70_000 - (1 << 16)),
        (HEADER + 71_000, 10),
    ] == [(w.offset, w.size_bytes) for w in windows]
    keys = digest_windows(model, files, windows)
    assert [
        (blake3(FILE[w.offset : w.offset + w.size_bytes]).digest(), w.size_bytes) for w in windows
    ] == keys


@pytest.mark.parametrize(
    "data",
    [b"", b"short", FILE[:-1], b"\xff" * 200_000, bytes(8) + noise(99), FILE[:8] + b"[" + FILE[9:]],
)
def test_what_is_no_safetensors_file_is_cut_evenly(tmp_path: Path, data: bytes) -> None:
    """A file that only has the name is cut like any other, and stops nothing."""
    model = write_model(tmp_path / "model", {"m.safetensors": data, "z": b"1"})
    windows = cut_at_tensors(model, scan(model).files, 1 << 16)
    even = [*cut_evenly(0, 0, len(data), 1 << 16), *cut_evenly(1, 0, 1, 1 << 16)]
    assert even == windows


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    """What is digested is what was scanned."""
    model = write_model(tmp_path / "model", {"a": noise(100_000)})
    files = scan(model).files
    windows = cut_at_tensors(model, files, 1 << 16)
    (model / "a").write_bytes(noise(100_001))
    with pytest.raises(Refused) as refused:
        digest_windows(model, files, windows)
    assert "model.changed" == refused.value.check


def test_tables_stay_small() -> None:
    """Whatever the size of a model, the smallest parts for it are at most 2**18, or the largest."""
    assert 1 << 16 == least_part_size(0)
    assert 1 << 16 == least_part_size(1 << 34)
    assert 1 << 17 == least_part_size((1 << 34) + 1)
    assert 1 << 26 == least_part_size(1 << 60)
