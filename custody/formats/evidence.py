"""Evidence: what a TPM signs about itself, read strictly.  Format: evidence.md, version 1.

Source: TPM 2.0 part 2 sections 10.12 (attestation), 11.3 (signatures), 13 (NV) and 15 (creation
data).  Every structure is kept as the bytes the TPM made; parsing then packing gives them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from custody.errors import Malformed
from custody.formats.tpmek import ek_public, ek_publics
from custody.formats.tpmnv import (
    COUNTER_ATTRIBUTES,
    NvAttributes,
    NvPublic,
    counter_public,
    nv_name,
    parse_nv_public,
)
from custody.formats.tpmpublic import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    RH_ENDORSEMENT,
    RH_NULL,
    TLS_KEY_TEMPLATE,
    Attributes,
    EccPublic,
    Public,
    RsaPublic,
    host_key_template,
    matches,
    name,
    parse_public,
    qualified_name,
    spki,
)
from custody.formats.tpmsignature import (
    EcdsaSignature,
    RsaSignature,
    low_s,
    parse_signature,
    verify_attest,
)
from custody.formats.tpmwire import (
    BANKS,
    HASHES,
    Alg,
    Curve,
    Reader,
    digest_bytes,
    sized,
    u16,
    u32,
    u64,
)

#: The whole format; tpmpublic, tpmek, tpmnv, tpmsignature and tpmwire are its parts.
__all__ = [
    "AK_TEMPLATE",
    "ATTEST_CERTIFY",
    "ATTEST_CREATION",
    "ATTEST_QUOTE",
    "COUNTER_ATTRIBUTES",
    "HOST_PARENT_TEMPLATE",
    "MAGIC",
    "RH_ENDORSEMENT",
    "RH_NULL",
    "TLS_KEY_TEMPLATE",
    "Alg",
    "Attest",
    "Attributes",
    "Certified",
    "ClockInfo",
    "Created",
    "CreationData",
    "Curve",
    "EccPublic",
    "EcdsaSignature",
    "NvAttributes",
    "NvCertified",
    "NvPublic",
    "PcrBank",
    "Public",
    "Quote",
    "Quoted",
    "RsaPublic",
    "RsaSignature",
    "attest_kind",
    "counter_public",
    "cut_quote",
    "ek_public",
    "ek_publics",
    "host_key_template",
    "low_s",
    "matches",
    "name",
    "nv_name",
    "pack_quote",
    "pack_selection",
    "parse_attest",
    "parse_creation_data",
    "parse_nv_public",
    "parse_public",
    "parse_signature",
    "qualified_name",
    "spki",
    "unpack_certified",
    "unpack_key_certified",
    "unpack_quote",
    "verify_attest",
]

#: TPM_GENERATED_VALUE, which begins what a TPM signs of its own (part 2 section 6.2).
MAGIC = 0xFF544347
#: Types of attestations (TPM_ST, part 2 section 6.9).
ATTEST_CERTIFY = 0x8017
ATTEST_QUOTE = 0x8018
ATTEST_CREATION = 0x801A
_ATTEST_NV = 0x8014
_PCR_BITMAP_BYTES = 3
_MAX_NV_BYTES = 1024
#: TPM2B_DATA is at most a TPMT_HA of the largest hash.
_MAX_DATA_BYTES = 66


@dataclass(frozen=True, slots=True)
class PcrBank:
    """Which registers of one bank (TPMS_PCR_SELECTION)."""

    alg: Alg
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockInfo:
    """TPMS_CLOCK_INFO.  ``clock_ms``: powered-on milliseconds; ``safe``: it never ran back."""

    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """TPMS_QUOTE_INFO: a digest of the registers in ``banks``."""

    banks: tuple[PcrBank, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """TPMS_CREATION_INFO: the object of that Name was made in this TPM."""

    object_name: bytes
    creation_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """TPMS_CERTIFY_INFO: an object of these Names is loaded in this TPM."""

    object_name: bytes
    qualified_name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NvCertified:
    """TPMS_NV_CERTIFY_INFO: an NV index held these bytes."""

    index_name: bytes
    offset: int
    contents: bytes


Body = Quoted | Created | Certified | NvCertified


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """TPMS_ATTEST.  Its signature is not checked yet."""

    signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    body: Body

    def pack(self) -> bytes:
        """Write the TPMS_ATTEST."""
        kind, body = _pack_body(self.body)
        return (
            u32(MAGIC)
            + u16(kind)
            + sized(self.signer)
            + sized(self.extra_data)
            + u64(self.clock.clock_ms)
            + u32(self.clock.reset_count)
            + u32(self.clock.restart_count)
            + bytes([self.clock.safe])
            + u64(self.firmware_version)
            + body
        )


def _pack_body(body: Body) -> tuple[int, bytes]:
    match body:
        case Quoted():
            return ATTEST_QUOTE, pack_selection(body.banks) + sized(body.pcr_digest)
        case Created():
            return ATTEST_CREATION, sized(body.object_name) + sized(body.creation_hash)
        case Certified():
            names = sized(body.object_name) + sized(body.qualified_name)
            return ATTEST_CERTIFY, names
        case NvCertified():
            contents = sized(body.contents)
            return _ATTEST_NV, sized(body.index_name) + u16(body.offset) + contents


def pack_selection(banks: tuple[PcrBank, ...]) -> bytes:
    """Write a TPML_PCR_SELECTION."""
    packed = u32(len(banks))
    for bank in banks:
        bits = sum(1 << pcr for pcr in bank.pcrs)
        packed += u16(bank.alg) + bytes([_PCR_BITMAP_BYTES])
        packed += bits.to_bytes(_PCR_BITMAP_BYTES, "little")
    return packed


def attest_kind(data: bytes) -> tuple[int, int]:
    """Return the magic and the type that begin an attestation, whatever they are."""
    reader = Reader(data, what="TPMS_ATTEST")
    return reader.uint(4), reader.uint(2)


def parse_attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST of a quote, a creation, a key or an NV index; else it is `Malformed`.

    The magic is checked before anything else: a restricted key never signs data of others that
    begins with it, so without it the structure may be anybody's.
    """
    reader = Reader(data, what="TPMS_ATTEST")
    reader.constant(MAGIC, 4, field="magic")
    kind = reader.uint(2)
    if kind not in (ATTEST_QUOTE, ATTEST_CREATION, ATTEST_CERTIFY, _ATTEST_NV):
        raise reader.fail(f"type 0x{kind:04x} is no quote and attests no creation, key or NV index")
    signer = reader.name(field="qualifiedSigner")
    extra_data = reader.sized(lengths=tuple(range(_MAX_DATA_BYTES + 1)), field="extraData")
    clock = _read_clock(reader)
    firmware_version = reader.uint(8)
    body: Body
    if kind == ATTEST_QUOTE:
        banks = _read_selection(reader)
        body = Quoted(banks=banks, pcr_digest=_read_digest(reader, "pcrDigest"))
    elif kind == ATTEST_CREATION:
        object_name = reader.name(field="objectName")
        body = Created(object_name=object_name, creation_hash=_read_digest(reader, "creationHash"))
    elif kind == ATTEST_CERTIFY:
        body = Certified(
            object_name=reader.name(field="name"),
            qualified_name=reader.name(field="qualifiedName"),
        )
    else:
        body = NvCertified(
            index_name=reader.name(field="indexName"),
            offset=reader.uint(2),
            contents=reader.sized(lengths=tuple(range(_MAX_NV_BYTES + 1)), field="nvContents"),
        )
    reader.finish()
    return Attest(
        signer=signer,
        extra_data=extra_data,
        clock=clock,
        firmware_version=firmware_version,
        body=body,
    )


