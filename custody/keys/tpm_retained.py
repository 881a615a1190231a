"""A content key kept in the TPM over restarts.  Protocol: docs/protocol.md section 6, "Sealed".

The object lies under the storage key of the owner hierarchy, which every boot makes again and only
TPM2_Clear ends.  Its policy is the boot state and an NV counter's value.
"""

from __future__ import annotations

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import (
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
)

from custody.crypto import tpmpolicy
from custody.errors import Refused
from custody.formats.tpmpublic import STORAGE_TEMPLATE, sealed_template
from custody.formats.tpmwire import sized
from custody.keys.hostapi import Counter, RetainedKey
from custody.keys.tpm_hostkey import MAX_SEALED_BYTES, saying
from custody.keys.tpm_session import (
    RC_HANDLE,
    RC_INTEGRITY,
    RC_PCR_CHANGED,
    RC_POLICY,
    RC_POLICY_FAIL,
    RC_VALUE,
    Connection,
    Handle,
    code,
    unmarshal,
)


def seal(
    link: Connection,
    secret: bytes | bytearray,
    *,
    pcrs: tuple[int, ...],
    pcr_digest: bytes,
    counter: Counter,
) -> RetainedKey:
    """Seal ``secret`` for a boot state and a counter's value; it crosses the bus encrypted."""
    if not 1 <= len(secret) <= MAX_SEALED_BYTES:
        raise ValueError(f"a TPM seals 1 to {MAX_SEALED_BYTES} bytes")
    policy = tpmpolicy.retained_policy(
        pcrs, pcr_digest, nv_name=counter.name, counter=counter.value
    )
    parent = _parent(link)
    session = link.salted_session()
    private, public, *_ = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=bytes(secret))),
        unmarshal(TPM2B_PUBLIC, sized(sealed_template(policy))),
        session1=session,
    )
    return RetainedKey(
        public=public.publicArea.marshal(),
        private=bytes(private),
        pcrs=pcrs,
        pcr_digest=pcr_digest.hex(),
        counter_index=counter.index,
        counter=counter.value,
    )


def unseal(link: Connection, key: RetainedKey) -> bytearray:
    """Show the TPM the boot state and the counter, and unseal; it crosses the bus encrypted."""
    session = _run_policy(link, key)
    parent = _parent(link)
    elsewhere = "it was kept by another TPM, or before this one was cleared"
    with saying(elsewhere, "tpm.retained", RC_INTEGRITY):
        handle = link.keep(
            link.esys.load(
                parent,
                unmarshal(TPM2B_PRIVATE, sized(key.private)),
                unmarshal(TPM2B_PUBLIC, sized(key.public)),
            )
        )
    link.drop(parent)
    with (
        saying("the key was kept under another policy", "tpm.policy", RC_POLICY_FAIL),
        saying("a register changed while the policy was shown", "tpm.pcr", RC_PCR_CHANGED),
    ):
        return bytearray(bytes(link.esys.unseal(handle, session1=session)))


def _run_policy(link: Connection, key: RetainedKey) -> Handle:
    session = link.salted_session(policy=True)
    with saying("the boot state is not the one the key is kept for", "tpm.pcr", RC_VALUE):
        selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(key.pcrs))
        link.esys.policy_pcr(session, bytes.fromhex(key.pcr_digest), selection)
    try:
        counter = link.esys.tr_from_tpmpublic(key.counter_index)
    except TSS2_Exception as error:
        if code(error) == RC_HANDLE:
            raise Refused("the TPM was cleared since it was kept", check="tpm.retained") from error
        raise
    with saying("it was forgotten: its counter has moved on", "tpm.counter", RC_POLICY):
        operand = key.counter.to_bytes(8, "big")
        link.esys.policy_nv(counter, counter, session, operand, tpmpolicy.EO_EQ)
    return session


def _parent(link: Connection) -> Handle:
    """Make the owner's storage key; its authorisation is shown by HMAC, not in the clear."""
    session = link.salted_session()
    template = unmarshal(TPM2B_PUBLIC, sized(STORAGE_TEMPLATE.pack()))
    made = link.esys.create_primary(
        TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.OWNER, session1=session
    )[0]
    link.drop(session)
    return link.keep(made)
