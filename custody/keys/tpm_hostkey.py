"""H in the TPM: make it, certify it, run its policy, use it.  Protocol: docs/protocol.md section 5.

No check of the policy is made here: the TPM makes them, and this module only tells it what
`custody.crypto.tpmpolicy` worked out and puts its refusals into words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_CAP
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

from custody.crypto import tpmpolicy
from custody.crypto.tpmpolicy import Or, Signed
from custody.errors import Malformed, Refused
from custody.formats.evidence import (
    HOST_PARENT_TEMPLATE,
    Alg,
    Curve,
    EccPublic,
    EcdsaSignature,
    host_key_template,
    parse_public,
)
from custody.formats.tpmpublic import sealed_template
from custody.formats.tpmwire import sized
from custody.keys.hostapi import HostKey, HostPolicyPlan, SealedSeed
from custody.keys.tpm_errors import (
    RC_INTEGRITY,
    RC_PCR_CHANGED,
    RC_POLICY,
    RC_POLICY_FAIL,
    RC_VALUE,
    code,
    is_refusal,
)
from custody.keys.tpm_key import TpmKey, shared_x, to_point
from custody.keys.tpm_session import Connection, Handle, Tpm, unmarshal

#: What a TPM may seal (MAX_SYM_DATA, part 2 annex A).
MAX_SEALED_BYTES = 128
_MAX_CURVES = 64


def create(
    link: Connection, auth_policy: bytes, pcrs: tuple[int, ...], *, curve: Curve | None
) -> HostKey:
    """Make H with TPM2_Create: its keys are random, a primary key would come out the same twice."""
    parent = _parent(link)
    template = host_key_template(_curve(link, curve), auth_policy)
    private, public, creation_data, creation_hash, ticket = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(),
        unmarshal(TPM2B_PUBLIC, sized(template.pack())),
        b"",
        unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(pcrs)),
        session1=link.salted_session(),
    )
    return HostKey(
        public=public.publicArea.marshal(),
        private=bytes(private),
        parent_public=link.public(parent),
        creation_data=creation_data.creationData.marshal(),
        creation_hash=bytes(creation_hash),
        creation_ticket=ticket.marshal(),
    )


def seal(link: Connection, auth_policy: bytes, seed: bytes | bytearray) -> SealedSeed:
    """Seal ``seed`` beside H: the data crosses the bus encrypted."""
    if not 1 <= len(seed) <= MAX_SEALED_BYTES:
        raise ValueError(f"a TPM seals 1 to {MAX_SEALED_BYTES} bytes")
    parent = _parent(link)
    private, public, *_ = link.esys.create(
        parent,
        TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=bytes(seed))),
        unmarshal(TPM2B_PUBLIC, sized(sealed_template(auth_policy))),
        session1=link.salted_session(),
    )
    return SealedSeed(public=public.publicArea.marshal(), private=bytes(private))


def unseal(link: Connection, sealed: SealedSeed, plan: HostPolicyPlan) -> bytearray:
    """Run the policy and unseal; the data crosses the bus encrypted."""
    with _explained(link, plan), _policy_session(link, plan) as session:
        handle = load(link, sealed.public, sealed.private)
        return bytearray(bytes(link.esys.unseal(handle, session1=session)))


def load(link: Connection, public: bytes, private: bytes) -> Handle:
    """Load H or a sealed seed; the parent is flushed again."""
    parent = _parent(link)
    handle = link.keep(
        link.esys.load(
            parent,
            unmarshal(TPM2B_PRIVATE, sized(private)),
            unmarshal(TPM2B_PUBLIC, sized(public)),
        )
    )
    link.drop(parent)
    return handle


@contextmanager
def loading() -> Iterator[None]:
    """Say that a key of another boot is one."""
    try:
        yield
    except TSS2_Exception as error:
        if code(error) == RC_INTEGRITY:
            raise _rebooted() from error
        raise


class OpenHostKey(TpmKey):
    """H as a key: each ``exchange`` runs the whole policy, which a TPM forgets after one use."""

    def __init__(self, tpm: Tpm, host_key: HostKey, plan: HostPolicyPlan) -> None:
        public = parse_public(host_key.public)
        if not isinstance(public, EccPublic):
            raise Malformed("the host key is not an elliptic-curve key")
        super().__init__(public.key())
        self._tpm = tpm
        self._host_key = host_key
        self._plan = plan

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """Return the shared point's x coordinate (TPM2_ECDH_ZGen, part 3 section 14.5)."""
        point = to_point(peer_public_key, self._public)
        with (
            self._tpm.connect("open a share") as link,
            _explained(link, self._plan),
            _policy_session(link, self._plan) as session,
        ):
            handle = link.shared(self._host_key.public, lambda: self._load(link))
            shared = link.esys.ecdh_zgen(handle, point, session1=session)
        return shared_x(shared, self._public)

    def _load(self, link: Connection) -> Handle:
        return load(link, self._host_key.public, self._host_key.private)


def _parent(link: Connection) -> Handle:
    return link.keep(link.create_primary(ESYS_TR.NULL, HOST_PARENT_TEMPLATE.pack()))


def _curve(link: Connection, wanted: Curve | None) -> Curve:
    _, found = link.esys.get_capability(TPM2_CAP.ECC_CURVES, 0, _MAX_CURVES)
    offered = {int(curve) for curve in found.data.eccCurves}
    asked = (Curve.P384, Curve.P256) if wanted is None else (wanted,)
    for curve in asked:
        if curve in offered:
            return curve
    names = " or ".join(f"P-{8 * curve.coordinate_bytes}" for curve in asked)
    raise Refused(f"the TPM has no {names}", check="tpm.curve")


