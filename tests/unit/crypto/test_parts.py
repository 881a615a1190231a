from __future__ import annotations

import hashlib
import mmap
import os
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto import parts
from custody.crypto.parts import DEFAULT_PART_SIZE, PART_SIZES, Row
from custody.errors import Malformed, Refused
from tests.unit.crypto.vectors import Vector, each

CEK = bytes(range(32))
PAYLOAD = bytes(range(32, 64))
SALT = bytes(range(24))
SIZE = PART_SIZES[0]


def buffer_of(plaintext: bytes) -> bytearray:
    """Return a part with its 16 spare bytes."""
    return bytearray(plaintext) + bytes(16)


def sealed(plaintext: bytes, index: int = 0, salt: bytes = SALT) -> tuple[bytearray, bytes]:
    """Seal a part and return its buffer and tag."""
    buffer = buffer_of(plaintext)
    return buffer, parts.seal_part(CEK, PAYLOAD, index, buffer, salt=salt)


PART = (
    *("cek", "payload-id", "commitment", "salt", "index", "key", "nonce", "size", "fill"),
    *("ciphertext-sha256", "tag", "row-blake3", "row-sha256"),
)


@each("parts/parts.txt", *PART)
def test_known_parts(vector: Vector) -> None:
    """Known keys, nonces, tags, ciphertexts and rows, and the way back."""
    cek, payload, salt = (bytes.fromhex(vector[name]) for name in ("cek", "payload-id", "salt"))
    index, size = int(vector["index"]), int(vector["size"])
    plaintext = bytes.fromhex(vector["fill"]) * size
    assert vector["commitment"] == parts.cek_commitment(cek, payload).hex()
    key, nonce = parts.part_key(cek, payload, salt, index)
    assert (vector["key"], vector["nonce"]) == (key.hex(), nonce.hex())
    buffer = buffer_of(plaintext)
    tag = parts.seal_part(cek, payload, index, buffer, salt=salt)
    assert vector["tag"] == tag.hex()
    ciphertext = memoryview(buffer)[:size]
    assert vector["ciphertext-sha256"] == hashlib.sha256(ciphertext).hexdigest()
    assert vector["row-blake3"] == parts.row_digest("blake3", index, salt, ciphertext, tag).hex()
    assert vector["row-sha256"] == parts.row_digest("sha256", index, salt, ciphertext, tag).hex()
    parts.open_part(cek, payload, index, buffer, salt=salt, tag=tag)
    assert plaintext == buffer[:size]


@pytest.mark.parametrize("size", PART_SIZES[:7])
def test_round_trip(size: int) -> None:
    """A part of every size opens to what was sealed, in place."""
    plaintext = os.urandom(size)
    buffer, tag = sealed(plaintext, 5)
    assert plaintext != buffer[:size]
    parts.open_part(CEK, PAYLOAD, 5, buffer, salt=SALT, tag=tag)
    assert plaintext == buffer[:size]


def test_the_spare_bytes_are_the_libraries_only() -> None:
    """The tag returned is what counts: the spare bytes behind a part may hold anything."""
    plaintext = os.urandom(SIZE)
    buffer, tag = sealed(plaintext)
    buffer[SIZE:] = b"\xff" * 16
    parts.open_part(CEK, PAYLOAD, 0, buffer, salt=SALT, tag=tag)
    assert plaintext == buffer[:SIZE]


def test_page_aligned_memory() -> None:
    """Anonymous mappings work, as direct reads and writes need them, and can be closed after."""
    with mmap.mmap(-1, SIZE + mmap.PAGESIZE) as pages:
        with memoryview(pages) as view, view[: SIZE + 16] as buffer:
            buffer[:4] = b"data"
            tag = parts.seal_part(CEK, PAYLOAD, 0, buffer, salt=SALT)
            parts.open_part(CEK, PAYLOAD, 0, buffer, salt=SALT, tag=tag)
            assert b"data" == bytes(buffer[:4])
            try:
                parts.open_part(CEK, PAYLOAD, 0, buffer, salt=SALT, tag=bytes(16))
            except Refused as error:
                caught = error
        # Closing the mapping fails if any frame of the refusal still held a view of it.
        pages.close()
    assert "part.tag" == caught.check


def flip(value: bytes, at: int, bit: int) -> bytes:
    """Return ``value`` with one bit flipped."""
    changed = bytearray(value)
    changed[at % len(changed)] ^= 1 << bit
    return bytes(changed)


