"""TCG event logs: what firmware, loader and kernel say they measured.  Format: eventlog.md.

Source: TCG PC Client Platform Firmware Profile 1.06 section 10 (crypto-agile logs) and TCG EFI
Platform Specification 1.22 section 8 (SHA-1 logs).  A log is its host's claim.  Reading it keeps
every event as it stands, unknown types too; what an event counts for is `rules.eventlog`'s to say.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from custody.errors import Malformed

#: The largest log any reader takes, in bytes.  It has room for at most 55,188 events.
MAX_LOG_BYTES = 1 << 20
#: The most data of one event, in bytes.  The longest seen is a revocation list of 36 KiB.
MAX_EVENT_BYTES = 1 << 16
#: Registers 0 to 23; an event in none of them has `NO_REGISTER`.
PCR_COUNT = 24
NO_REGISTER = 0xFFFFFFFF

#: TPM_ALG_ID of hashes a bank may have, and the bytes of their digests (TPM 2.0 part 2, 6.3).
BANK_BYTES = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32, 0x0027: 32}
ALG_SHA1 = 0x0004
ALG_SHA256 = 0x000B

_SIGNATURE = b"Spec ID Event03\0"
_MAX_BANKS = 8
_MAX_DIGEST_BYTES = 64
_SHA1_BYTES = 20

_U32 = struct.Struct("<I")
_ALG = struct.Struct("<HH")
_SHA1_HEAD = struct.Struct("<II20sI")
_AGILE_HEAD = struct.Struct("<III")
_SPEC_ID = struct.Struct("<16sIBBBBI")


class EventType(IntEnum):
    """Event types (Platform Firmware Profile 1.06 section 10.4.1).  Others are unknown."""

    PREBOOT_CERT = 0x00
    POST_CODE = 0x01
    NO_ACTION = 0x03
    SEPARATOR = 0x04
    ACTION = 0x05
    EVENT_TAG = 0x06
    S_CRTM_CONTENTS = 0x07
    S_CRTM_VERSION = 0x08
    CPU_MICROCODE = 0x09
    PLATFORM_CONFIG_FLAGS = 0x0A
    TABLE_OF_DEVICES = 0x0B
    COMPACT_HASH = 0x0C
    IPL = 0x0D
    IPL_PARTITION_DATA = 0x0E
    NONHOST_CODE = 0x0F
    NONHOST_CONFIG = 0x10
    NONHOST_INFO = 0x11
    OMIT_BOOT_DEVICE_EVENTS = 0x12
    POST_CODE2 = 0x13
    EFI_VARIABLE_DRIVER_CONFIG = 0x80000001
    EFI_VARIABLE_BOOT = 0x80000002
    EFI_BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_BOOT_SERVICES_DRIVER = 0x80000004
    EFI_RUNTIME_SERVICES_DRIVER = 0x80000005
    EFI_GPT_EVENT = 0x80000006
    EFI_ACTION = 0x80000007
    EFI_PLATFORM_FIRMWARE_BLOB = 0x80000008
    EFI_HANDOFF_TABLES = 0x80000009
    EFI_PLATFORM_FIRMWARE_BLOB2 = 0x8000000A
    EFI_HANDOFF_TABLES2 = 0x8000000B
    EFI_VARIABLE_BOOT2 = 0x8000000C
    EFI_GPT_EVENT2 = 0x8000000D
    EFI_HCRTM_EVENT = 0x80000010
    EFI_VARIABLE_AUTHORITY = 0x800000E0
    EFI_SPDM_FIRMWARE_BLOB = 0x800000E1
    EFI_SPDM_FIRMWARE_CONFIG = 0x800000E2
    EFI_SPDM_DEVICE_POLICY = 0x800000E3
    EFI_SPDM_DEVICE_AUTHORITY = 0x800000E4


class Event(NamedTuple):
    """One event.  ``digests`` stand as the log's `EventLog.banks` do; None where it has none."""

    pcr: int
    kind: int
    digests: tuple[bytes | None, ...]
    data: bytes


