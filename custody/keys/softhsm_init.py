"""Initialise one SoftHSM token: ``python -I softhsm_init.py LIBRARY LABEL``; stands alone.

The SO PIN and the user PIN are read from standard input, a line each; the serial number is written
to standard output.  C_InitToken is not in python-pkcs11, and softhsm2-util takes PINs on its
command line, so the library's exported functions are called directly (PKCS#11 3.1 section 5).
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_ubyte, c_ulong, create_string_buffer

_SERIAL_SESSION, _RW_SESSION = 4, 2
_SO = 0
# CK_TOKEN_INFO: label 32, manufacturer 32, model 16, serial 16, then flags.
_INFO_BYTES, _SERIAL_AT, _FLAGS_AT = 512, 80, 96
_INITIALISED = 0x400


def main(library: str, label: str) -> int:
    """Run the child; 0 or a line on standard error."""
    so_pin, user_pin = (sys.stdin.buffer.readline().rstrip(b"\n") for _ in range(2))
    module = ctypes.CDLL(library)
    _call(module, "C_Initialize", None)
    before = {serial for _, serial in _tokens(module)}
    free = next(slot for slot in _slots(module) if not _info(module, slot)[1])
    _call(
        module, "C_InitToken", c_ulong(free), so_pin, c_ulong(len(so_pin)), label.encode().ljust(32)
    )
    slot, serial = next(item for item in _tokens(module) if item[1] not in before)
    session = c_ulong()
    flags = c_ulong(_SERIAL_SESSION | _RW_SESSION)
    _call(module, "C_OpenSession", c_ulong(slot), flags, None, None, byref(session))
    _call(module, "C_Login", session, c_ulong(_SO), so_pin, c_ulong(len(so_pin)))
    _call(module, "C_InitPIN", session, user_pin, c_ulong(len(user_pin)))
    _call(module, "C_Logout", session)
    _call(module, "C_CloseSession", session)
    _call(module, "C_Finalize", None)
    sys.stdout.write(serial + "\n")
    return 0


def _call(module: ctypes.CDLL, name: str, *arguments: object) -> None:
    answer = getattr(module, name)(*arguments)
    if answer != 0:
        sys.exit(f"{name} answered {answer:#x}")


def _slots(module: ctypes.CDLL) -> list[int]:
    count = c_ulong()
    _call(module, "C_GetSlotList", c_ubyte(1), None, byref(count))
    slots = (c_ulong * count.value)()
    _call(module, "C_GetSlotList", c_ubyte(1), slots, byref(count))
    return list(slots)


def _info(module: ctypes.CDLL, slot: int) -> tuple[str, bool]:
    buffer = create_string_buffer(_INFO_BYTES)
    _call(module, "C_GetTokenInfo", c_ulong(slot), buffer)
    flags = c_ulong.from_buffer(buffer, _FLAGS_AT).value
    serial = buffer.raw[_SERIAL_AT:_FLAGS_AT].decode("ascii").strip()
    return serial, bool(flags & _INITIALISED)


def _tokens(module: ctypes.CDLL) -> list[tuple[int, str]]:
    described = [(slot, *_info(module, slot)) for slot in _slots(module)]
    return [(slot, serial) for slot, serial, initialised in described if initialised]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
