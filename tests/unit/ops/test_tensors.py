"""Tensors of a bundle in NumPy's and PyTorch's memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save

from custody.crypto.parts import ROW_BYTES
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.safetensors import DTYPE_BITS
from custody.ops.tensors import (
    INDEX,
    LazyStateDict,
    aligned_bytes,
    load_all,
    numpy_type,
)
from tests.unit.ops.bundles import PART, Sealed, noise, seal_model, write_model
from tests.unit.ops.test_reader import Counted, reading

DTYPES = ("u1", "i1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8", "?")
needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")


def filled(count: int, dtype: str = "<f4", seed: int = 1) -> NDArray[Any]:
    """Numbers that are the same every time, and no two tensors'."""
    kind = np.dtype(dtype)
    if dtype == "?":
        odd: NDArray[np.bool_] = np.frombuffer(noise(count, seed), dtype="u1") % 2 == 1
        return odd
    return np.frombuffer(noise(count * kind.itemsize, seed), dtype=kind)


def raw(dtype: str, data: bytes) -> bytes:
    """Write a file with one tensor of a type that NumPy has not got."""
    shape = [len(data) * 8 // DTYPE_BITS[dtype]]
    header = json.dumps(
        {"t": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + data


def seal(folder: Path, files: Mapping[str, bytes]) -> Sealed:
    """Seal files as a model."""
    return seal_model(write_model(folder / "model", files), folder / "bundle")


SHARDS = {
    "model-1.safetensors": {
        "embed": filled(PART, seed=2).reshape(256, -1),
        "norm": filled(7, "<f2", 3),
        "scale": filled(1, "<f8", 4).reshape(()),
        "none": filled(0, "<i8").reshape(0, 3),
    },
    "model-2.safetensors": {
        "head": filled(3 * PART // 4 + 1, seed=5),
        "mask": filled(100, "?", 6).reshape(10, 10),
    },
}
EVERY = {name: array for shard in SHARDS.values() for name, array in shard.items()}
INDEXED = {
    INDEX: json.dumps(
        {
            "metadata": {"total_size": 1},
            "weight_map": {t: file for file, shard in SHARDS.items() for t in shard},
        }
    ).encode()
}


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """A model of two shards with an index, and something else."""
    files = {name: save(shard) for name, shard in SHARDS.items()}
    return seal(tmp_path, {**files, **INDEXED, "config.json": b"{}"})


def same(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two arrays are the same in type, shape and every bit."""
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(
        st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8),
        st.tuples(
            st.sampled_from(DTYPES),
            st.one_of(st.integers(0, 50), st.sampled_from([PART // 8, PART, 2 * PART])),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_tensors_are_what_the_reference_reads(tensors: dict[str, tuple[str, int]]) -> None:
    """Every tensor of any file is, bit for bit, what the reference implementation reads."""
    arrays = {
        name: filled(count, dtype, seed)
        for seed, (name, (dtype, count)) in enumerate(tensors.items())
    }
    file = save(arrays)
    with tempfile.TemporaryDirectory() as folder:
        sealed = seal(Path(folder), {"model.safetensors": file, "other": noise(777)})
        with reading(sealed) as reader:
            for name, array in load(file).items():
                found = reader.tensor("model.safetensors", name)
                assert same(array, found)
                assert not found.nbytes or not found.ctypes.data % 64
                assert found.flags.writeable


def test_a_tensor_costs_its_bytes_and_two_parts(sealed: Sealed) -> None:
    """Once a header is known, a tensor is read from less than its own bytes and two parts."""
    for file, shard in SHARDS.items():
        for name, array in shard.items():
            source = Counted(sealed)
            with reading(sealed, source) as reader:
                reader.tensor_file(file)
                before, parts = source.bytes_read, len(source.parts)
                reader.tensor(file, name)
                rows = (len(source.parts) - parts) * ROW_BYTES
                assert source.bytes_read - before - rows < array.nbytes + 2 * PART


def test_the_first_tensor_of_a_file(sealed: Sealed) -> None:
    """The first tensor of a file, header and all, is read from its bytes and two parts."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        found = reader.tensor(
            "model-1.safetensors", reader.tensor_file("model-1.safetensors").names()[0]
        )
    assert source.bytes_read <= found.nbytes + 2 * (PART + ROW_BYTES)


@pytest.mark.parametrize(("dtype", "bits"), [("BF16", "<u2"), ("F8_E4M3", "u1"), ("F8_E5M2", "u1")])
def test_types_that_numpy_lacks(tmp_path: Path, dtype: str, bits: str) -> None:
    """A bfloat16 or 8-bit float tensor keeps its bits, under ml_dtypes' type or an unsigned one."""
    data = noise(64)
    with reading(seal(tmp_path, {"m.safetensors": raw(dtype, data)})) as reader:
        array = reader.tensor("m.safetensors", "t")
        assert data == array.tobytes()
        assert numpy_type(dtype) == array.dtype
        assert np.dtype(bits).itemsize == array.dtype.itemsize
        if not find_spec("ml_dtypes"):
            assert np.dtype(bits) == array.dtype
        assert dtype == reader.tensor_file("m.safetensors").entry("t").dtype


def test_every_type_has_an_array() -> None:
    """Every type of the format has one of NumPy's, of the same size."""
    for dtype, bits in DTYPE_BITS.items():
        assert bits == 8 * numpy_type(dtype).itemsize


def test_what_is_no_tensor(sealed: Sealed) -> None:
    """A tensor that is not there and a file that is no safetensors file are told, by name."""
    with reading(sealed) as reader:
        with pytest.raises(Refused) as caught:
            reader.tensor("model-1.safetensors", "head")
        assert ("tensor.name", "model-1.safetensors") == (caught.value.check, caught.value.where)
        with pytest.raises(Malformed) as malformed:
            reader.tensor("config.json", "head")
        assert "config.json" == malformed.value.where


# ── a state dict ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("indexed", [True, False])
def test_a_lazy_state_dict(tmp_path: Path, indexed: bool) -> None:  # noqa: FBT001
    """All tensors of all shards are there by name, with an index and without."""
    files = {name: save(shard) for name, shard in SHARDS.items()}
    with reading(seal(tmp_path, {**files, **(INDEXED if indexed else {})})) as reader:
        state = LazyStateDict(reader)
        assert len(EVERY) == len(state)
        assert "head" in state
        assert "tail" not in state
        assert EVERY.keys() == set(state)
        assert all(same(EVERY[name], array) for name, array in state.items())
        assert "model-2.safetensors" == state.shard("head")
        assert (256, PART // 256) == state.entry("embed").shape
        with pytest.raises(KeyError):
            state["tail"]


def test_an_index_saves_reading_headers(sealed: Sealed) -> None:
    """With an index nothing of a shard is read before one of its tensors is wanted."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        state = LazyStateDict(reader)
        shards = {f.name: f.offset // PART for f in reader.files() if f.name in SHARDS}
        assert not set(shards.values()) & set(source.parts)
        state["mask"]
        assert shards["model-1.safetensors"] not in source.parts


def test_a_folder_of_a_model(tmp_path: Path) -> None:
    """The state dict of a folder has that folder's shards only."""
    files = {
        "unet/m.safetensors": save({"a": filled(3)}),
        "vae/m.safetensors": save({"a": filled(4)}),
    }
    with reading(seal(tmp_path, files)) as reader:
        assert (3,) == LazyStateDict(reader, folder="unet")["a"].shape
        with pytest.raises(Refused) as caught:
            LazyStateDict(reader)
        assert ("tensor.twice", "vae/m.safetensors") == (caught.value.check, caught.value.where)


@pytest.mark.parametrize("index", [b"{}", b"[]", b"{", b'{"weight_map":{"a":1}}', b"\xff"])
def test_an_index_that_is_none(tmp_path: Path, index: bytes) -> None:
    """An index that is not a map of names to files is malformed, by name."""
    with reading(seal(tmp_path, {INDEX: index})) as reader, pytest.raises(Malformed) as caught:
        LazyStateDict(reader)
    assert INDEX == caught.value.where


def test_an_index_of_files_that_are_not_there(tmp_path: Path) -> None:
    """An index that names a file the bundle has not got is refused before any tensor is read."""
    index = b'{"weight_map":{"a":"m.safetensors"}}'
    with reading(seal(tmp_path, {INDEX: index})) as reader, pytest.raises(Refused) as caught:
        LazyStateDict(reader)
    assert ("file.name", "m.safetensors") == (caught.value.check, caught.value.where)


# ── everything at once ─────────────────────────────────────────────────────────────────────────


def test_a_whole_bundle_in_memory(sealed: Sealed) -> None:
    """Loading all opens every part once; tensors are views of the files, aligned for NumPy."""
    source = Counted(sealed)
    with reading(sealed, source) as reader:
        loaded = {file.name: file for file in load_all(reader)}
        assert "publisher" == reader.vouched_by
    assert len(source.parts) == len(set(source.parts))
    assert b"{}" == loaded["config.json"].data.tobytes()
    for file, shard in SHARDS.items():
        found = loaded[file].tensors()
        assert shard.keys() == found.keys()
        assert all(same(array, found[name]) for name, array in shard.items())
        assert all(array.flags.aligned for array in found.values())
    assert np.shares_memory(loaded["model-1.safetensors"].data, found_embed(loaded))
    with pytest.raises(Malformed) as caught:
        loaded["config.json"].tensors()
    assert "config.json" == caught.value.where


def found_embed(loaded: Mapping[str, Any]) -> NDArray[Any]:
    """Return one large tensor of a loaded model."""
    array: NDArray[Any] = loaded["model-1.safetensors"].tensors()["embed"]
    return array


def test_a_file_that_is_not_aligned(tmp_path: Path) -> None:
    """Where a file has its numbers at odd places, tensors are aligned copies."""
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
    header += b'"b":{"dtype":"F64","shape":[2],"data_offsets":[1,17]}}'
    data = noise(17)
    file = len(header).to_bytes(8, "little") + header + data
    with reading(seal(tmp_path, {"m.safetensors": file})) as reader:
        (loaded,) = load_all(reader)
        array = loaded.tensors()["b"]
        assert array.flags.aligned
        assert data[1:] == array.tobytes()
        assert data[1:] == reader.tensor("m.safetensors", "b").tobytes()


@given(st.integers(0, 1000))
def test_memory_is_aligned(size: int) -> None:
    """New memory has the size asked for, and begins at a multiple of 64 bytes."""
    memory = aligned_bytes(size)
    assert size == len(memory)
    assert not size or not memory.ctypes.data % 64


# ── torch ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_without_torch(sealed: Sealed) -> None:
    """Where there is no torch, asking for its tensors says so, and what to do."""
    with reading(sealed) as reader, pytest.raises(Unavailable) as caught:
        reader.torch_tensor("model-2.safetensors", "head")
    assert "torch is not installed" == caught.value.reason


@needs_torch
def test_torch_tensors(sealed: Sealed, tmp_path: Path) -> None:
    """PyTorch's tensors have the same numbers, and its own type for bfloat16."""
    import torch  # type: ignore[import-not-found,unused-ignore]

    with reading(sealed) as reader:
        state = LazyStateDict(reader)
        for name, array in EVERY.items():
            assert same(array, state.torch(name).numpy())
    data = noise(64)
    with reading(seal(tmp_path / "b", {"m.safetensors": raw("BF16", data)})) as reader:
        tensor = reader.torch_tensor("m.safetensors", "t")
        assert torch.bfloat16 == tensor.dtype
        assert data == tensor.view(torch.int16).numpy().tobytes()
