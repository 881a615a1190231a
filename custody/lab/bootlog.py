"""A recorded boot for the lab's hosts: an event log, and its digests extended into a TPM.

The log is synthetic: nothing was booted.  Its form is the TCG crypto-agile event log (TCG PC
Client Platform Firmware Profile 1.06, section 10), SHA-256 only, and its digests are what a TPM
is really extended with, so quotes and golden sets are real.  A component's "image" is its name in
words; a real log measures the image itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from custody.errors import Malformed, Unavailable
from custody.lab import firmware

PCR_COUNT = 24
_ALG_SHA256 = 0x000B
_DIGEST_BYTES = 32
_SPEC_ID = b"Spec ID Event03\0"
#: EFI_GLOBAL_VARIABLE and EFI_IMAGE_SECURITY_DATABASE_GUID (UEFI 2.10), as they lie in memory.
_GLOBAL_VARIABLE = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURITY_DATABASE = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")


class _Type(IntEnum):
    """Event types (Platform Firmware Profile, section 10.4.1)."""

    NO_ACTION = 0x03
    SEPARATOR = 0x04
    S_CRTM_VERSION = 0x08
    IPL = 0x0D
    VARIABLE_DRIVER_CONFIG = 0x80000001
    BOOT_SERVICES_APPLICATION = 0x80000003
    EFI_ACTION = 0x80000007
    FIRMWARE_BLOB = 0x80000008


@dataclass(frozen=True, slots=True, kw_only=True)
class BootState:
    """What a lab host boots.  Change a word and the registers change with it."""

    firmware: str = "lab firmware 1.0"
    option_rom: str = "lab network adapter 2.4"
    loader: str = "lab boot loader 2.06"
    kernel: str = "lab kernel 6.1.0-1"
    command_line: str = "root=/dev/vda1 ro quiet"
    secure_boot: bool = True


@dataclass(frozen=True, slots=True)
class _Event:
    pcr: int
    kind: int
    digest: bytes
    data: bytes


class Machine(Protocol):
    """Something whose TPM takes raw commands (`custody.lab.swtpm.Swtpm`)."""

    def transmit(self, command: bytes) -> bytes:
        """Send one raw command and return the raw response."""


def record(state: BootState) -> bytes:
    """Return the event log of booting ``state``; the same state gives the same bytes."""
    return _spec_id_event() + b"".join(_pack(event) for event in _boot(state))


def pcrs(log: bytes) -> tuple[bytes, ...]:
    """Replay a log that `record` wrote: the values of PCR 0 to 23 after it, each 32 bytes."""
    values = [bytes(_DIGEST_BYTES)] * PCR_COUNT
    # Registers of the dynamic root of trust start at ones (PC Client Platform TPM Profile 1.06).
    for pcr in range(17, 23):
        values[pcr] = b"\xff" * _DIGEST_BYTES
    for event in _events(log):
        values[event.pcr] = hashlib.sha256(values[event.pcr] + event.digest).digest()
    return tuple(values)


def extend(machine: Machine, log: bytes) -> None:
    """Extend exactly the digests of ``log`` into the machine's TPM, in order."""
    for event in _events(log):
        response = machine.transmit(firmware.pcr_extend(event.pcr, event.digest))
        if firmware.response_code(response):
            raise Unavailable(f"the TPM did not extend PCR {event.pcr}")


def _boot(state: BootState) -> Iterator[_Event]:
    yield _hashed(0, _Type.S_CRTM_VERSION, (state.firmware + "\0").encode("utf-16-le"))
    yield _image(0, _Type.FIRMWARE_BLOB, state.firmware)
    yield from _secure_boot_variables(state)
    yield _image(2, _Type.BOOT_SERVICES_APPLICATION, state.option_rom)
    yield _hashed(4, _Type.EFI_ACTION, b"Calling EFI Application from Boot Option")
    # One separator in each of PCR 0 to 7 ends what the firmware measures before it hands over.
    for pcr in range(8):
        yield _hashed(pcr, _Type.SEPARATOR, bytes(4))
    yield _image(4, _Type.BOOT_SERVICES_APPLICATION, state.loader)
    yield _hashed(8, _Type.IPL, b"kernel_cmdline: " + state.command_line.encode() + b"\0")
    yield _image(9, _Type.IPL, state.kernel)


def _secure_boot_variables(state: BootState) -> Iterator[_Event]:
    variables = (
        (_GLOBAL_VARIABLE, "SecureBoot", bytes([state.secure_boot])),
        (_GLOBAL_VARIABLE, "PK", b"lab platform key"),
        (_GLOBAL_VARIABLE, "KEK", b"lab key exchange key"),
        (_SECURITY_DATABASE, "db", b"lab signature database"),
        (_SECURITY_DATABASE, "dbx", b""),
    )
    for guid, name, value in variables:
        # UEFI_VARIABLE_DATA, section 10.4.5.
        data = guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value
        yield _hashed(7, _Type.VARIABLE_DRIVER_CONFIG, data)


def _hashed(pcr: int, kind: _Type, data: bytes) -> _Event:
    """An event whose digest is over its own data."""
    return _Event(pcr, kind, hashlib.sha256(data).digest(), data)


def _image(pcr: int, kind: _Type, words: str) -> _Event:
    """An event whose digest is over an image that the log only describes."""
    image = b"lab image of " + words.encode()
    return _Event(pcr, kind, hashlib.sha256(image).digest(), words.encode() + b"\0")


def _spec_id_event() -> bytes:
    # TCG_EfiSpecIdEvent: platform class 0, version 2.0 errata 0, 64-bit UINTN, one algorithm.
    algorithms = struct.pack("<IHH", 1, _ALG_SHA256, _DIGEST_BYTES)
    data = _SPEC_ID + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + algorithms + b"\0"
    # The first event alone has the old form, with room for a SHA-1 digest.
    return struct.pack("<II20sI", 0, _Type.NO_ACTION, bytes(20), len(data)) + data


def _pack(event: _Event) -> bytes:
    head = struct.pack("<III", event.pcr, event.kind, 1)
    digest = struct.pack("<H", _ALG_SHA256) + event.digest
    return head + digest + struct.pack("<I", len(event.data)) + event.data


def _events(log: bytes) -> Iterator[_Event]:
    head = _spec_id_event()
    if not log.startswith(head):
        raise Malformed("not an event log of the lab")
    at = len(head)
    try:
        while at < len(log):
            pcr, kind, count, alg = struct.unpack_from("<IIIH", log, at)
            digest = log[at + 14 : at + 14 + _DIGEST_BYTES]
            (size,) = struct.unpack_from("<I", log, at + 14 + _DIGEST_BYTES)
            at += 18 + _DIGEST_BYTES
            if count != 1 or alg != _ALG_SHA256 or pcr >= PCR_COUNT or at + size > len(log):
                raise Malformed("not an event log of the lab")
            yield _Event(pcr, kind, digest, log[at : at + size])
            at += size
    except struct.error as error:
        raise Malformed("the event log is cut short") from error