class Bank(NamedTuple):
    """A hash that a log says it carries digests of, and their length."""

    alg: int
    digest_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecId:
    """TCG_EfiSpecIdEvent but for its algorithms: what every crypto-agile log begins with."""

    platform_class: int
    minor: int
    major: int
    errata: int
    uintn_size: int
    vendor_info: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A whole log.  ``spec`` is None in the old form, whose one bank is SHA-1."""

    spec: SpecId | None
    banks: tuple[Bank, ...]
    events: tuple[Event, ...]

    def bank(self, alg: int) -> int | None:
        """Return where in `Event.digests` the digests of ``alg`` stand, if the log has any."""
        return next((at for at, bank in enumerate(self.banks) if bank.alg == alg), None)

    def pack(self) -> bytes:
        """Write the log; packing what was parsed gives the same bytes."""
        if self.spec is None:
            return b"".join(
                _SHA1_HEAD.pack(e.pcr, e.kind, e.digests[0], len(e.data)) + e.data
                for e in self.events
            )
        return _pack_spec(self.spec, self.banks) + b"".join(
            _pack_event(event, self.banks) for event in self.events
        )


def parse_event_log(data: bytes) -> EventLog:
    """Read a log of either form; anything that does not follow its form is `Malformed`."""
    if len(data) > MAX_LOG_BYTES:
        raise Malformed(f"event log: larger than the {MAX_LOG_BYTES} bytes allowed")
    data = bytes(data)
    first, at = _sha1_event(data, 0, 0)
    if first.kind != EventType.NO_ACTION or not first.data.startswith(_SIGNATURE):
        return EventLog(
            spec=None,
            banks=(Bank(ALG_SHA1, _SHA1_BYTES),),
            events=_events(data, 0, (Bank(ALG_SHA1, _SHA1_BYTES),), agile=False),
        )
    if first.pcr or any(first.digests[0] or b""):
        raise _fault(0, "the first event is not in register 0 with a digest of zeros")
    spec, banks = _parse_spec(first.data)
    return EventLog(spec=spec, banks=banks, events=_events(data, at, banks, agile=True))


def _fault(number: int, reason: str) -> Malformed:
    return Malformed(f"event log: event {number}: {reason}")


def _events(data: bytes, at: int, banks: tuple[Bank, ...], *, agile: bool) -> tuple[Event, ...]:
    events: list[Event] = []
    number = int(agile)
    while at < len(data):
        if agile:
            event, at = _agile_event(data, at, number, banks)
        else:
            event, at = _sha1_event(data, at, number)
        # A log inside a log would be read by one program as data and by another as events.
        if event.kind == EventType.NO_ACTION and event.data.startswith(_SIGNATURE):
            raise _fault(number, "a log begins inside the log")
        if event.pcr >= PCR_COUNT and not (
            event.pcr == NO_REGISTER and event.kind == EventType.NO_ACTION
        ):
            raise _fault(number, f"there is no register {event.pcr}")
        events.append(event)
        number += 1
    return tuple(events)


def _sha1_event(data: bytes, at: int, number: int) -> tuple[Event, int]:
    """Read a TCG_PCR_EVENT at ``at``; return it and where the next begins."""
    try:
        pcr, kind, digest, size = _SHA1_HEAD.unpack_from(data, at)
    except struct.error as error:
        raise _fault(number, "cut short") from error
    body, at = _body(data, at + _SHA1_HEAD.size, size, number)
    return Event(pcr, kind, (digest,), body), at


def _agile_event(data: bytes, at: int, number: int, banks: tuple[Bank, ...]) -> tuple[Event, int]:
    """Read a TCG_PCR_EVENT2 at ``at``; return it and where the next begins."""
    try:
        pcr, kind, count = _AGILE_HEAD.unpack_from(data, at)
        if not 1 <= count <= len(banks):
            raise _fault(number, f"{count} digests, where {len(banks)} are declared")
        at += _AGILE_HEAD.size
        digests: list[bytes | None] = []
        for bank in banks:
            if data[at : at + 2] != bank.alg.to_bytes(2, "little") or not count:
                digests.append(None)
                continue
            count -= 1
            end = at + 2 + bank.digest_bytes
            digests.append(data[at + 2 : end])
            at = end
        # Also what comes twice, in another order, or of a hash that was not declared.
        if count:
            raise _fault(number, "its digests are not those declared, in their order")
        (size,) = _U32.unpack_from(data, at)
    except struct.error as error:
        raise _fault(number, "cut short") from error
    body, at = _body(data, at + 4, size, number)
    return Event(pcr, kind, tuple(digests), body), at


def _body(data: bytes, at: int, size: int, number: int) -> tuple[bytes, int]:
    if size > MAX_EVENT_BYTES:
        raise _fault(number, f"{size} bytes of data, more than the {MAX_EVENT_BYTES} allowed")
    if at + size > len(data):
        raise _fault(number, "cut short")
    return data[at : at + size], at + size


def _parse_spec(data: bytes) -> tuple[SpecId, tuple[Bank, ...]]:
    try:
        _, platform_class, minor, major, errata, uintn_size, count = _SPEC_ID.unpack_from(data)
        if not 1 <= count <= _MAX_BANKS:
            raise _fault(0, f"{count} algorithms are declared")
        banks = tuple(
            Bank(*_ALG.unpack_from(data, _SPEC_ID.size + n * _ALG.size)) for n in range(count)
        )
    except struct.error as error:
        raise _fault(0, "cut short") from error
    at = _SPEC_ID.size + count * _ALG.size
    vendor_info = data[at + 1 :]
    if data[at : at + 1] != bytes([len(vendor_info) & 0xFF]) or len(vendor_info) > 0xFF:
        raise _fault(0, "the vendor's information is not as long as it says")
    if (major, minor) != (2, 0) or uintn_size not in (1, 2):
        raise _fault(0, f"version {major}.{minor} with integers of size {uintn_size}")
    if len({bank.alg for bank in banks}) != count:
        raise _fault(0, "an algorithm is declared twice")
    for alg, digest_bytes in banks:
        if digest_bytes != BANK_BYTES.get(alg, digest_bytes) or not (
            1 <= digest_bytes <= _MAX_DIGEST_BYTES
        ):
            raise _fault(0, f"digests of algorithm {alg:#06x} do not have {digest_bytes} bytes")
    spec = SpecId(
        platform_class=platform_class,
        minor=minor,
        major=major,
        errata=errata,
        uintn_size=uintn_size,
        vendor_info=vendor_info,
    )
    return spec, banks


def _pack_spec(spec: SpecId, banks: tuple[Bank, ...]) -> bytes:
    data = _SPEC_ID.pack(
        _SIGNATURE,
        spec.platform_class,
        spec.minor,
        spec.major,
        spec.errata,
        spec.uintn_size,
        len(banks),
    )
    data += b"".join(_ALG.pack(*bank) for bank in banks)
    data += bytes([len(spec.vendor_info)]) + spec.vendor_info
    return _SHA1_HEAD.pack(0, EventType.NO_ACTION, bytes(_SHA1_BYTES), len(data)) + data


def _pack_event(event: Event, banks: tuple[Bank, ...]) -> bytes:
    given = [
        bank.alg.to_bytes(2, "little") + digest
        for bank, digest in zip(banks, event.digests, strict=True)
        if digest is not None
    ]
    head = _AGILE_HEAD.pack(event.pcr, event.kind, len(given)) + b"".join(given)
    return head + _U32.pack(len(event.data)) + event.data
