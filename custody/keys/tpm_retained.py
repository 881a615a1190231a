"""A content key kept in the TPM over restarts.  Protocol: docs/protocol.md section 6, "Sealed".

The object lies under the storage key of the owner hierarchy, which every boot makes again and only
TPM2_Clear ends.  Its policy is the boot state and an NV counter's value; where the key follows
updates, each enroller's share of it is one more object, under a policy he can authorise states for
(`custody.crypto.tpmretained`).  No check of a policy is made here: the TPM makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMS_SENSITIVE_CREATE,
    TPMT_SIGNATURE,
)

from custody.crypto import tpmpolicy, tpmretained
from custody.crypto.secret import Octets
from custody.crypto.tpmretained import KeptCounters
from custody.encoding import sha256
from custody.errors import Refused
from custody.formats.tpmnv import counter_public, nv_name
from custody.formats.tpmpublic import STORAGE_TEMPLATE, sealed_template
from custody.formats.tpmwire import sized
from custody.keys.hostapi import (
    AuthorisedState,
    Counter,
    RetainedKey,
    RetainedShare,
    RetainedUpdates,
    Updating,
)
from custody.keys.tpm_errors import (
    RC_HANDLE,
    RC_INTEGRITY,
    RC_PCR_CHANGED,
    RC_POLICY,
    RC_POLICY_FAIL,
    RC_SIGNATURE,
    RC_VALUE,
    code,
)
from custody.keys.tpm_hostkey import MAX_SEALED_BYTES, saying, tpm_signature
from custody.keys.tpm_session import Connection, Handle, unmarshal


def seal(
    link: Connection,
    secret: bytes | bytearray,
    *,
    pcrs: tuple[int, ...],
    pcr_digest: bytes,
    counter: Counter,
) -> RetainedKey:
    """Seal ``secret`` for a boot state and a counter's value; it crosses the bus encrypted."""
    policy = tpmretained.retained_policy(
        pcrs, pcr_digest, nv_name=counter.name, counter=counter.value
    )
    public, private = _seal(link, _parent(link), secret, policy)
    return RetainedKey(
        public=public,
        private=private,
        pcrs=pcrs,
        pcr_digest=pcr_digest.hex(),
        counter_index=counter.index,
        counter=counter.value,
        updates=None,
    )


def seal_updating(
    link: Connection,
    secret: bytes | bytearray,
    *,
    pcrs: tuple[int, ...],
    pcr_digest: bytes,
    counter: Counter,
    epoch: Counter,
    updating: Updating,
) -> RetainedKey:
    """Seal ``secret`` for a boot state, and each share for what its enroller authorises later."""
    counters = KeptCounters(
        own_name=counter.name, own=counter.value, epoch_name=epoch.name, epoch=epoch.value
    )
    line = updating.line
    parent = _parent(link)
    policy = tpmretained.first_state_policy(pcrs, pcr_digest, counters)
    public, private = _seal(link, parent, secret, policy)
    shares = []
    for each in updating.shares:
        policy = tpmretained.share_policy(each.keys, line=line, counters=counters)
        share_public, share_private = _seal(link, parent, each.share, policy)
        shares.append(
            RetainedShare(
                principal=each.principal,
                keys=each.keys,
                public=share_public,
                private=share_private,
            )
        )
    return RetainedKey(
        public=public,
        private=private,
        pcrs=pcrs,
        pcr_digest=pcr_digest.hex(),
        counter_index=counter.index,
        counter=counter.value,
        updates=RetainedUpdates(
            environment=line.environment.hex(),
            name=line.name,
            epoch=line.epoch,
            needed=updating.needed,
            epoch_index=epoch.index,
            epoch_counter=epoch.value,
            shares=tuple(shares),
        ),
    )


def unseal(link: Connection, key: RetainedKey) -> bytearray:
    """Show the TPM the boot state and the counters, and unseal; it crosses the bus encrypted."""
    session = link.salted_session(policy=True)
    _policy_pcr(link, session, key.pcrs, bytes.fromhex(key.pcr_digest))
    if key.updates is not None:
        _policy_epoch(link, session, key.updates, 0)
    _policy_own_counter(link, session, key)
    return _unseal(link, _parent(link), key.public, key.private, session)


def unseal_shares(
    link: Connection, key: RetainedKey, states: Sequence[AuthorisedState]
) -> tuple[bytearray, ...]:
    """Unseal the share of each enroller who authorised the boot state; all cross encrypted."""
    updates = key.updates
    if updates is None:
        raise Refused("the key is kept for one boot state only", check="tpm.policy")
    parent = _parent(link)
    found = []
    for state in states:
        share = updates.shares[state.share]
        session = link.salted_session(policy=True)
        _run_share_policy(link, session, key, updates, share, state)
        found.append(_unseal(link, parent, share.public, share.private, session))
        link.drop(session)
    return tuple(found)


