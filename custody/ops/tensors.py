"""Tensors of a bundle in NumPy's or PyTorch's memory, each read from only the parts it touches.

NumPy has no bfloat16 and no 8-bit floats.  Where the package ``ml_dtypes`` is installed, arrays
have its types; elsewhere they hold the same bits as ``uint16`` and ``uint8``, and
`TensorFile.entry` tells what they mean.  PyTorch has types of its own for them, and a tensor there
shares its memory with an array that nobody else has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from custody.errors import Malformed, Refused, Unavailable
from custody.formats.contents import File
from custody.formats.safetensors import (
    LENGTH_BYTES,
    Header,
    TensorEntry,
    decode_header,
    header_bytes,
)
from custody.ops.progress import Progress, silent

if TYPE_CHECKING:
    from custody.ops.reader import Reader

INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"
_MAX_INDEX_BYTES = 64 << 20
#: What a cache line, AVX-512 and a GPU's copy engine like.
_ALIGNED_BYTES = 64

#: NumPy's type and PyTorch's, by the format's name.
_NUMPY = MappingProxyType(
    {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "I16": "<i2",
        "U16": "<u2",
        "F16": "<f2",
        "I32": "<i4",
        "U32": "<u4",
        "F32": "<f4",
        "I64": "<i8",
        "U64": "<u8",
        "F64": "<f8",
        "C64": "<c8",
    }
)
_ML_DTYPES = MappingProxyType(
    {
        "BF16": ("bfloat16", "<u2"),
        "F8_E4M3": ("float8_e4m3fn", "u1"),
        "F8_E5M2": ("float8_e5m2", "u1"),
        "F8_E8M0": ("float8_e8m0fnu", "u1"),
    }
)
_TORCH = MappingProxyType(
    {
        "BOOL": "bool",
        "U8": "uint8",
        "I8": "int8",
        "I16": "int16",
        "U16": "uint16",
        "F16": "float16",
        "BF16": "bfloat16",
        "I32": "int32",
        "U32": "uint32",
        "F32": "float32",
        "I64": "int64",
        "U64": "uint64",
        "F64": "float64",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
        "F8_E8M0": "float8_e8m0fnu",
    }
)


class TensorFile:
    """The tensors of one safetensors file of a bundle."""

    def __init__(self, reader: Reader, file: File) -> None:
        """Read the header; raises `Malformed` naming the file where it is none."""
        self.name = file.name
        self._reader = reader
        self.header = _read_header(reader, file)
        self._entries = {entry.name: entry for entry in self.header.tensors}

    def names(self) -> tuple[str, ...]:
        """Name the tensors, in the order they lie in the file."""
        return tuple(self._entries)

    def entry(self, name: str) -> TensorEntry:
        """Return a tensor's type, shape and place; raises ``Refused("tensor.name")``."""
        try:
            return self._entries[name]
        except KeyError as error:
            raise _no_tensor(name, self.name) from error

    def array(self, name: str) -> NDArray[Any]:
        """Read one tensor into new memory, aligned to 64 bytes."""
        entry = self.entry(name)
        return _shaped(self._bytes_of(entry), entry)

    def torch(self, name: str) -> Any:
        """Read one tensor into new memory as a `torch.Tensor`; `Unavailable` without torch."""
        entry, torch = self.entry(name), _torch()
        dtype = getattr(torch, _TORCH[entry.dtype], None)
        if dtype is None:
            raise Unavailable(f"this torch has no {_TORCH[entry.dtype]}", where=self.name)
        if not entry.size_bytes:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.from_numpy(self._bytes_of(entry)).view(dtype).reshape(entry.shape)

    def _bytes_of(self, entry: TensorEntry) -> NDArray[np.uint8]:
        data = aligned_bytes(entry.size_bytes)
        self._reader.read_into(self.name, entry.offset, data.data)
        return data