@settings(deadline=None)
@given(
    at=st.integers(0, SIZE - 1),
    bit=st.integers(0, 7),
    what=st.sampled_from(["cek", "payload", "index", "salt", "tag", "part"]),
)
def test_any_change_zeroes_the_buffer(at: int, bit: int, what: str) -> None:
    """One bit flipped in part, tag, salt, key, payload id or index: refused, buffer all zero."""
    buffer, tag = sealed(b"\xaa" * SIZE, 3)
    cek, payload, salt, index = CEK, PAYLOAD, SALT, 3
    match what:
        case "cek":
            cek = flip(cek, at, bit)
        case "payload":
            payload = flip(payload, at, bit)
        case "index":
            index ^= 1 << at % 24
        case "salt":
            salt = flip(salt, at, bit)
        case "tag":
            tag = flip(tag, at, bit)
        case _:
            buffer[at] ^= 1 << bit
    with pytest.raises(Refused) as caught:
        parts.open_part(cek, payload, index, buffer, salt=salt, tag=tag)
    assert "part.tag" == caught.value.check
    assert not any(buffer)


def test_a_part_opens_into_other_memory() -> None:
    """A part can be opened somewhere else; a bad one leaves zeros there, and only there."""
    buffer, tag = sealed(b"\xaa" * SIZE, 3)
    target = bytearray(SIZE)
    parts.open_part_into(CEK, PAYLOAD, 3, buffer, target, salt=SALT, tag=tag)
    assert b"\xaa" * SIZE == target

    buffer[5] ^= 1
    before = bytes(buffer[:SIZE])
    with pytest.raises(Refused) as caught:
        parts.open_part_into(CEK, PAYLOAD, 3, buffer, target, salt=SALT, tag=tag)
    assert "part.tag" == caught.value.check
    assert not any(target)
    assert before == buffer[:SIZE]
    with pytest.raises(ValueError, match="target"):
        parts.open_part_into(CEK, PAYLOAD, 3, buffer, target[1:], salt=SALT, tag=tag)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (SIZE, "buffer"),
        (SIZE + 15, "buffer"),
        (SIZE + 17, "buffer"),
        (3 * SIZE + 16, "buffer"),
        (16, "buffer"),
        (0, "buffer"),
    ],
)
def test_wrong_buffers(size: int, message: str) -> None:
    """A buffer that is not one part and 16 bytes is an error, not a part of another size."""
    with pytest.raises(ValueError, match=message):
        parts.seal_part(CEK, PAYLOAD, 0, bytearray(size), salt=SALT)
    with pytest.raises(ValueError, match=message):
        parts.open_part(CEK, PAYLOAD, 0, bytearray(size), salt=SALT, tag=bytes(16))


def test_wrong_lengths() -> None:
    """Keys, ids, salts, tags and indexes of the wrong size are errors everywhere."""
    with pytest.raises(ValueError, match="32 bytes each"):
        parts.part_key(CEK[:31], PAYLOAD, SALT, 0)
    with pytest.raises(ValueError, match="32 bytes each"):
        parts.cek_commitment(CEK, PAYLOAD + b"x")
    with pytest.raises(ValueError, match="24 bytes"):
        parts.part_key(CEK, PAYLOAD, SALT[:23], 0)
    for index in (-1, 1 << 24):
        with pytest.raises(ValueError, match="below"):
            parts.part_key(CEK, PAYLOAD, SALT, index)
    with pytest.raises(ValueError, match="16 bytes"):
        parts.open_part(CEK, PAYLOAD, 0, bytearray(SIZE + 16), salt=SALT, tag=bytes(15))
    with pytest.raises(ValueError, match="16 bytes"):
        parts.row_digest("blake3", 0, SALT, b"", bytes(17))
    with pytest.raises(ValueError, match="blake3 or sha256"):
        parts.row_digest("md5", 0, SALT, b"", bytes(16))  # type: ignore[arg-type]


def test_key_commitment() -> None:
    """A CEK is accepted only with its payload's commitment, which is no part's key."""
    right = parts.cek_commitment(CEK, PAYLOAD)
    parts.check_cek(CEK, PAYLOAD, right)
    for cek, payload, committed in (
        (flip(CEK, 0, 0), PAYLOAD, right),
        (CEK, flip(PAYLOAD, 31, 7), right),
        (CEK, PAYLOAD, flip(right, 31, 0)),
        (CEK, PAYLOAD, b""),
    ):
        with pytest.raises(Refused) as caught:
            parts.check_cek(cek, payload, committed)
        assert "cek.commitment" == caught.value.check


