"""The payload's parts: one AES-256-GCM message each.  Protocol: docs/protocol.md section 3.3.

A buffer holds one part and 16 spare bytes behind it, where the library wants the tag; the part is
sealed and opened in place, so ciphertext lies at the plaintext's offset and no second copy of a
model is ever in memory.  The lock of the interpreter is released throughout.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from custody.crypto.secret import Octets, wipe
from custody.errors import Malformed, Refused

#: Plaintext sizes a part may have: the powers of two from 64 KiB to 64 MiB.
PART_SIZES = tuple(1 << n for n in range(16, 27))
DEFAULT_PART_SIZE = 4 << 20
MAX_PARTS = 1 << 24
SALT_BYTES = 24
TAG_BYTES = 16
DIGEST_BYTES = 32
#: salt ‖ tag ‖ digest.
ROW_BYTES = SALT_BYTES + TAG_BYTES + DIGEST_BYTES

DigestAlgorithm = Literal["blake3", "sha256"]

_PART = b"custody/v1/part\x00"
_COMMIT = b"custody/v1/commit\x00"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_BYTES = 32
_SHA512 = hashes.SHA512()
_SIZES = frozenset(PART_SIZES)


def cek_commitment(cek: Octets, payload_id: bytes) -> bytes:
    """Commit to a CEK (32 bytes): HKDF-Expand-SHA512 (RFC 5869 section 2.3)."""
    # AES-GCM commits to no key: without this, a publisher could make one ciphertext that two
    # environments open to two different models under one signature.
    _check_lengths(cek, payload_id)
    return HKDFExpand(_SHA512, DIGEST_BYTES, _COMMIT + payload_id).derive(cek)


def check_cek(cek: Octets, payload_id: bytes, commitment: bytes) -> None:
    """Refuse a CEK that is not the committed one, before anything is opened with it."""
    if not hmac.compare_digest(cek_commitment(cek, payload_id), commitment):
        raise Refused("the content key is not the one committed to", check="cek.commitment")


def part_key(cek: Octets, payload_id: bytes, salt: bytes, index: int) -> tuple[bytes, bytes]:
    """Derive the key (32 bytes) and nonce (12 bytes) of part ``index``.

    HKDF-Expand-SHA512(CEK, "custody/v1/part" ‖ 00 ‖ salt ‖ payload id ‖ u64be index, 44).
    """
    # The salt is fresh for every sealing, so a part sealed again after its source changed, or
    # after a crash, gets another key: no nonce can repeat under one key.
    _check_lengths(cek, payload_id)
    if len(salt) != SALT_BYTES:
        raise ValueError("a part's salt has 24 bytes")
    if not 0 <= index < MAX_PARTS:
        raise ValueError("a part's index is below 2**24")
    info = _PART + salt + payload_id + index.to_bytes(8, "big")
    material = HKDFExpand(_SHA512, _KEY_BYTES + _NONCE_BYTES, info).derive(cek)
    return material[:_KEY_BYTES], material[_KEY_BYTES:]


def seal_part(
    cek: Octets,
    payload_id: bytes,
    index: int,
    buffer: bytearray | memoryview,
    *,
    salt: bytes,
) -> bytes:
    """Seal the part in ``buffer`` (part size + 16 bytes) in place and return its tag (16 bytes).

    The ciphertext replaces the part; the 16 spare bytes are overwritten.
    """
    size = _part_size(buffer)
    key, nonce = part_key(cek, payload_id, salt, index)
    with memoryview(buffer) as view, view[:size] as part:
        AESGCM(key).encrypt_into(nonce, part, None, view)
        return bytes(view[size:])


def open_part(
    cek: Octets,
    payload_id: bytes,
    index: int,
    buffer: bytearray | memoryview,
    *,
    salt: bytes,
    tag: bytes,
) -> None:
    """Open the part in ``buffer`` (part size + 16 bytes) in place.

    On a wrong tag the whole buffer is zeroed and ``part.tag`` refused.
    """
    with memoryview(buffer) as view, view[: _part_size(buffer)] as part:
        try:
            open_part_into(cek, payload_id, index, view, part, salt=salt, tag=tag)
        except Refused:
            wipe(view)
            raise


def open_part_into(
    cek: Octets,
    payload_id: bytes,
    index: int,
    sealed: bytearray | memoryview,
    target: bytearray | memoryview,
    *,
    salt: bytes,
    tag: bytes,
) -> None:
    """Open the part in ``sealed`` (part size + 16 bytes) into ``target`` (part size).

    ``target`` is the beginning of ``sealed``, or lies apart from it; the 16 spare bytes are
    overwritten.  On a wrong tag ``target`` is zeroed and ``part.tag`` refused.
    """
    size = _part_size(sealed)
    if len(tag) != TAG_BYTES or len(target) != size:
        raise ValueError("a part's tag has 16 bytes, and its target the size of the part")
    key, nonce = part_key(cek, payload_id, salt, index)
    with memoryview(sealed) as view, memoryview(target) as part:
        view[size:] = tag
        try:
            AESGCM(key).decrypt_into(nonce, view, None, part)
        except InvalidTag as error:
            # The library has already written what it decrypted: plaintext of an attacker's
            # choosing (CTR mode is malleable) that must not reach a file or a hash.
            wipe(part)
            raise Refused(f"part {index} was changed", check="part.tag") from error


def is_part(
    cek: Octets,
    payload_id: bytes,
    index: int,
    buffer: bytearray | memoryview,
    *,
    salt: bytes,
    tag: bytes,
) -> bool:
    """Whether the plaintext in ``buffer`` (part size + 16 bytes) is what part ``index`` opens to.

    If so it is still there afterwards; if not, what is there is worth nothing and for nobody.
    """
    # If not, a key and nonce have been used twice: to no harm only because this ciphertext never
    # leaves the buffer, which is overwritten or zeroed.
    found = seal_part(cek, payload_id, index, buffer, salt=salt)
    if not hmac.compare_digest(found, tag):
        wipe(buffer)
        return False
    open_part(cek, payload_id, index, buffer, salt=salt, tag=tag)
    return True


def row_digest(
    algorithm: DigestAlgorithm, index: int, salt: bytes, ciphertext: Octets, tag: bytes
) -> bytes:
    """Digest one sealed part (32 bytes): H(u64be index ‖ salt ‖ ciphertext ‖ tag).

    ``ciphertext`` is the part without the spare bytes.
    """
    if len(salt) != SALT_BYTES or len(tag) != TAG_BYTES:
        raise ValueError("a part has a salt of 24 and a tag of 16 bytes")
    state = _hasher(algorithm)
    state.update(index.to_bytes(8, "big") + salt)
    state.update(ciphertext)
    state.update(tag)
    return state.digest()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What is published about one part; 72 bytes in the file `parts`."""

    salt: bytes
    tag: bytes
    digest: bytes

    def pack(self) -> bytes:
        """Write salt ‖ tag ‖ digest."""
        packed = self.salt + self.tag + self.digest
        if (len(self.salt), len(self.tag), len(packed)) != (SALT_BYTES, TAG_BYTES, ROW_BYTES):
            raise ValueError("a row has a salt of 24, a tag of 16 and a digest of 32 bytes")
        return packed

    @classmethod
    def unpack(cls, data: Octets) -> Row:
        """Read what `pack` writes."""
        if len(data) != ROW_BYTES:
            raise Malformed("a row of the parts file has 72 bytes")
        row = bytes(data)
        return cls(
            salt=row[:SALT_BYTES],
            tag=row[SALT_BYTES : SALT_BYTES + TAG_BYTES],
            digest=row[SALT_BYTES + TAG_BYTES :],
        )


