"""A host's TPM, behind the protocol of `custody.keys.hostapi`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMT_SIG_SCHEME,
    TPMT_TK_CREATION,
)

from custody.crypto.tpmpolicy import pcr_selection
from custody.crypto.tpmretained import EPOCHS
from custody.errors import Incomplete, Malformed, Refused, Unavailable
from custody.formats.evidence import (
    AK_TEMPLATE,
    Alg,
    Curve,
    low_s,
    matches,
    parse_public,
)
from custody.formats.tpmnv import COUNTER_BYTES
from custody.formats.tpmwire import sized
from custody.keys import tpm_counters, tpm_hostkey, tpm_retained, tpm_tlskey
from custody.keys.hostapi import (
    EPOCH_INDEX_OFFSET,
    Attested,
    AuthorisedState,
    CertifiedKey,
    Clock,
    Counter,
    HostKey,
    HostPolicyPlan,
    Life,
    RetainedKey,
    RetainedStanding,
    SealedSeed,
    Updating,
)
from custody.keys.tpm_errors import is_refusal
from custody.keys.tpm_session import (
    Connection,
    Handle,
    Tpm,
    read_certificates,
    read_ek_certificate,
    unmarshal,
)

#: Where the AK is kept, so that a slow TPM makes it once (endorsement range of the registry).
AK_HANDLE = 0x81010C01
_EK_CHAIN_FIRST = 0x01C00100
_EK_CHAIN_LAST = 0x01C001FF
_MAX_CREDENTIAL_BYTES = 512
_PCRS_PER_READ = 8


class TpmHost:
    """Implements `HostTpm`.

    ``ek_spki`` pins the EK of the host's enrolment.  ``owner_auth`` is the owner hierarchy's
    authorisation value, which whoever runs the host should have set: an owner without one lets
    anybody on the host undefine counters and slow the clock.
    """

    def __init__(
        self, tcti: str | None = None, *, ek_spki: bytes | None = None, owner_auth: bytes = b""
    ) -> None:
        self._tcti = tcti
        self._ek_spki = ek_spki
        self._tpm = Tpm(tcti, ek_spki=ek_spki)
        self._owner_auth = owner_auth

    def __repr__(self) -> str:
        return f"<TpmHost {self._tpm.where}>"

    def salted_to(self, ek_spki: bytes) -> TpmHost:
        if ek_spki == self._ek_spki:
            return self
        return TpmHost(self._tcti, ek_spki=ek_spki, owner_auth=self._owner_auth)

    @contextmanager
    def conversation(self) -> Iterator[None]:
        with self._tpm.hold("be asked"):
            yield

    def ek_certificate(self) -> bytes:
        with self._tpm.connect("read its EK certificate") as link:
            held = read_ek_certificate(link)
        if held is None:
            raise Unavailable(
                "the TPM holds no certificate of an endorsement key", where=self._tpm.where
            )
        return held

    def ek_intermediates(self) -> tuple[bytes, ...]:
        with self._tpm.connect("read its EK certificate chain") as link:
            held = [
                index
                for index in link.handles(_EK_CHAIN_FIRST)
                if _EK_CHAIN_FIRST <= index <= _EK_CHAIN_LAST
            ]
            # A chain longer than an index goes on in the next one, cut anywhere.
            return read_certificates(b"".join(link.nv_read(index) for index in held))

    def ak_public(self) -> bytes:
        with self._tpm.connect("show its attestation key") as link:
            return link.public(self._ak(link))

    def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        if max(len(credential_blob), len(encrypted_secret)) > _MAX_CREDENTIAL_BYTES:
            raise Malformed("the credential challenge is too long")
        with self._tpm.connect("open a credential challenge") as link:
            blob = unmarshal(TPM2B_ID_OBJECT, sized(credential_blob))
            secret = unmarshal(TPM2B_ENCRYPTED_SECRET, sized(encrypted_secret))
            ak = self._ak(link)
            ek = link.load_endorsement_key()
            session = self._ek_session(link)
            try:
                found = link.esys.activate_credential(
                    ak, ek, blob, secret, session1=ESYS_TR.PASSWORD, session2=session
                )
            except TSS2_Exception as error:
                # Which code says so differs: a TPM whose EK is another fails to decrypt.
                if is_refusal(error):
                    raise Refused(
                        "the challenge was made for another EK or AK", check="tpm.activate"
                    ) from error
                raise
            return bytes(found)

    def quote(self, qualifying: bytes, pcrs: tuple[int, ...]) -> Attested:
        with self._tpm.connect("quote its registers") as link:
            selection = unmarshal(TPML_PCR_SELECTION, pcr_selection(pcrs))
            attest, signature = link.esys.quote(self._ak(link), selection, qualifying)
            return _attested(attest, signature)

    def pcr_values(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        values: list[bytes] = []
        with self._tpm.connect("read its registers") as link:
            for start in range(0, len(pcrs), _PCRS_PER_READ):
                asked = sorted(pcrs[start : start + _PCRS_PER_READ])
                selection = unmarshal(TPML_PCR_SELECTION, pcr_selection(asked))
                _, got, digests = link.esys.pcr_read(selection)
                # A TPM without this bank answers with fewer registers, not with an error.
                if got.marshal() != pcr_selection(asked):
                    raise Refused("the TPM has no SHA-256 bank of these registers", check="tpm.pcr")
                found = dict(zip(asked, (bytes(digest) for digest in digests), strict=True))
                values += (found[pcr] for pcr in pcrs[start : start + _PCRS_PER_READ])
        return tuple(values)

    def clock(self) -> Clock:
        with self._tpm.connect("read its clock") as link:
            info = link.esys.read_clock().clockInfo
            return Clock(
                clock_ms=int(info.clock),
                reset_count=int(info.resetCount),
                restart_count=int(info.restartCount),
                safe=bool(info.safe),
            )

    def counters(self) -> tuple[Counter, ...]:
        with self._tpm.connect("list its counters") as link:
            return tpm_counters.pool(link)

    def allocate_counter(self, busy: Collection[int]) -> Counter:
        free = next((index for index in tpm_counters.POOL if index not in busy), None)
        if free is None:
            raise Incomplete(
                "every counter of the TPM is held by an open request",
                missing=[f"0x{index:08x}" for index in sorted(busy)],
                where=self._tpm.where,
                hint="open or cancel one of the open requests",
            )
        with self._tpm.connect("set up a counter") as link:
            return tpm_counters.renew(link, free, owner_auth=self._owner_auth)

    def read_counter(self, index: int) -> int:
        with self._tpm.connect("read a counter") as link:
            return tpm_counters.read(link, index).value

    def increment(self, index: int) -> None:
        with self._tpm.connect("increment a counter") as link:
            tpm_counters.increment(link, tpm_counters.handle(link, index))

    def certify_counter(self, index: int, qualifying: bytes) -> Attested:
        with self._tpm.connect("certify a counter") as link:
            counter = tpm_counters.handle(link, index)
            attest, signature = link.esys.nv_certify(
                self._ak(link),
                counter,
                qualifying,
                TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
                COUNTER_BYTES,
                0,
                auth_handle=counter,
            )
            return _attested(attest, signature)

    def create_host_key(
        self, auth_policy: bytes, pcrs: tuple[int, ...], *, curve: Curve | None = None
    ) -> HostKey:
        with self._tpm.connect("make a key for this request") as link:
            return tpm_hostkey.create(link, auth_policy, pcrs, curve=curve)

    def certify_creation(self, host_key: HostKey, qualifying: bytes) -> Attested:
        with self._tpm.connect("certify its key") as link, tpm_hostkey.loading():
            handle = tpm_hostkey.load(link, host_key.public, host_key.private)
            attest, signature = link.esys.certify_creation(
                self._ak(link),
                handle,
                qualifying,
                host_key.creation_hash,
                TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
                unmarshal(TPMT_TK_CREATION, host_key.creation_ticket),
            )
            return _attested(attest, signature)

    def seal_seed(self, auth_policy: bytes, seed: bytes | bytearray) -> SealedSeed:
        with self._tpm.connect("seal a seed") as link:
            return tpm_hostkey.seal(link, auth_policy, seed)

    def unseal_seed(self, sealed: SealedSeed, plan: HostPolicyPlan) -> bytearray:
        with self._tpm.connect("unseal a seed") as link:
            return tpm_hostkey.unseal(link, sealed, plan)

    def open_host_key(self, host_key: HostKey, plan: HostPolicyPlan) -> ec.EllipticCurvePrivateKey:
        return tpm_hostkey.OpenHostKey(self._tpm, host_key, plan)

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        with self._tpm.connect("show its TLS key") as link:
            public = link.public(self._tls(link))
        return tpm_tlskey.TlsKey(self._tpm, public)

    def certify_tls_key(self, qualifying: bytes) -> CertifiedKey:
        with self._tpm.connect("certify its TLS key") as link:
            handle = self._tls(link)
            scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
            attest, signature = link.esys.certify(handle, self._ak(link), qualifying, scheme)
            return CertifiedKey(link.public(handle), _attested(attest, signature))

    def _tls(self, link: Connection) -> Handle:
        link.esys.tr_set_auth(ESYS_TR.OWNER, self._owner_auth)
        return tpm_tlskey.find(link)

    def retain(
        self,
        secret: bytes | bytearray,
        *,
        pcrs: tuple[int, ...],
        pcr_digest: bytes,
        index: int,
        updating: Updating | None = None,
    ) -> RetainedKey:
        with self._tpm.connect("keep a key for restarts") as link:
            auth = self._owner_auth
            counter = tpm_counters.renew(link, index, owner_auth=auth)
            epoch = (
                None
                if updating is None
                else tpm_counters.stand(link, index + EPOCH_INDEX_OFFSET, owner_auth=auth)
            )
            link.esys.tr_set_auth(ESYS_TR.OWNER, self._owner_auth)
            if updating is None or epoch is None:
                return tpm_retained.seal(
                    link, secret, pcrs=pcrs, pcr_digest=pcr_digest, counter=counter
                )
            return tpm_retained.seal_updating(
                link,
                secret,
                pcrs=pcrs,
                pcr_digest=pcr_digest,
                counter=counter,
                epoch=epoch,
                updating=updating,
            )

    def unseal_retained(self, key: RetainedKey) -> bytearray:
        with self._tpm.connect("unseal a kept key") as link:
            link.esys.tr_set_auth(ESYS_TR.OWNER, self._owner_auth)
            return tpm_retained.unseal(link, key)

    def unseal_shares(
        self, key: RetainedKey, states: Sequence[AuthorisedState]
    ) -> tuple[bytearray, ...]:
        with self._tpm.connect("unseal a kept key after an update") as link:
            link.esys.tr_set_auth(ESYS_TR.OWNER, self._owner_auth)
            return tpm_retained.unseal_shares(link, key, states)

    def raise_epoch(self, key: RetainedKey, oldest: int) -> int:
        with self._tpm.connect("retire boot states") as link:
            standing = self._retained_standing(link, key)
            if standing.life != "alive" or key.updates is None or standing.oldest is None:
                raise Refused("there is no kept key to raise the epoch of", check="tpm.retained")
            wanted = min(oldest, key.updates.epoch + EPOCHS)
            handle = link.esys.tr_from_tpmpublic(key.updates.epoch_index)
            tpm_counters.increment(link, handle, times=max(0, wanted - standing.oldest))
            return max(standing.oldest, wanted)

    def retained_standing(self, key: RetainedKey) -> RetainedStanding:
        with self._tpm.connect("look at a kept key") as link:
            return self._retained_standing(link, key)

    def _retained_standing(self, link: Connection, key: RetainedKey) -> RetainedStanding:
        updates = key.updates
        indexes = [key.counter_index, *([updates.epoch_index] if updates else [])]
        if any(index not in link.attested_handles(index, 1) for index in indexes):
            return RetainedStanding(life="cleared", oldest=None)
        alive = tpm_counters.read(link, key.counter_index).value == key.counter
        life: Life = "alive" if alive else "forgotten"
        if updates is None:
            return RetainedStanding(life=life, oldest=None)
        raised = tpm_counters.read(link, updates.epoch_index).value - updates.epoch_counter
        return RetainedStanding(life=life, oldest=updates.epoch + max(0, raised))

    def forget_retained(self, key: RetainedKey) -> int:
        with self._tpm.connect("forget a kept key") as link:
            # Also where TPM2_Clear has taken the counter: made again it stands higher than ever.
            return tpm_counters.renew(link, key.counter_index, owner_auth=self._owner_auth).value

    def _ak(self, link: Connection) -> Handle:
        return link.shared(AK_HANDLE, lambda: self._find_ak(link))

    def _find_ak(self, link: Connection) -> Handle:
        if AK_HANDLE in link.handles(AK_HANDLE, 1):
            handle = link.esys.tr_from_tpmpublic(AK_HANDLE)
        else:
            made = link.keep(link.create_primary(ESYS_TR.ENDORSEMENT, AK_TEMPLATE.pack()))
            link.esys.tr_set_auth(ESYS_TR.OWNER, self._owner_auth)
            # In a session: the owner's authorisation value would cross the bus in the clear.
            session = link.salted_session()
            handle = link.esys.evict_control(ESYS_TR.OWNER, made, AK_HANDLE, session1=session)
            link.drop(session)
            link.drop(made)
        if not matches(parse_public(link.public(handle)), AK_TEMPLATE):
            raise Refused(f"the key at 0x{AK_HANDLE:08x} is not an attestation key", check="tpm.ak")
        return handle

    def _ek_session(self, link: Connection) -> Handle:
        template = link.endorsement_key.template
        session = link.salted_session(policy=True, alg=template.public.name_alg)
        link.esys.policy_secret(ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
        if template.branches is not None:
            branches = [TPM2B_DIGEST(branch) for branch in template.branches]
            link.esys.policy_or(session, TPML_DIGEST(branches))
        return session


def _attested(attest: Any, signature: Any) -> Attested:
    """Return what the AK signed, its signature in the one form that is read."""
    made = signature.signature.ecdsa
    one = low_s(
        bytes(made.signatureR),
        bytes(made.signatureS),
        hash_alg=Alg.SHA256,
        curve=ec.SECP256R1(),
    )
    return Attested(bytes(attest), one.pack())
