"""Raw TPM commands, as firmware sends them before there is an operating system.

Source: TPM 2.0 part 3.  Only what the lab's machines need to be made, to boot and to shut down;
nothing in it is secret, so every authorisation is an empty password.
"""

from __future__ import annotations

from custody.formats.evidence import Alg, NvPublic
from custody.formats.tpmwire import sized, u16, u32

_ST_NO_SESSIONS = 0x8001
_ST_SESSIONS = 0x8002
_RH_OWNER = 0x40000001
#: One password session with an empty password (TPMS_AUTH_COMMAND, part 2 section 10.13.2).
_EMPTY_PASSWORD = u32(0x40000009) + bytes(5)

_CC_NV_DEFINE_SPACE = 0x012A
_CC_NV_WRITE = 0x0137
_CC_SHUTDOWN = 0x0145
_CC_GET_TEST_RESULT = 0x017C
_CC_READ_CLOCK = 0x0181
_CC_PCR_EXTEND = 0x0182


def get_test_result() -> bytes:
    """TPM2_GetTestResult: the least a started TPM answers."""
    return _command(_CC_GET_TEST_RESULT)


def shutdown(*, keep_state: bool) -> bytes:
    """TPM2_Shutdown(STATE) or (CLEAR)."""
    return _command(_CC_SHUTDOWN, parameters=u16(int(keep_state)))


def read_clock() -> bytes:
    """TPM2_ReadClock."""
    return _command(_CC_READ_CLOCK)


def clock_is_safe(response: bytes) -> bool:
    """Return ``safe`` of TPM2_ReadClock's answer: the last byte of TPMS_TIME_INFO."""
    return response_code(response) == 0 and response[-1:] == b"\x01"


def pcr_extend(pcr: int, digest: bytes) -> bytes:
    """TPM2_PCR_Extend with one SHA-256 digest."""
    digests = u32(1) + u16(Alg.SHA256) + digest
    return _command(_CC_PCR_EXTEND, handles=(pcr,), parameters=digests, authorised=True)


def nv_define(public: NvPublic) -> bytes:
    """TPM2_NV_DefineSpace by the owner, with an empty authorisation value."""
    parameters = sized(b"") + sized(public.pack())
    return _command(
        _CC_NV_DEFINE_SPACE, handles=(_RH_OWNER,), parameters=parameters, authorised=True
    )


def nv_write(index: int, data: bytes, *, offset: int) -> bytes:
    """TPM2_NV_Write by the owner."""
    return _command(
        _CC_NV_WRITE,
        handles=(_RH_OWNER, index),
        parameters=sized(data) + u16(offset),
        authorised=True,
    )


def response_code(response: bytes) -> int:
    """Return TPM_RC; 0 is success."""
    return int.from_bytes(response[6:10], "big")


def _command(
    code: int, *, handles: tuple[int, ...] = (), parameters: bytes = b"", authorised: bool = False
) -> bytes:
    body = b"".join(u32(handle) for handle in handles)
    if authorised:
        body += u32(len(_EMPTY_PASSWORD)) + _EMPTY_PASSWORD
    body += parameters
    tag = _ST_SESSIONS if authorised else _ST_NO_SESSIONS
    return u16(tag) + u32(10 + len(body)) + u32(code) + body