def padme(size: int) -> int:
    """Round a size in bytes up so that only O(log log size) bits of it show, by at most 12 %.

    Padmé: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with
    PURBs", PoPETs 2019, section 4.
    """
    if size < 2:
        return max(size, 0)
    exponent = size.bit_length() - 1
    kept_bits = exponent.bit_length()
    step = (1 << (exponent - kept_bits)) - 1
    return (size + step) & ~step


def padded_parts(total_bytes: int, part_size: int) -> int:
    """Count the parts of a payload of ``total_bytes``, padded.  Never none."""
    if part_size not in _SIZES:
        raise ValueError("a part's size is a power of two from 64 KiB to 64 MiB")
    count = max(1, -(-padme(total_bytes) // part_size))
    if count > MAX_PARTS:
        raise Refused(
            f"{total_bytes} bytes need more than {MAX_PARTS} parts of {part_size} bytes",
            check="parts.count",
            hint="choose a larger part size",
        )
    return count


def _hasher(algorithm: DigestAlgorithm) -> hashlib._Hash | blake3:
    if algorithm == "blake3":
        return blake3()
    if algorithm == "sha256":
        return hashlib.sha256()
    raise ValueError("a row's digest is blake3 or sha256")


def _part_size(buffer: bytearray | memoryview) -> int:
    size = len(buffer) - TAG_BYTES
    if size not in _SIZES:
        raise ValueError("a part's buffer has a part's size and 16 bytes more")
    return size


def _check_lengths(cek: Octets, payload_id: bytes) -> None:
    if len(cek) != _KEY_BYTES or len(payload_id) != _ID_BYTES:
        raise ValueError("the CEK and the payload id have 32 bytes each")
