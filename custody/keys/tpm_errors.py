"""What a TPM's response codes say, in the errors of this program."""

from __future__ import annotations

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import TSS2_RC

from custody.errors import CustodyError, Refused, Unavailable

_LAYER_TPM = 0x00
_LAYER_RESOURCE_MANAGER_TPM = 0x0B
_RC_WARNING = 0x900
_RC_LOCKOUT = 0x921

#: Response codes (part 2 section 6.6.3) that callers tell apart, without handle and parameter.
RC_ATTRIBUTES = 0x082
RC_VALUE = 0x084
RC_TYPE = 0x08A
RC_HANDLE = 0x08B
RC_AUTH_FAIL = 0x08E
RC_SIGNATURE = 0x09B
RC_INTEGRITY = 0x09F
RC_POLICY_FAIL = 0x09D
RC_BAD_AUTH = 0x0A2
RC_POLICY = 0x126
RC_PCR_CHANGED = 0x128

#: What tpm2-tss says of an answer whose HMAC or Name is wrong.
_ALTERED = (
    TSS2_RC.ESYS_RC_RSP_AUTH_FAILED,
    TSS2_RC.ESYS_RC_MALFORMED_RESPONSE,
)


def code(error: TSS2_Exception) -> int:
    """Return a response code without handle, parameter and session; 0 if no TPM gave it."""
    if error.rc >> 16 & 0xFF not in (_LAYER_TPM, _LAYER_RESOURCE_MANAGER_TPM):
        return 0
    return int(error.error) & 0xFFFF


def is_refusal(error: TSS2_Exception) -> bool:
    """Say whether a TPM answered no, rather than being away, busy or full."""
    return code(error) != 0 and code(error) & 0xF80 != _RC_WARNING


def translate(error: TSS2_Exception, doing: str, *, where: str) -> CustodyError:
    """Turn a tpm2-tss error nobody expected into one of ours."""
    if error.rc in _ALTERED:
        return Refused("the TPM's answer was altered on its way", check="tpm.session", where=where)
    if code(error) == _RC_LOCKOUT:
        return Refused("the TPM is locked after wrong PINs", check="token.pin-locked", where=where)
    if not is_refusal(error):
        return Unavailable(f"the TPM cannot {doing} (0x{error.rc:x})", where=where)
    return Refused(f"the TPM refused to {doing} (0x{error.rc:x})", check="tpm.command", where=where)
