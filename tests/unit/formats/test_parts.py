"""The table of parts, and the worked example of its specification."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody import formats
from custody.crypto.parts import (
    ROW_BYTES,
    Row,
    cek_commitment,
    padded_parts,
    part_key,
    row_digest,
    seal_part,
)
from custody.errors import Refused
from custody.formats.parts import PartTable, check_parts_size, decode_parts, plaintext_digest

SPECIFICATION = (Path(formats.__file__).parent / "parts.md").read_text(encoding="utf-8")
CEK, PAYLOAD_ID = bytes(range(32)), bytes(range(32, 64))
PART = 1 << 16
PLAINTEXT = (b"\xa5" * PART, b'{"layers":2}\n'.ljust(PART, b"\0"))


def in_specification(data: bytes) -> bool:
    """Whether the document has these bytes in hexadecimal, in one piece or two of 16 bytes."""
    text = data.hex()
    return text in SPECIFICATION or f"{text[:32]}` `{text[32:]}" in SPECIFICATION


def test_worked_example() -> None:
    """Every value of the specification's example is what the program computes."""
    rows = b""
    for index, plaintext in enumerate(PLAINTEXT):
        salt = bytes([0x40 + index]) * 24
        buffer = bytearray(plaintext + bytes(16))
        tag = seal_part(CEK, PAYLOAD_ID, index, buffer, salt=salt)
        ciphertext = bytes(buffer[:PART])
        blake, sha = (
            row_digest("blake3", index, salt, ciphertext, tag),
            row_digest("sha256", index, salt, ciphertext, tag),
        )
        for value in (*part_key(CEK, PAYLOAD_ID, salt, index), ciphertext[:16], tag, blake, sha):
            assert in_specification(value)
        rows += Row(salt=salt, tag=tag, digest=blake).pack()
    assert f"partsRoot      {PartTable(rows).root()}" in SPECIFICATION
    assert f"cekCommitment  {cek_commitment(CEK, PAYLOAD_ID).hex()}" in SPECIFICATION
    assert 2 == padded_parts(PART + 13, PART)


def _naive_root(rows: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(rows) == 1:
        return hashlib.sha256(b"\0" + rows[0]).digest()
    half = 1
    while half * 2 < len(rows):
        half *= 2
    sides = _naive_root(rows[:half]) + _naive_root(rows[half:])
    return hashlib.sha256(b"\1" + sides).digest()


ROWS = st.lists(st.binary(min_size=ROW_BYTES, max_size=ROW_BYTES), min_size=1, max_size=20)


@given(ROWS)
def test_reads_what_was_written(rows: list[bytes]) -> None:
    """A table gives back every row, under the tree head that RFC 6962 defines."""
    root = _naive_root(rows).hex()
    table = decode_parts(b"".join(rows), part_count=len(rows), parts_root=root)
    assert rows == [table.row(index).pack() for index in range(len(table))]


@given(ROWS, st.data())
def test_any_other_table_is_refused(rows: list[bytes], data: st.DataObject) -> None:
    """One bit changed, or any length but the right one, is refused by name."""
    good = b"".join(rows)
    root = _naive_root(rows).hex()
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    flipped = (int.from_bytes(good, "big") ^ (1 << bit)).to_bytes(len(good), "big")
    with pytest.raises(Refused) as refused:
        decode_parts(flipped, part_count=len(rows), parts_root=root)
    assert "parts.root" == refused.value.check
    size = data.draw(st.integers(0, 2 * len(good)).filter(lambda n: n != len(good)))
    with pytest.raises(Refused) as refused:
        decode_parts((good + good)[:size], part_count=len(rows), parts_root=root)
    assert "parts.size" == refused.value.check


def test_size_is_known_before_reading() -> None:
    """The size of a table follows from the count of parts."""
    check_parts_size(72 << 24, part_count=1 << 24)
    with pytest.raises(Refused, match="has 73 bytes where 1 parts need 72") as refused:
        check_parts_size(73, part_count=1)
    assert "parts.size" == refused.value.check


@pytest.mark.parametrize("size", [0, 71, 73, 72 * 3 - 1])
def test_half_rows_are_no_table(size: int) -> None:
    """A table is made of whole rows."""
    with pytest.raises(ValueError, match="rows of 72 bytes"):
        PartTable(bytes(size))


@pytest.mark.parametrize("index", [-1, 2])
def test_rows_outside_the_table(index: int) -> None:
    """There is no row before the first and none after the last."""
    with pytest.raises(IndexError):
        PartTable(bytes(144)).row(index)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("blake3", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
    ],
)
def test_plaintext_digest(algorithm: str, digest: str) -> None:
    """A part's plaintext is digested with the algorithm that the core names."""
    found = plaintext_digest("sha256" if algorithm == "sha256" else "blake3", b"")
    assert bytes.fromhex(digest) == found