@contextmanager
def _policy_session(link: Connection, plan: HostPolicyPlan) -> Iterator[Handle]:
    """Give a policy session that has been shown everything in ``plan``.

    Its one use sets it back to the start (part 1 section 19.7): the next one in this connection is
    shown everything again.
    """
    session = link.shared(_policy_session, lambda: link.salted_session(policy=True))
    try:
        _run_policy(link, session, plan)
        yield session
    except BaseException:
        # Shown half of a policy, it is good for nothing.
        link.unshare(_policy_session)
        raise


def _run_policy(link: Connection, session: Handle, plan: HostPolicyPlan) -> None:
    """Show the TPM everything in ``plan``, in the policy's order."""
    names = tpmpolicy.key_names(plan.officers)
    todo = tpmpolicy.steps(plan.tree, tuple(plan.signatures), names=names, ref=plan.terms)
    for step in todo:
        match step:
            case Signed(leaf):
                _policy_signed(link, session, plan, leaf)
            case Or(branches):
                digests = TPML_DIGEST([TPM2B_DIGEST(branch) for branch in branches])
                link.esys.policy_or(session, digests)
    conditions = plan.conditions
    with saying("the boot state has changed since the request", "tpm.pcr", RC_VALUE):
        selection = unmarshal(TPML_PCR_SELECTION, tpmpolicy.pcr_selection(conditions.pcrs))
        link.esys.policy_pcr(session, conditions.pcr_digest, selection)
    with saying("the request's counter has moved: it is burnt", "tpm.counter", RC_POLICY):
        counter = link.esys.tr_from_tpmpublic(plan.counter_index)
        link.esys.policy_nv(counter, counter, session, conditions.counter_operand, tpmpolicy.EO_EQ)
    with saying("the request's deadline has passed", "tpm.deadline", RC_POLICY):
        link.esys.policy_counter_timer(
            session,
            conditions.deadline_operand,
            tpmpolicy.EO_UNSIGNED_LT,
            tpmpolicy.OFFSET_CLOCK,
        )
    with saying(_REBOOTED, "tpm.rebooted", RC_POLICY):
        link.esys.policy_counter_timer(
            session, conditions.boot_operand, tpmpolicy.EO_EQ, tpmpolicy.OFFSET_RESET_COUNT
        )


def _policy_signed(link: Connection, session: Handle, plan: HostPolicyPlan, leaf: str) -> None:
    # Offline form: empty nonceTPM, expiration 0, empty cpHashA, so that the officer's signature is
    # over 00000000 ‖ terms, whatever session it is shown to (part 3 section 23.3).
    public = sized(tpmpolicy.officer_key_public(plan.officers[leaf]))
    officer = link.keep(link.esys.load_external(unmarshal(TPM2B_PUBLIC, public)))
    signature = unmarshal(TPMT_SIGNATURE, tpm_signature(plan.signatures[leaf]))
    with saying(f"the TPM refused the officer's signature at leaf {leaf or 'root'}", "tpm.quorum"):
        link.esys.policy_signed(officer, session, signature, b"", b"", plan.terms, 0)
    link.drop(officer)


def tpm_signature(der: bytes) -> bytes:
    """Return the TPMT_SIGNATURE of a DER ECDSA-SHA256 signature on P-256."""
    try:
        r, s = decode_dss_signature(der)
        packed = EcdsaSignature(
            hash_alg=Alg.SHA256, r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big")
        )
    except (ValueError, OverflowError) as error:
        raise Malformed("a signature for the TPM is not DER of a P-256 signature") from error
    return packed.pack()


@contextmanager
def saying(reason: str, check: str, *expected: int) -> Iterator[None]:
    """Put one of the TPM's expected answers, or without any every refusal, into words."""
    try:
        yield
    except TSS2_Exception as error:
        if code(error) in expected or (not expected and is_refusal(error)):
            raise Refused(reason, check=check) from error
        raise


_REBOOTED = "the TPM was reset, restarted or suspended since the request"


def _rebooted() -> Refused:
    return Refused(
        _REBOOTED, check="tpm.rebooted", hint="make a new request: a reboot costs the approvals"
    )


@contextmanager
def _explained(link: Connection, plan: HostPolicyPlan) -> Iterator[None]:
    """Put the TPM's refusals into words.

    After a restart the first thing the TPM refuses may be a register; the boot counts tell what
    really happened.  They only choose the words: the answer is no already.
    """
    try:
        with (
            loading(),
            saying("the key was made for another policy than this", "tpm.policy", RC_POLICY_FAIL),
            saying("a register changed while the policy was shown", "tpm.pcr", RC_PCR_CHANGED),
        ):
            yield
    except (Refused, TSS2_Exception) as refusal:
        if _counts(link) not in (None, plan.conditions.boot_operand):
            raise _rebooted() from refusal
        raise


def _counts(link: Connection) -> bytes | None:
    """Return the boot counts now, or None from a TPM that no longer answers."""
    try:
        now = link.esys.read_clock().clockInfo
    except TSS2_Exception:
        return None
    return int(now.resetCount).to_bytes(4, "big") + int(now.restartCount).to_bytes(4, "big")
