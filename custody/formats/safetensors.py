"""The header of a safetensors file: names, types, shapes and places of its tensors.

Follows the format as huggingface/safetensors README.md, "Format", gives it: ``u64le n ‖ n bytes of
JSON ‖ tensors``.  Stricter where it is loose: a key twice, a number that is no plain integer, a
field that is not known, a hole, an overlap, or bytes that belong to no tensor are all `Malformed`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from custody.errors import Malformed

#: Bits of one element, by the format's name of its type; whole bytes only.
DTYPE_BITS = MappingProxyType(
    {
        "BOOL": 8,
        "U8": 8,
        "I8": 8,
        "F8_E4M3": 8,
        "F8_E5M2": 8,
        "F8_E8M0": 8,
        "I16": 16,
        "U16": 16,
        "F16": 16,
        "BF16": 16,
        "I32": 32,
        "U32": 32,
        "F32": 32,
        "I64": 64,
        "U64": 64,
        "F64": 64,
        "C64": 64,
    }
)

LENGTH_BYTES = 8
#: The format's own limit.
MAX_HEADER_BYTES = 100_000_000
MAX_NAME_BYTES = 4096
#: What NumPy took before version 2.
MAX_RANK = 32
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor.  ``offset`` is from the beginning of the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """All tensors, in the order they lie in the file, and what the file says about itself."""

    tensors: tuple[TensorEntry, ...]
    metadata: tuple[tuple[str, str], ...]
    size_bytes: int


def header_bytes(prefix: bytes, *, file_size_bytes: int) -> int:
    """Read the first 8 bytes of a file; return how many bytes of JSON follow."""
    if len(prefix) != LENGTH_BYTES:
        raise Malformed("too short for a safetensors file")
    size = int.from_bytes(prefix, "little")
    if size > MAX_HEADER_BYTES:
        raise Malformed(f"a header of {size} bytes is larger than the {MAX_HEADER_BYTES} allowed")
    if size > file_size_bytes - LENGTH_BYTES:
        raise Malformed("the header does not fit the file")
    return size


def decode_header(data: bytes, *, file_size_bytes: int) -> Header:
    """Read the JSON of a header, without its length; raises `Malformed`."""
    # Padding is spaces, and lies behind.
    text = data.rstrip(b" ")
    if text[:1] != b"{" or text[-1:] != b"}":
        raise Malformed("the header is not one object in braces, padded with spaces")
    try:
        fields = json.loads(
            text.decode(),
            object_pairs_hook=_once,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except RecursionError as error:
        raise Malformed("the header is nested too deep") from error
    except ValueError as error:
        raise Malformed(f"the header is not valid: {_printable(str(error))}") from error
    metadata = _metadata(fields.pop(_METADATA, {}))
    begin = LENGTH_BYTES + len(data)
    tensors = sorted(
        (_entry(name, value, begin) for name, value in fields.items()),
        key=lambda entry: (entry.offset, entry.size_bytes),
    )
    end = begin
    for entry in tensors:
        if entry.offset != end:
            raise _wrong(entry.name, "overlaps another, or leaves a hole before it")
        end += entry.size_bytes
    if end != file_size_bytes:
        raise Malformed(f"tensors end at byte {end}, the file at byte {file_size_bytes}")
    return Header(tensors=tuple(tensors), metadata=metadata, size_bytes=begin)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    # Of two entries of one name, one reader takes the first and another the last.
    if len(fields) != len(pairs):
        raise ValueError("a key is there twice")
    return fields


def _no_number(text: str) -> None:
    raise ValueError(f"a number is not an integer: {text[:40]}")


def _metadata(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise Malformed("the metadata are not strings by name")
    return tuple(value.items())


def _entry(name: str, value: object, begin: int) -> TensorEntry:
    try:
        named_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise _wrong(name, "has a name that is not valid UTF-8") from error
    if named_bytes > MAX_NAME_BYTES:
        raise _wrong(name, f"has a name of more than {MAX_NAME_BYTES} bytes")
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise _wrong(name, "has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _wrong(name, "has a dtype that is not known here")
    # An empty tensor may have a side of any length; NumPy multiplies the others all the same.
    if not _naturals(shape) or len(shape) > MAX_RANK or math.prod(n or 1 for n in shape) >> 56:
        raise _wrong(name, "has a shape that is none")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _wrong(name, "has offsets that are no range")
    size = offsets[1] - offsets[0]
    if 8 * size != math.prod(shape) * DTYPE_BITS[dtype]:
        raise _wrong(name, "has another size than its shape and dtype make")
    return TensorEntry(
        name=name,
        dtype=dtype,
        shape=tuple(shape),
        offset=begin + offsets[0],
        size_bytes=size,
    )


def _naturals(value: object) -> bool:
    # To Python true and false are integers.
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _wrong(name: str, reason: str) -> Malformed:
    return Malformed(f"tensor '{_printable(name)}' {reason}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:80])