def _read_clock(reader: Reader) -> ClockInfo:
    clock_ms, reset_count, restart_count = reader.uint(8), reader.uint(4), reader.uint(4)
    safe = reader.uint(1)
    if safe > 1:
        raise reader.fail("safe is neither yes nor no")
    return ClockInfo(
        clock_ms=clock_ms,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
    )


def _read_digest(reader: Reader, field: str) -> bytes:
    return reader.sized(lengths=tuple(digest_bytes(alg) for alg in HASHES), field=field)


def _read_selection(reader: Reader) -> tuple[PcrBank, ...]:
    count = reader.uint(4)
    if count > len(BANKS):
        raise reader.fail("more PCR banks than there are hashes")
    banks = []
    for _ in range(count):
        alg = reader.alg(BANKS, field="PCR bank")
        reader.constant(_PCR_BITMAP_BYTES, 1, field="sizeofSelect")
        bits = int.from_bytes(reader.take(_PCR_BITMAP_BYTES), "little")
        banks.append(PcrBank(alg, tuple(pcr for pcr in range(24) if bits >> pcr & 1)))
    return tuple(banks)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationData:
    """TPMS_CREATION_DATA: the circumstances in which a key was made."""

    banks: tuple[PcrBank, ...]
    pcr_digest: bytes
    locality: int
    parent_name_alg: Alg
    parent_name: bytes
    parent_qualified_name: bytes
    outside_info: bytes

    def pack(self) -> bytes:
        """Write the TPMS_CREATION_DATA."""
        return (
            pack_selection(self.banks)
            + sized(self.pcr_digest)
            + bytes([self.locality])
            + u16(self.parent_name_alg)
            + sized(self.parent_name)
            + sized(self.parent_qualified_name)
            + sized(self.outside_info)
        )


