"""TPM 2.0 wire primitives: big-endian integers and sized buffers, read strictly.

Source: TPM 2.0 part 2 sections 4 to 6 and part 1 section 11.4.  Format: evidence.md, "Conventions".
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

from custody.errors import Malformed

#: No structure read here is longer; the longest is an RSA-4096 signature in its attestation.
MAX_STRUCTURE_BYTES = 4096


class Alg(IntEnum):
    """Algorithm identifiers (TPM_ALG_ID, part 2 section 6.3).  Others are not read."""

    RSA = 0x0001
    SHA1 = 0x0004
    AES = 0x0006
    KEYEDHASH = 0x0008
    SHA256 = 0x000B
    SHA384 = 0x000C
    SHA512 = 0x000D
    NULL = 0x0010
    RSASSA = 0x0014
    ECDSA = 0x0018
    ECC = 0x0023
    CFB = 0x0043


class Curve(IntEnum):
    """Elliptic curves (TPM_ECC_CURVE, part 2 section 6.4)."""

    P256 = 0x0003
    P384 = 0x0004

    @property
    def coordinate_bytes(self) -> int:
        """Bytes of one coordinate."""
        return 32 if self is Curve.P256 else 48


#: Hashes that name objects and that signatures use.
HASHES = (Alg.SHA256, Alg.SHA384, Alg.SHA512)
#: What makes a bank of PCRs.  SHA-1 is read so that a rule can refuse it by name.
BANKS = (Alg.SHA1, *HASHES)

_DIGEST_BYTES = {Alg.SHA1: 20, Alg.SHA256: 32, Alg.SHA384: 48, Alg.SHA512: 64}
_HASH_NAMES = {Alg.SHA256: "sha256", Alg.SHA384: "sha384", Alg.SHA512: "sha512"}


def digest_bytes(alg: Alg) -> int:
    """Return the bytes of a digest by ``alg``."""
    return _DIGEST_BYTES[alg]


def digest(alg: Alg, data: bytes) -> bytes:
    """Hash ``data`` by one of `HASHES`."""
    return hashlib.new(_HASH_NAMES[alg], data).digest()


def u16(value: int) -> bytes:
    """Write UINT16."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Write UINT32."""
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """Write UINT64."""
    return value.to_bytes(8, "big")


def sized(data: bytes) -> bytes:
    """Write a TPM2B: its size and the bytes."""
    return u16(len(data)) + data


class Reader:
    """Reads one structure from front to end; every shortfall is `Malformed`."""

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, *, what: str) -> None:
        if len(data) > MAX_STRUCTURE_BYTES:
            raise Malformed(f"{what}: larger than the {MAX_STRUCTURE_BYTES} bytes allowed")
        self._data = bytes(data)
        self._at = 0
        self._what = what

    def fail(self, reason: str) -> Malformed:
        """Return the error to raise, naming the structure."""
        return Malformed(f"{self._what}: {reason}")

    def take(self, count: int) -> bytes:
        """Read exactly ``count`` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise self.fail("shorter than its fields say")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(len(self._data) - self._at)

    def uint(self, size: int) -> int:
        """Read an unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, *, lengths: tuple[int, ...], field: str) -> bytes:
        """Read a TPM2B whose size is one of ``lengths``."""
        size = self.uint(2)
        if size not in lengths:
            raise self.fail(f"{field} has a size of {size} bytes, which it cannot have")
        return self.take(size)

    def alg(self, allowed: tuple[Alg, ...], *, field: str) -> Alg:
        """Read an algorithm identifier that is one of ``allowed``."""
        value = self.uint(2)
        for alg in allowed:
            if alg == value:
                return alg
        raise self.fail(f"{field} is algorithm 0x{value:04x}, which is not allowed there")

    def constant(self, expected: int, size: int, *, field: str) -> None:
        """Read an integer that can only be ``expected``."""
        value = self.uint(size)
        if value != expected:
            raise self.fail(f"{field} is 0x{value:x}, not 0x{expected:x}")

    def name(self, *, field: str) -> bytes:
        """Read a TPM2B_NAME that holds an algorithm and its digest (part 1 section 16)."""
        value = self.sized(lengths=(34, 50, 66), field=field)
        alg = int.from_bytes(value[:2], "big")
        if not any(alg == known and len(value) == 2 + digest_bytes(known) for known in HASHES):
            raise self.fail(f"{field} is not a name")
        return value

    def finish(self) -> None:
        """Refuse trailing bytes."""
        if self._at != len(self._data):
            raise self.fail(f"{len(self._data) - self._at} trailing bytes")