@given(
    st.lists(
        st.tuples(st.binary(min_size=24, max_size=24), st.integers(0, 2**24 - 1)),
        unique=True,
        min_size=2,
        max_size=50,
    )
)
def test_no_two_parts_share_a_key(places: list[tuple[bytes, int]]) -> None:
    """Another salt or another index is another key, so no nonce can repeat under one."""
    keys = {parts.part_key(CEK, PAYLOAD, salt, index)[0] for salt, index in places}
    assert len(places) == len(keys)


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_a_row_covers_everything(algorithm: parts.DigestAlgorithm) -> None:
    """Index, salt, ciphertext and tag each change the row's digest."""
    digests = {
        parts.row_digest(algorithm, 0, SALT, b"part", bytes(16)),
        parts.row_digest(algorithm, 1, SALT, b"part", bytes(16)),
        parts.row_digest(algorithm, 0, flip(SALT, 0, 0), b"part", bytes(16)),
        parts.row_digest(algorithm, 0, SALT, b"pbrt", bytes(16)),
        parts.row_digest(algorithm, 0, SALT, b"part", bytes(15) + b"\1"),
    }
    assert 5 == len(digests)


@given(st.binary(min_size=72, max_size=72))
def test_rows_round_trip(data: bytes) -> None:
    """Any 72 bytes are a row that packs to the same bytes."""
    row = Row.unpack(memoryview(data))
    assert data == row.pack()
    assert row == Row(salt=data[:24], tag=data[24:40], digest=data[40:])


@pytest.mark.parametrize("size", [0, 71, 73, 144])
def test_rows_have_72_bytes(size: int) -> None:
    """A row of any other length is malformed."""
    with pytest.raises(Malformed):
        Row.unpack(bytes(size))


def test_a_row_packs_only_its_own_sizes() -> None:
    """Fields of the wrong length do not pack, even if they add up to 72."""
    for lengths in ((24, 16, 31), (25, 15, 32), (23, 17, 32)):
        salt, tag, digest = map(bytes, lengths)
        with pytest.raises(ValueError, match="a row has"):
            Row(salt=salt, tag=tag, digest=digest).pack()


# ── padding ──────────────────────────────────────────────────────────────────────────────────────
@each("parts/padme.txt", "size", "padded")
def test_known_padme(vector: Vector) -> None:
    """Known sizes pad to the known ones."""
    assert int(vector["padded"]) == parts.padme(int(vector["size"]))


@given(st.integers(1, 2**50), st.integers(0, 2**20))
def test_padme(size: int, more: int) -> None:
    """Padding never shrinks, costs under 12 %, keeps order, and padding twice changes nothing."""
    padded = parts.padme(size)
    assert size <= padded <= size * 1.12
    assert padded == parts.padme(padded)
    assert padded <= parts.padme(size + more)


def test_padme_hides_all_but_a_few_bits() -> None:
    """From 1 to 2 MiB there are only 16 sizes to be seen."""
    seen = {parts.padme(size) for size in range(1 << 20, 1 << 21, 997)}
    assert len(seen) <= 33


def test_padded_parts() -> None:
    """A payload has whole parts, never none, and as many as its padded size fills."""
    assert [1, 1, 1, 2] == [parts.padded_parts(n, SIZE) for n in (0, 1, SIZE, SIZE + 1)]
    assert parts.padme(10**10) <= parts.padded_parts(10**10, DEFAULT_PART_SIZE) << 22
    with pytest.raises(Refused) as caught:
        parts.padded_parts((1 << 40) + 1, SIZE)
    assert "parts.count" == caught.value.check
    assert parts.padded_parts(1 << 40, SIZE) == 1 << 24
    with pytest.raises(ValueError, match="power of two"):
        parts.padded_parts(1, 3 << 20)


# ── the hot path ─────────────────────────────────────────────────────────────────────────────────
def test_no_copy_of_a_part_is_made() -> None:
    """Sealing, digesting and opening 4 MiB allocates under 64 KiB; a refusal, one part of zeros."""
    buffer = bytearray(DEFAULT_PART_SIZE + 16)

    def peak(act: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def seal_and_open() -> None:
        tag = parts.seal_part(CEK, PAYLOAD, 0, buffer, salt=SALT)
        with memoryview(buffer) as view, view[:DEFAULT_PART_SIZE] as part:
            parts.row_digest("blake3", 0, SALT, part, tag)
            parts.row_digest("sha256", 0, SALT, part, tag)
        parts.open_part(CEK, PAYLOAD, 0, buffer, salt=SALT, tag=tag)

    def refuse() -> None:
        with pytest.raises(Refused):
            parts.open_part(CEK, PAYLOAD, 0, buffer, salt=SALT, tag=bytes(16))

    assert peak(seal_and_open) < 64 << 10
    assert peak(refuse) < DEFAULT_PART_SIZE + (1 << 20)


def test_threads_do_not_meet() -> None:
    """Eight threads with a buffer each seal what one does."""
    plaintext = [bytes([n]) * SIZE for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda n: sealed(plaintext[n], n), range(64)))
    assert [sealed(plaintext[n], n) for n in range(64)] == together