def _run_share_policy(
    link: Connection,
    session: Handle,
    key: RetainedKey,
    updates: RetainedUpdates,
    share: RetainedShare,
    state: AuthorisedState,
) -> None:
    if state.spki not in share.keys:
        raise Refused(f"the share of {share.principal} is not for this key", check="tpm.policy")
    if not updates.line.covers(state.epoch):
        raise Refused(
            f"a key kept in epoch {updates.epoch} opens in no state of epoch {state.epoch}",
            check="tpm.policy",
        )
    _policy_pcr(link, session, state.pcrs, state.pcr_digest)
    _policy_authorize(link, session, updates, state)
    _policy_epoch(link, session, updates, state.epoch - updates.epoch)
    counters = KeptCounters(
        own_name=nv_name(counter_public(key.counter_index).pack()),
        own=key.counter,
        epoch_name=nv_name(counter_public(updates.epoch_index).pack()),
        epoch=updates.epoch_counter,
    )
    with saying("the share was sealed under another policy", "tpm.policy", RC_VALUE):
        for step in tpmretained.share_steps(
            share.keys, state.spki, state.epoch, line=updates.line, counters=counters
        ):
            digests = TPML_DIGEST([TPM2B_DIGEST(branch) for branch in step.branches])
            link.esys.policy_or(session, digests)
    _policy_own_counter(link, session, key)


def _policy_pcr(
    link: Connection, session: Handle, pcrs: tuple[int, ...], pcr_digest: bytes
) -> None:
    with saying("the boot state is not the one the key is kept for", "tpm.pcr", RC_VALUE):
        selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(pcrs))
        link.esys.policy_pcr(session, pcr_digest, selection)


def _policy_authorize(
    link: Connection, session: Handle, updates: RetainedUpdates, state: AuthorisedState
) -> None:
    """Show an enroller's signature on the state; it takes the place of the state itself."""
    approved = tpmretained.state_policy(state.pcrs, state.pcr_digest)
    ref = updates.line.ref(state.epoch)
    public = sized(tpmpolicy.officer_key_public(state.spki))
    # In the owner hierarchy: of what the NULL hierarchy verified the TPM gives no ticket.
    signer = link.keep(
        link.esys.load_external(unmarshal(TPM2B_PUBLIC, public), hierarchy=ESYS_TR.OWNER)
    )
    signature = unmarshal(TPMT_SIGNATURE, tpm_signature(state.signature))
    refused = "the TPM refused an enroller's authorisation of this boot state"
    with saying(refused, "tpm.authorisation", RC_SIGNATURE, RC_VALUE):
        ticket = link.esys.verify_signature(signer, sha256(approved, ref), signature)
        name = tpmpolicy.officer_key_name(state.spki)
        link.esys.policy_authorize(session, approved, name, ticket, ref)
    link.drop(signer)


def _policy_epoch(link: Connection, session: Handle, updates: RetainedUpdates, since: int) -> None:
    operand = (updates.epoch_counter + since).to_bytes(8, "big")
    counter = _counter(link, updates.epoch_index)
    retired = f"epoch {updates.epoch + since} of {updates.name} was retired in this TPM"
    with saying(retired, "tpm.epoch", RC_POLICY):
        link.esys.policy_nv(counter, counter, session, operand, tpmpolicy.EO_UNSIGNED_LE)


def _policy_own_counter(link: Connection, session: Handle, key: RetainedKey) -> None:
    counter = _counter(link, key.counter_index)
    with saying("it was forgotten: its counter has moved on", "tpm.counter", RC_POLICY):
        operand = key.counter.to_bytes(8, "big")
        link.esys.policy_nv(counter, counter, session, operand, tpmpolicy.EO_EQ)


def _counter(link: Connection, index: int) -> Handle:
    try:
        return link.esys.tr_from_tpmpublic(index)
    except TSS2_Exception as error:
        if code(error) == RC_HANDLE:
            raise Refused("the TPM was cleared since it was kept", check="tpm.retained") from error
        raise


def _seal(link: Connection, parent: Handle, secret: Octets, policy: bytes) -> tuple[bytes, bytes]:
    if not 1 <= len(secret) <= MAX_SEALED_BYTES:
        raise ValueError(f"a TPM seals 1 to {MAX_SEALED_BYTES} bytes")
    session = link.salted_session()
    private, public, *_ = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=bytes(secret))),
        unmarshal(TPM2B_PUBLIC, sized(sealed_template(policy))),
        session1=session,
    )
    link.drop(session)
    return public.publicArea.marshal(), bytes(private)


def _unseal(
    link: Connection, parent: Handle, public: bytes, private: bytes, session: Handle
) -> bytearray:
    elsewhere = "it was kept by another TPM, or before this one was cleared"
    with saying(elsewhere, "tpm.retained", RC_INTEGRITY):
        handle = link.keep(
            link.esys.load(
                parent,
                unmarshal(TPM2B_PRIVATE, sized(private)),
                unmarshal(TPM2B_PUBLIC, sized(public)),
            )
        )
    with (
        saying("the key was kept under another policy", "tpm.policy", RC_POLICY_FAIL),
        saying("a register changed while the policy was shown", "tpm.pcr", RC_PCR_CHANGED),
    ):
        found = bytearray(bytes(link.esys.unseal(handle, session1=session)))
    link.drop(handle)
    return found


def _parent(link: Connection) -> Handle:
    """Make the owner's storage key; its authorisation is shown by HMAC, not in the clear."""
    session = link.salted_session()
    made = link.create_primary(ESYS_TR.OWNER, STORAGE_TEMPLATE.pack(), session=session)
    link.drop(session)
    return link.keep(made)
