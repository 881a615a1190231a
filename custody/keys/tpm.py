"""TPMs by URI: a host's TPM, and a TPM as a person's token.

The adapters are in `custody.keys.tpm_host` and `custody.keys.tpm_token`; only the wiring and the
lab come here.
"""

from __future__ import annotations

from custody.keys.pin import PinReader, read_pin_source
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_token import TpmToken
from custody.keys.uri import TpmUri

__all__ = ["TpmHost", "TpmToken", "open_host", "open_token"]


def open_host(uri: TpmUri, *, ek_spki: bytes | None = None) -> TpmHost:
    """Open the TPM ``uri`` names as a host uses it.

    ``ek_spki`` pins the endorsement key of the host's enrolment.  A ``pin-source`` in the URI is
    the owner hierarchy's authorisation value.
    """
    owner = b"" if uri.pin_source is None else bytes(read_pin_source(uri.pin_source))
    return TpmHost(uri.tcti, ek_spki=ek_spki, owner_auth=owner)


def open_token(uri: TpmUri, *, pin: PinReader | None = None) -> TpmToken:
    """Open the TPM ``uri`` names as a token, for one command.

    ``pin`` asks the person, if the URI has no ``pin-source``, at the first operation that needs it.
    """
    return TpmToken(uri, pin=pin)
