"""Credential challenges: an enroller's proof that an AK and an EK are in one TPM.

Needs tpm2-tss's mathematics but no TPM (part 1 section 24).  The host's side is
`custody.keys.hostapi.HostTpm.activate`.
"""

from __future__ import annotations

from tpm2_pytss.types import TPM2B_NAME, TPM2B_PUBLIC
from tpm2_pytss.utils import make_credential as _make_credential

from custody.formats.evidence import parse_public
from custody.formats.tpmwire import sized
from custody.keys.tpm_session import unmarshal

#: A credential must fit the name hash of the EK (TPM2B_DIGEST).
MAX_SECRET_BYTES = 32


def make_credential(ek_public: bytes, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return (credential blob, encrypted secret), which only this EK with this AK opens.

    ``ek_public`` is a TPMT_PUBLIC rebuilt from a verified certificate (`evidence.ek_public`): one
    sent by the host would make the challenge worthless.  ``secret`` has at most 32 bytes.
    """
    if not 1 <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError(f"a credential has 1 to {MAX_SECRET_BYTES} bytes")
    parse_public(ek_public)
    ek = unmarshal(TPM2B_PUBLIC, sized(ek_public))
    blob, encrypted = _make_credential(ek, secret, TPM2B_NAME(ak_name))
    return bytes(blob), bytes(encrypted)
