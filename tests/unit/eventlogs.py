"""Logs built by hand (synthetic: no machine made them), and where the genuine ones lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from custody.formats.eventlog import (
    ALG_SHA1,
    ALG_SHA256,
    Bank,
    Event,
    EventLog,
    EventType,
    SpecId,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "eventlog"
SHARED = Path(__file__).parents[3] / "shared" / "vectors" / "eventlogs"
SPEC = SpecId(platform_class=0, minor=0, major=2, errata=0, uintn_size=2, vendor_info=b"")
BANKS = (Bank(ALG_SHA256, 32),)
SECURE_BOOT = (
    bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    + (10).to_bytes(8, "little")
    + (1).to_bytes(8, "little")
    + "SecureBoot".encode("utf-16-le")
)
NAMES = {ALG_SHA1: "sha1", ALG_SHA256: "sha256", 0x000C: "sha384", 0x000D: "sha512"}


def genuine(name: str) -> bytes:
    """Return a log that a machine in an emulator made."""
    return (VECTORS / f"qemu-{name}.bin").read_bytes()


def registers(name: str) -> dict[tuple[str, int], bytes]:
    """Return what that machine's TPM held, by bank and register."""
    rows = [line.split() for line in (VECTORS / f"qemu-{name}.txt").read_text().splitlines()]
    return {(r[0], int(r[1])): bytes.fromhex(r[2]) for r in rows if r[0] != "#"}


def public(name: str) -> bytes:
    """Return a log of a public project; skips where the folder is not there."""
    path = SHARED / f"{name}.bin"
    if not path.exists():
        pytest.skip(f"no {name}: the folder of public vectors is not beside this checkout")
    return path.read_bytes()


def event(
    pcr: int, kind: int, data: bytes, digest: bytes | None = None, banks: tuple[Bank, ...] = BANKS
) -> Event:
    """Make an event whose digests are of its data, or all ``digest``."""
    digests = tuple(digest or hashlib.new(NAMES[b.alg], data).digest() for b in banks)
    return Event(pcr, kind, digests, data)


def separators(*, but: Iterable[int] = ()) -> tuple[Event, ...]:
    """Make the separators of registers 0 to 7."""
    left_out = set(but)
    return tuple(
        event(pcr, EventType.SEPARATOR, bytes(4)) for pcr in range(8) if pcr not in left_out
    )


def locality(value: int, pcr: int = 0) -> Event:
    """Make the event that says where the TPM was started."""
    return event(pcr, EventType.NO_ACTION, b"StartupLocality\0" + bytes([value]), bytes(32))


def log(*events: Event, banks: tuple[Bank, ...] = BANKS) -> EventLog:
    """Make a crypto-agile log."""
    return EventLog(spec=SPEC, banks=banks, events=events)


def boot(secure_boot: bytes = b"\x01") -> tuple[Event, ...]:
    """Make a short boot that breaks no rule."""
    return (
        event(0, EventType.S_CRTM_VERSION, b"1\0.\x000\0\0\0"),
        event(0, EventType.EFI_PLATFORM_FIRMWARE_BLOB, bytes(16), b"\x11" * 32),
        event(7, EventType.EFI_VARIABLE_DRIVER_CONFIG, SECURE_BOOT + secure_boot),
        *separators(),
        event(4, EventType.EFI_BOOT_SERVICES_APPLICATION, bytes(32), b"\x22" * 32),
        event(9, EventType.EVENT_TAG, b'\xec";\x8f\x0d\0\0\0Linux initrd\0', b"\x33" * 32),
        event(5, EventType.EFI_ACTION, b"Exit Boot Services Returned with Success"),
    )