class LazyStateDict(Mapping[str, NDArray[Any]]):
    """All tensors of a model by name, over all its shards; each is read when it is asked for.

    Where the model has an index, it says which shard a tensor is in, and no header is read before
    a tensor of its shard is wanted.  Nothing is kept: asking twice reads twice.
    """

    def __init__(self, reader: Reader, *, folder: str = "", index: str = INDEX) -> None:
        """Take the safetensors files of ``folder``, by its file ``index`` if it has one.

        Raises `Malformed` for an index or header that is none, ``Refused("tensor.twice")`` where,
        without an index, two files have a tensor of one name, and ``Refused("file.name")`` where
        the index names a file that the bundle has not got.
        """
        self._reader = reader
        self._folder = f"{folder}/" if folder else ""
        names = {file.name for file in reader.files()}
        if self._folder + index in names:
            self._shards = self._by_index(self._folder + index)
        else:
            self._shards = self._by_headers()

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._reader.tensor(self._shards[name], name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, name: object) -> bool:
        return name in self._shards

    def torch(self, name: str) -> Any:
        """Read one tensor as a `torch.Tensor`."""
        return self._reader.torch_tensor(self._shards[name], name)

    def entry(self, name: str) -> TensorEntry:
        """Return a tensor's type, shape and place."""
        return self._reader.tensor_file(self._shards[name]).entry(name)

    def shard(self, name: str) -> str:
        """Return the file that a tensor is in."""
        return self._shards[name]

    def _by_index(self, index: str) -> Mapping[str, str]:
        if self._reader.file(index).size_bytes > _MAX_INDEX_BYTES:
            raise Malformed(f"larger than the {_MAX_INDEX_BYTES} bytes allowed", where=index)
        try:
            read = msgspec.json.decode(self._reader.read(index), type=_Index)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Malformed("not an index of safetensors files", where=index) from error
        shards = {name: self._folder + shard for name, shard in read.weight_map.items()}
        for shard in sorted(set(shards.values())):
            self._reader.file(shard)
        return shards

    def _by_headers(self) -> Mapping[str, str]:
        shards: dict[str, str] = {}
        for file in self._reader.files():
            if not file.name.startswith(self._folder) or not file.name.endswith(_SUFFIX):
                continue
            for name in self._reader.tensor_file(file.name).names():
                if shards.setdefault(name, file.name) != file.name:
                    raise Refused(
                        f"has a tensor {name!r}, and so has {shards[name]!r}",
                        check="tensor.twice",
                        where=file.name,
                    )
        return shards


class _Index(msgspec.Struct, frozen=True):
    """As transformers writes it; what else is in it is for others."""

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """One file of a model, whole, in memory."""

    name: str
    data: NDArray[np.uint8]

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Return the tensors of a safetensors file: views of its memory, no copies.

        Except that NumPy wants elements aligned: where the file does not have them so, copies.
        """
        size = len(self.data)
        with _in_file(self.name):
            length = header_bytes(bytes(self.data[:LENGTH_BYTES]), file_size_bytes=size)
            text = bytes(self.data[LENGTH_BYTES : LENGTH_BYTES + length])
            header = decode_header(text, file_size_bytes=size)
        return MappingProxyType({entry.name: self._view(entry) for entry in header.tensors})

    def _view(self, entry: TensorEntry) -> NDArray[Any]:
        data = self.data[entry.offset : entry.offset + entry.size_bytes]
        if data.ctypes.data % numpy_type(entry.dtype).alignment:
            data = _copy(data)
        return _shaped(data, entry)


def load_all(reader: Reader, *, progress: Progress = silent) -> tuple[LoadedFile, ...]:
    """Open a whole bundle into memory, every part once, on all cores; nothing is written.

    Files are vouched for as `Reader.vouched_by` says: no SHA-256 is computed here.
    """
    loaded = [LoadedFile(file.name, aligned_bytes(file.size_bytes)) for file in reader.files()]
    reader.read_many([(file.name, 0, file.data.data) for file in loaded], progress=progress)
    return tuple(loaded)


def aligned_bytes(size_bytes: int) -> NDArray[np.uint8]:
    """Take new memory, not yet filled, that begins at a multiple of 64 bytes."""
    memory = np.empty(size_bytes + _ALIGNED_BYTES, dtype=np.uint8)
    begin = -memory.ctypes.data % _ALIGNED_BYTES
    return memory[begin : begin + size_bytes]


@cache
def numpy_type(dtype: str) -> np.dtype[Any]:
    """Return what an array of a safetensors type has: see the head of this module."""
    if dtype in _NUMPY:
        return np.dtype(_NUMPY[dtype])
    theirs, bits = _ML_DTYPES[dtype]
    try:
        known = getattr(import_module("ml_dtypes"), theirs, bits)
    except ImportError:
        known = bits
    return np.dtype(known)


def _shaped(data: NDArray[np.uint8], entry: TensorEntry) -> NDArray[Any]:
    array: NDArray[Any] = data.view(numpy_type(entry.dtype)).reshape(entry.shape)
    return array


def _copy(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    copied = aligned_bytes(len(data))
    copied[:] = data
    return copied


def _read_header(reader: Reader, file: File) -> Header:
    with _in_file(file.name):
        size = header_bytes(
            reader.read(file.name, 0, LENGTH_BYTES), file_size_bytes=file.size_bytes
        )
        return decode_header(
            reader.read(file.name, LENGTH_BYTES, size), file_size_bytes=file.size_bytes
        )


@contextmanager
def _in_file(name: str) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise Malformed(error.reason, where=name) from error


def _no_tensor(name: str, file: str) -> Refused:
    return Refused(f"has no tensor {name!r}", check="tensor.name", where=file)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ImportError as error:
        raise Unavailable(
            "torch is not installed", hint="pip install torch, or take NumPy arrays"
        ) from error
