"""Bundles as an fsspec file system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from safetensors.numpy import load, save

from custody.errors import Refused
from custody.ops.filesystem import CustodyFileSystem, mounted
from custody.ops.reader import Reader
from tests.unit.ops.bundles import PART, noise, seal_model, write_model
from tests.unit.ops.test_reader import reading

FILES = {
    "config.json": b'{"hidden":384}',
    "data/a.bin": noise(3 * PART + 5, 1),
    "data/deep/b.bin": noise(10, 2),
    "empty": b"",
    "model.safetensors": save({"a": np.arange(12.0).reshape(3, 4)}),
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader of a small bundle."""
    sealed = seal_model(write_model(tmp_path / "model", FILES), tmp_path / "bundle")
    with reading(sealed) as opened:
        yield opened


@pytest.fixture
def mount(reader: Reader) -> Iterator[str]:
    """The address of that bundle in this process."""
    with mounted(reader, "tiny") as address:
        yield address


@pytest.fixture
def filesystem(mount: str) -> Any:
    """The file system."""
    return fsspec.filesystem("custody")


def test_paths_are_opened_by_any_library(mount: str) -> None:
    """What takes fsspec paths reads a bundle's files, whole and from the middle."""
    assert "custody://tiny" == mount
    with fsspec.open(f"{mount}/data/a.bin") as file:
        file.seek(PART - 3)
        assert FILES["data/a.bin"][PART - 3 : PART + 7] == file.read(10)
    with fsspec.open(f"{mount}/config.json", "rt") as text:
        assert '{"hidden":384}' == text.read()
    array = load(fsspec.filesystem("custody").cat_file(f"{mount}/model.safetensors"))["a"]
    assert 11.0 == array[2, 3]


def test_listing(filesystem: Any) -> None:
    """Mounts, folders and files are listed as a disk's are."""
    assert ["tiny"] == filesystem.ls("", detail=False)
    assert ["tiny/config.json", "tiny/data", "tiny/empty", "tiny/model.safetensors"] == sorted(
        filesystem.ls("custody://tiny", detail=False)
    )
    assert ["tiny/data/a.bin", "tiny/data/deep"] == sorted(filesystem.ls("tiny/data", detail=False))
    assert ["tiny/empty"] == filesystem.ls("tiny/empty", detail=False)
    assert sorted(f"tiny/{name}" for name in FILES) == sorted(filesystem.find("tiny"))
    assert ["tiny/data/a.bin", "tiny/data/deep/b.bin"] == sorted(filesystem.glob("tiny/**/*.bin"))


def test_info(filesystem: Any, reader: Reader) -> None:
    """A file has its size and digest, a folder is one, and what is not there is not found."""
    file = filesystem.info("custody://tiny/data/a.bin")
    assert ("file", 3 * PART + 5) == (file["type"], file["size"])
    assert reader.file("data/a.bin").sha256 == file["sha256"]
    for path in ("", "tiny", "tiny/data", "tiny/data/deep"):
        assert "directory" == filesystem.info(path)["type"]
    assert filesystem.isdir("tiny/data")
    assert not filesystem.exists("tiny/dat")
    for path in ("other", "tiny/nothing", "other/config.json"):
        with pytest.raises(FileNotFoundError):
            filesystem.info(path)
        with pytest.raises(FileNotFoundError):
            filesystem.ls(path)
        with pytest.raises(FileNotFoundError):
            filesystem.cat_file(path)


def test_ranges(filesystem: Any) -> None:
    """Ranges are slices, also from the end; several are read at once."""
    plain = FILES["data/a.bin"]
    for start, end in ((None, None), (5, 9), (-7, None), (0, -1), (9, 5), (1 << 30, None)):
        assert plain[start:end] == filesystem.cat_file("tiny/data/a.bin", start, end)
    assert [plain[:3], b"hid"] == filesystem.cat_ranges(
        ["tiny/data/a.bin", "tiny/config.json"], [0, 2], [3, 5]
    )


def test_it_is_read_only(filesystem: Any) -> None:
    """Nothing can be written, and a folder is no file."""
    with pytest.raises(OSError, match="read only"):
        filesystem.open("tiny/new", "wb")
    with pytest.raises(NotImplementedError):
        filesystem.rm("tiny/config.json")
    with pytest.raises(IsADirectoryError):
        filesystem.cat_file("tiny/data")
    with pytest.raises(IsADirectoryError):
        filesystem.open("tiny")


def test_a_mount_ends(reader: Reader) -> None:
    """After the block nothing is there, and one name is one bundle's."""
    with mounted(reader, "once"):
        pass
    assert not CustodyFileSystem().exists("once/config.json")
    for name in ("", "a/b"):
        with pytest.raises(ValueError, match="component"), mounted(reader, name):
            pass


def test_a_name_is_one_bundles(reader: Reader, tmp_path: Path) -> None:
    """A second bundle under a name that is taken is refused, and the first one stays."""
    sealed = seal_model(write_model(tmp_path / "other", {"x": b"1"}), tmp_path / "bundle2")
    with mounted(reader, "tiny"), reading(sealed) as other:
        with pytest.raises(Refused) as caught, mounted(other, "tiny"):
            pass
        assert "mount.name" == caught.value.check
        assert CustodyFileSystem().exists("tiny/config.json")
