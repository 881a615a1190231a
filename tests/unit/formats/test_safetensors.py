"""Headers of safetensors files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from custody.errors import Malformed
from custody.formats.safetensors import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    Header,
    decode_header,
    header_bytes,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below),
    max_leaves=12,
)


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> Any:
    """Describe a tensor of bytes."""
    return {"dtype": dtype, "shape": shape or [end - begin], "data_offsets": [begin, end]}


def read(header: bytes | dict[str, Any], data_bytes: int = 0) -> Header:
    """Read a header as that of a file with so many bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = header_bytes(len(text).to_bytes(8, "little"), file_size_bytes=8 + len(text) + data_bytes)
    assert size == len(text)
    return decode_header(text, file_size_bytes=8 + len(text) + data_bytes)


def refusal(header: bytes | dict[str, Any], data_bytes: int = 0) -> str:
    """Return why a header is malformed."""
    with pytest.raises(Malformed) as caught:
        read(header, data_bytes)
    return caught.value.reason


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(
            st.sampled_from(["u1", "i1", "<i2", "<f2", "<f4", "<f8", "<i8", "?"]),
            st.lists(st.integers(0, 4), max_size=4),
        ),
        max_size=6,
    ),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_what_the_reference_writes(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str]
) -> None:
    """Every file that the reference implementation writes is read, as what was written."""
    arrays = {
        name: np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
        for name, (dtype, shape) in tensors.items()
    }
    # With empty metadata 0.8.0 writes two objects in one file, which no JSON reader takes.
    file = save(arrays, metadata=metadata or None)
    size = header_bytes(file[:8], file_size_bytes=len(file))
    header = decode_header(file[8 : 8 + size], file_size_bytes=len(file))
    assert arrays.keys() == {tensor.name for tensor in header.tensors}
    assert metadata == dict(header.metadata)
    for tensor in header.tensors:
        wanted = arrays[tensor.name]
        assert wanted.shape == tensor.shape
        assert wanted.tobytes() == file[tensor.offset : tensor.offset + tensor.size_bytes]


@given(st.binary(max_size=64))
@example(b"")
@example(b"{")
@example(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}")
@example(b'{"a":' * 100_000)
@example(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}')
def test_noise_is_malformed(data: bytes) -> None:
    """Bytes that are no header are `Malformed`, whatever they are, or an empty header."""
    try:
        header = read(data)
    except Malformed:
        return
    assert () == header.tensors


@given(st.dictionaries(st.text(max_size=8), JSON, min_size=1, max_size=4))
def test_other_json_is_malformed(fields: dict[str, Any]) -> None:
    """JSON of another shape is `Malformed`, never an error of Python's."""
    assert refusal({"tensor": 1, **fields} if "tensor" not in fields else {"x": 1})


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_every_type_has_its_size(dtype: str) -> None:
    """A tensor of every type takes its elements' size, and one byte more is malformed."""
    size = 6 * DTYPE_BITS[dtype] // 8
    read({"t": entry(0, size, [2, 3], dtype)}, size)
    assert "another size" in refusal({"t": entry(0, size + 1, [2, 3], dtype)}, size + 1)


def test_order_is_of_place() -> None:
    """Tensors come in the order they lie in; padding behind the header is allowed."""
    text = json.dumps({"b": entry(4, 6), "a": entry(0, 4), "e": entry(4, 4, [0])}).encode()
    header = read(text + b"    ", 6)
    assert ["a", "e", "b"] == [tensor.name for tensor in header.tensors]
    assert len(text) + 12 == header.size_bytes
    assert header.size_bytes == header.tensors[0].offset


@pytest.mark.parametrize(
    ("header", "data_bytes", "why"),
    [
        ({"a": entry(0, 4), "b": entry(3, 6)}, 6, "overlaps"),
        ({"a": entry(0, 4), "b": entry(5, 6)}, 6, "hole"),
        ({"a": entry(1, 4)}, 4, "hole"),
        ({"a": entry(0, 4)}, 5, "end at byte"),
        ({"a": entry(0, 4)}, 3, "end at byte"),
        ({}, 1, "end at byte"),
        ({"a": {**entry(0, 1), "extra": 1}}, 1, "other fields"),
        ({"a": {"dtype": "U8", "shape": [1]}}, 1, "other fields"),
        ({"a": [1]}, 1, "other fields"),
        ({"a": entry(0, 1, [1], "F4")}, 1, "not known"),
        ({"a": entry(0, 1, [1], "u8")}, 1, "not known"),
        ({"a": {**entry(0, 1), "dtype": ["U8"]}}, 1, "not known"),
        ({"a": entry(0, 1, [True])}, 1, "shape"),
        ({"a": entry(0, 1, [-1])}, 1, "shape"),
        ({"a": entry(0, 1, [1] * 33)}, 1, "shape"),
        ({"a": entry(0, 0, [0, 1 << 62])}, 0, "shape"),
        ({"a": {**entry(0, 1), "shape": 1}}, 1, "shape"),
        ({"a": {**entry(0, 1), "data_offsets": [1, 0]}}, 1, "no range"),
        ({"a": {**entry(0, 1), "data_offsets": [0]}}, 1, "no range"),
        ({"a": {**entry(0, 1), "data_offsets": [-1, 0]}}, 1, "no range"),
        ({"a" * 5000: entry(0, 1)}, 1, "4096"),
        (b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "UTF-8"),
        ({"__metadata__": {"a": 1}}, 0, "metadata"),
        ({"__metadata__": "a"}, 0, "metadata"),
        (b'{"a":1,"a":2}', 0, "twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1, "twice"),
        (b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', 1, "integer"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', 1, "integer"),
        (b" {}", 0, "braces"),
        (b"{}\n", 0, "braces"),
        (b"[]", 0, "braces"),
        (b'{"\xff":1}', 0, "not valid"),
    ],
)
def test_what_is_refused(header: bytes | dict[str, Any], data_bytes: int, why: str) -> None:
    """Every header that two readers could read differently is malformed, for its own reason."""
    assert why in refusal(header, data_bytes)


def test_lengths_that_cannot_be() -> None:
    """A header past the format's limit, or past the file, is refused before it is read."""
    for prefix, size, why in (
        (b"\x00" * 7, 100, "too short"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 1 << 40, "larger"),
        ((2**64 - 1).to_bytes(8, "little"), 1 << 40, "larger"),
        ((93).to_bytes(8, "little"), 100, "fit"),
    ):
        with pytest.raises(Malformed, match=why):
            header_bytes(prefix, file_size_bytes=size)


def test_reasons_are_printable() -> None:
    """A name's escape sequences do not reach anybody's terminal."""
    reason = refusal({"\x1b[2Jwipe": entry(0, 1, [2])}, 1)
    assert reason.isprintable()
    assert "wipe" in reason