def parse_creation_data(data: bytes) -> CreationData:
    """Read a TPMS_CREATION_DATA of a key whose parent is a key; anything else is `Malformed`."""
    reader = Reader(data, what="TPMS_CREATION_DATA")
    creation = CreationData(
        banks=_read_selection(reader),
        pcr_digest=_read_digest(reader, "pcrDigest"),
        locality=reader.uint(1),
        parent_name_alg=reader.alg(HASHES, field="parentNameAlg"),
        parent_name=reader.name(field="parentName"),
        parent_qualified_name=reader.name(field="parentQualifiedName"),
        outside_info=reader.sized(lengths=tuple(range(_MAX_DATA_BYTES + 1)), field="outsideInfo"),
    )
    reader.finish()
    return creation


class Quote(NamedTuple):
    """A TPMS_ATTEST and the TPMT_SIGNATURE over it, as bytes."""

    attest: bytes
    signature: bytes


def pack_quote(attest: bytes, signature: bytes) -> bytes:
    """Write an attestation as a statement's signature: ``u16be len ‖ attest ‖ TPMT_SIGNATURE``."""
    return sized(attest) + signature


def unpack_quote(data: bytes) -> Quote:
    """Read what `pack_quote` writes; both structures must parse, and the first must be a quote."""
    return _unpack(data, Quoted)


def unpack_certified(data: bytes) -> Quote:
    """Read the same container, which must hold the certificate of an NV index."""
    return _unpack(data, NvCertified)


def cut_quote(data: bytes) -> Quote:
    """Take the container apart; neither structure is read."""
    reader = Reader(data, what="attestation as signature")
    return Quote(reader.take(reader.uint(2)), reader.rest())


def unpack_key_certified(data: bytes) -> Quote:
    """Read the same container, which must hold the certificate of a key (TPM2_Certify)."""
    return _unpack(data, Certified)


def _unpack(data: bytes, kind: type[Quoted | Certified | NvCertified]) -> Quote:
    quote = cut_quote(data)
    if not isinstance(parse_attest(quote.attest).body, kind):
        raise Malformed("attestation as signature: the attestation is of another kind")
    parse_signature(quote.signature)
    return quote
