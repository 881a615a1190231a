"""What an event is called, for people.  Nothing is decided by these words: see eventlog.md.

An event's data are its host's claim: no digest says what kind of event it belongs to.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from typing import NamedTuple

from custody.formats.eventlog import Event, EventType

#: The longest name given, in characters.
MAX_LABEL_CHARS = 160

_VARIABLE = struct.Struct("<16sQQ")
_IMAGE = struct.Struct("<QQQQ")
SEPARATORS = (bytes(4), b"\xff\xff\xff\xff")
_WORDS = {
    EventType.PREBOOT_CERT: "pre-boot certificate",
    EventType.POST_CODE: "firmware code",
    EventType.POST_CODE2: "firmware code",
    EventType.ACTION: "action",
    EventType.EVENT_TAG: "tagged event",
    EventType.S_CRTM_CONTENTS: "root of trust",
    EventType.S_CRTM_VERSION: "firmware version",
    EventType.CPU_MICROCODE: "microcode",
    EventType.PLATFORM_CONFIG_FLAGS: "platform configuration",
    EventType.TABLE_OF_DEVICES: "table of devices",
    EventType.COMPACT_HASH: "compact hash",
    EventType.IPL: "loader",
    EventType.IPL_PARTITION_DATA: "partition data",
    EventType.NONHOST_CODE: "other processor's code",
    EventType.NONHOST_CONFIG: "other processor's configuration",
    EventType.NONHOST_INFO: "other processor's information",
    EventType.OMIT_BOOT_DEVICE_EVENTS: "boot attempts omitted",
    EventType.EFI_BOOT_SERVICES_APPLICATION: "boot application",
    EventType.EFI_BOOT_SERVICES_DRIVER: "boot driver",
    EventType.EFI_RUNTIME_SERVICES_DRIVER: "runtime driver",
    EventType.EFI_GPT_EVENT: "partition table",
    EventType.EFI_GPT_EVENT2: "partition table",
    EventType.EFI_PLATFORM_FIRMWARE_BLOB: "firmware volume",
    EventType.EFI_PLATFORM_FIRMWARE_BLOB2: "firmware volume",
    EventType.EFI_HANDOFF_TABLES: "firmware tables",
    EventType.EFI_HANDOFF_TABLES2: "firmware tables",
    EventType.EFI_HCRTM_EVENT: "hardware root of trust",
    EventType.EFI_SPDM_FIRMWARE_BLOB: "device firmware",
    EventType.EFI_SPDM_FIRMWARE_CONFIG: "device configuration",
    EventType.EFI_SPDM_DEVICE_POLICY: "device policy",
    EventType.EFI_SPDM_DEVICE_AUTHORITY: "device authority",
}
_VARIABLES = (
    EventType.EFI_VARIABLE_DRIVER_CONFIG,
    EventType.EFI_VARIABLE_BOOT,
    EventType.EFI_VARIABLE_BOOT2,
    EventType.EFI_VARIABLE_AUTHORITY,
)
_IMAGES = (
    EventType.EFI_BOOT_SERVICES_APPLICATION,
    EventType.EFI_BOOT_SERVICES_DRIVER,
    EventType.EFI_RUNTIME_SERVICES_DRIVER,
)
#: Types whose data are, or hold, text.
_TEXTS = (
    EventType.POST_CODE,
    EventType.ACTION,
    EventType.EFI_ACTION,
    EventType.IPL,
    EventType.CPU_MICROCODE,
    EventType.S_CRTM_CONTENTS,
    EventType.S_CRTM_VERSION,
    EventType.NONHOST_INFO,
)
#: EFI_DEVICE_PATH_PROTOCOL nodes (UEFI 2.10 section 10.3): a file path, and the path's end.
_FILE_NODE = (4, 4)
_END_NODE = 0x7F


class Variable(NamedTuple):
    """UEFI_VARIABLE_DATA (Platform Firmware Profile section 10.4.5)."""

    guid: bytes
    name: str
    value: bytes


def variable(data: bytes) -> Variable | None:
    """Read a variable that an event holds; None if it is no variable, or has more behind it."""
    if len(data) < _VARIABLE.size:
        return None
    guid, name_chars, value_bytes = _VARIABLE.unpack_from(data)
    end = _VARIABLE.size + 2 * name_chars
    if end + value_bytes != len(data):
        return None
    name = data[_VARIABLE.size : end].decode("utf-16-le", "replace")
    return Variable(guid, name, data[end:])


def describe(event: Event) -> str:
    """Name an event by its type and what its data say; one line, at most `MAX_LABEL_CHARS`."""
    return _line(_words(event)) or f"event of type {event.kind:#x}"


def _words(event: Event) -> str:
    kind, data = event.kind, event.data
    if kind == EventType.SEPARATOR:
        return "separator" if data in SEPARATORS else f"separator {data[:8].hex()}"
    if kind in _VARIABLES:
        found = variable(data)
        return f"variable {found.name}" if found else "variable"
    known = next((words for name, words in _WORDS.items() if name == kind), "")
    if kind in _IMAGES and (path := _file_path(data)):
        return f"{known} {path}"
    if kind == EventType.EVENT_TAG and len(data) > 8:
        text = _text(data[8:])
        return f"{known} {text}" if text else known
    if kind == EventType.EFI_ACTION:
        return _text(data) or "action"
    text = _text(data) if kind in _TEXTS else ""
    return f"{known} {text}".strip() if text else known


def _text(data: bytes) -> str:
    """Read ASCII or UTF-16 text that ends with its zero; "" where it is none."""
    if len(data) >= 4 and len(data) % 2 == 0 and not any(data[1::2]):
        data = data[::2]
    data = data.rstrip(b"\0")
    return data.decode("ascii") if data and all(32 <= byte < 127 for byte in data) else ""


def _file_path(data: bytes) -> str:
    """Return the file of a UEFI_IMAGE_LOAD_EVENT's device path, "" if it names none."""
    if len(data) < _IMAGE.size:
        return ""
    at, names = _IMAGE.size, []
    while at + 4 <= len(data):
        kind, subtype = data[at], data[at + 1]
        size = int.from_bytes(data[at + 2 : at + 4], "little")
        if kind == _END_NODE or size < 4 or at + size > len(data):
            break
        if (kind, subtype) == _FILE_NODE:
            names.append(_text(data[at + 4 : at + size]))
        at += size
    return "".join(names)


def _line(text: str) -> str:
    # A log's data come from its host: nothing in them may draw on an officer's terminal.
    printable = "".join(
        " " if unicodedata.category(c)[0] in "CZ" else c for c in text[: 4 * MAX_LABEL_CHARS]
    )
    line = re.sub(r" +", " ", printable).strip()
    return line if len(line) <= MAX_LABEL_CHARS else f"{line[: MAX_LABEL_CHARS - 1]}…"
