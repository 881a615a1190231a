"""Public areas of NV indexes (TPMS_NV_PUBLIC), their Names, and a request's counter.

Source: TPM 2.0 part 2 section 13 and part 1 section 16.  Format: evidence.md, "NV indexes".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import STRICT, IntFlag

from custody.formats.tpmwire import HASHES, Alg, Reader, digest, digest_bytes, sized, u16, u32


class NvAttributes(IntFlag, boundary=STRICT):
    """How an NV index behaves (TPMA_NV, part 2 section 13.4).  Reserved bits are not read."""

    PP_WRITE = 1 << 0
    OWNER_WRITE = 1 << 1
    AUTH_WRITE = 1 << 2
    POLICY_WRITE = 1 << 3
    COUNTER = 1 << 4
    BITS = 1 << 5
    EXTEND = 1 << 6
    PIN = 1 << 7
    POLICY_DELETE = 1 << 10
    WRITE_LOCKED = 1 << 11
    WRITE_ALL = 1 << 12
    WRITE_DEFINE = 1 << 13
    WRITE_ST_CLEAR = 1 << 14
    GLOBAL_LOCK = 1 << 15
    PP_READ = 1 << 16
    OWNER_READ = 1 << 17
    AUTH_READ = 1 << 18
    POLICY_READ = 1 << 19
    NO_DA = 1 << 25
    ORDERLY = 1 << 26
    CLEAR_ST_CLEAR = 1 << 27
    READ_LOCKED = 1 << 28
    WRITTEN = 1 << 29
    PLATFORM_CREATE = 1 << 30
    READ_ST_CLEAR = 1 << 31


#: What a counter holds: a number, most significant byte first.
COUNTER_BYTES = 8
#: A request's counter as it is defined; the first increment adds `NvAttributes.WRITTEN`.
COUNTER_ATTRIBUTES = (
    NvAttributes.COUNTER
    | NvAttributes.AUTH_READ
    | NvAttributes.AUTH_WRITE
    | NvAttributes.OWNER_READ
    | NvAttributes.NO_DA
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NvPublic:
    """TPMS_NV_PUBLIC: the public area of an NV index."""

    index: int
    name_alg: Alg
    attributes: NvAttributes
    auth_policy: bytes
    data_bytes: int

    def pack(self) -> bytes:
        """Write the TPMS_NV_PUBLIC."""
        return (
            u32(self.index)
            + u16(self.name_alg)
            + u32(self.attributes)
            + sized(self.auth_policy)
            + u16(self.data_bytes)
        )


def parse_nv_public(data: bytes) -> NvPublic:
    """Read a TPMS_NV_PUBLIC; anything else is `Malformed`."""
    reader = Reader(data, what="TPMS_NV_PUBLIC")
    index = reader.uint(4)
    if index >> 24 != 0x01:
        raise reader.fail(f"0x{index:08x} is not the handle of an NV index")
    name_alg = reader.alg(HASHES, field="nameAlg")
    value = reader.uint(4)
    try:
        attributes = NvAttributes(value)
    except ValueError as error:
        raise reader.fail(f"attributes 0x{value:08x} has a reserved bit set") from error
    public = NvPublic(
        index=index,
        name_alg=name_alg,
        attributes=attributes,
        auth_policy=reader.sized(lengths=(0, digest_bytes(name_alg)), field="authPolicy"),
        data_bytes=reader.uint(2),
    )
    reader.finish()
    return public


def counter_public(index: int) -> NvPublic:
    """Return what the public area of a request's counter must be, exactly."""
    return NvPublic(
        index=index,
        name_alg=Alg.SHA256,
        attributes=COUNTER_ATTRIBUTES | NvAttributes.WRITTEN,
        auth_policy=b"",
        data_bytes=COUNTER_BYTES,
    )


def nv_name(public: bytes) -> bytes:
    """Return the Name of an NV index: nameAlg and the digest of its public area."""
    alg = parse_nv_public(public).name_alg
    return u16(alg) + digest(alg, public)
