"""A host's TLS key in its TPM, where any program that speaks TPM finds it by its handle.

It is what `TLS_KEY_TEMPLATE` says: fixed to this TPM, and of use to whoever runs on the host.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_RH, TPM2_ST
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMT_SIG_SCHEME,
    TPMT_TK_HASHCHECK,
)

from custody.crypto.signature import load_ec_public
from custody.errors import Refused
from custody.formats.evidence import TLS_KEY_TEMPLATE, matches, parse_public, spki
from custody.formats.tpmpublic import STORAGE_TEMPLATE
from custody.formats.tpmwire import sized
from custody.keys.prehash import digest_to_sign
from custody.keys.tpm_key import TpmKey
from custody.keys.tpm_session import Connection, Handle, Tpm, unmarshal

#: Where it is kept (owner range), behind the keys of people's tokens.
TLS_HANDLE = 0x81000C40


class TlsKey(TpmKey):
    """The TLS key as a key; each signature is one conversation with the TPM."""

    def __init__(self, tpm: Tpm, public: bytes) -> None:
        super().__init__(load_ec_public(spki(public)))
        self._tpm = tpm

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        """Hash on the host, sign with TPM2_Sign (part 3 section 20.2), return DER."""
        digest, chosen = digest_to_sign(data, signature_algorithm)
        if chosen.name != hashes.SHA256.name:
            raise UnsupportedAlgorithm("this TPM key signs with SHA-256")
        # A NULL ticket: only a restricted key wants proof that the TPM hashed the message.
        ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        with self._tpm.connect("sign with its TLS key") as link:
            made = link.esys.sign(find(link), digest, scheme, ticket)
        pair = made.signature.ecdsa
        return encode_dss_signature(
            int.from_bytes(bytes(pair.signatureR), "big"),
            int.from_bytes(bytes(pair.signatureS), "big"),
        )


def find(link: Connection) -> Handle:
    """Return the TLS key's handle, making the key on first use; another key there is `Refused`."""
    if TLS_HANDLE in link.handles(TLS_HANDLE, 1):
        handle = link.esys.tr_from_tpmpublic(TLS_HANDLE)
    else:
        handle = _make(link)
    if not matches(parse_public(link.public(handle)), TLS_KEY_TEMPLATE):
        raise Refused(f"the key at 0x{TLS_HANDLE:08x} is not a TLS key", check="tpm.tls-key")
    return handle


def _make(link: Connection) -> Handle:
    # All in a session: the owner's authorisation value would cross the bus in the clear.
    session = link.salted_session()
    parent = link.keep(link.create_primary(ESYS_TR.OWNER, STORAGE_TEMPLATE.pack(), session=session))
    private, public, *_ = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(),
        unmarshal(TPM2B_PUBLIC, sized(TLS_KEY_TEMPLATE.pack())),
        session1=session,
    )
    made = link.keep(link.esys.load(parent, private, public))
    link.drop(parent)
    handle = link.esys.evict_control(ESYS_TR.OWNER, made, TLS_HANDLE, session1=session)
    link.drop(session)
    link.drop(made)
    return handle
