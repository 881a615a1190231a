"""Does this evidence show a key that lives in an enrolled TPM, in an approved boot state?

Every check has the stable id of docs/protocol.md section 5.1.  Pure: bytes, the policy and the
judge's own memory go in, verdicts come out.  No TPM, no clock of the host's that a check would
believe.
"""

from __future__ import annotations

from hmac import compare_digest

from custody.crypto.bind import bind
from custody.crypto.tpmpolicy import Conditions, host_policy
from custody.encoding import key_id, sha256
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.evidence import (
    AK_TEMPLATE,
    HOST_PARENT_TEMPLATE,
    RH_NULL,
    Alg,
    Curve,
    PcrBank,
    counter_public,
    host_key_template,
    matches,
    name,
    nv_name,
    qualified_name,
    spki,
    verify_attest,
)
from custody.formats.goldenset import GoldenSet
from custody.formats.policy import Policy
from custody.formats.request import Request, Terms
from custody.formats.state import HostMemory
from custody.rules.attested import is_endorsed, is_over
from custody.rules.eventlog import check_event_log, explain
from custody.rules.evidence import Evidence, read_evidence
from custody.rules.quorum import signing_tree
from custody.rules.verdicts import Ledger, Verdict

#: The only locality an operating system's commands come from (TPM 2.0 part 2, TPMA_LOCALITY).
_LOCALITY_ZERO = 1
_SUITE_CURVES = {"P256": Curve.P256, "P384": Curve.P384, "MLKEM1024_P384": Curve.P384}


def check_evidence(
    statement: Statement[Request],
    *,
    enrolment: EnrolmentRecord,
    golden: GoldenSet,
    policy: Policy,
    remembered: HostMemory | None,
) -> tuple[Verdict, ...]:
    """Judge a request's evidence.  ``remembered`` is what the judge last saw of this host.

    That the enrolment record and golden set are signed by their thresholds is for the caller.
    """
    request = statement.predicate
    ledger = Ledger(subject=f"evidence of {request.host}")
    evidence = read_evidence(ledger, statement)
    if evidence is None:
        return ledger.done()
    _check_ak(ledger, statement, evidence, enrolment, policy)
    _check_attests(ledger, statement, evidence, enrolment)
    _check_clock(ledger, request.terms, evidence, policy, remembered)
    _check_key(ledger, request, evidence)
    _check_policy(ledger, request, evidence, golden, policy)
    _check_parent(ledger, request, evidence)
    _check_counter(ledger, request, evidence)
    _check_pcrs(ledger, request, evidence, golden, policy)
    ledger.extend(_judged_log(request, evidence, golden, policy))
    _check_reuse(ledger, statement, remembered)
    return ledger.done()


def _check_ak(
    ledger: Ledger,
    statement: Statement[Request],
    evidence: Evidence,
    enrolment: EnrolmentRecord,
    policy: Policy,
) -> None:
    request = statement.predicate
    ak_name = name(request.ak_public)
    ledger.add(
        "attestation.V10",
        ak_name.hex() == enrolment.ak_name == request.terms.ak_name
        and request.ak_public == enrolment.ak_public,
        "the AK is the enrolled one",
        otherwise="the AK is not the one in the enrolment record",
    )
    # An unrestricted signing key passes activation and then signs any attestation its owner
    # invents, so the attributes are compared exactly and not just looked through.
    ledger.add(
        "attestation.V11",
        matches(evidence.ak, AK_TEMPLATE),
        "the AK is a restricted signing key, attributes exact",
        otherwise="the AK's public area is not the restricted template",
    )
    ledger.add(
        "attestation.V12",
        statement.envelope.signatures[0].keyid == key_id(spki(request.ak_public)),
        "the envelope names the AK",
    )
    ledger.add(
        "attestation.V14",
        request.terms.ek_spki == enrolment.ek_spki,
        "terms name the enrolled EK",
        otherwise="terms name another EK than the enrolment record",
    )
    ledger.add(
        "attestation.V16",
        enrolment.trust_class in policy.host.trust_classes,
        f"trust class {enrolment.trust_class} is accepted",
        otherwise=f"trust class {enrolment.trust_class} is not accepted by the policy",
    )


def _check_attests(
    ledger: Ledger,
    statement: Statement[Request],
    evidence: Evidence,
    enrolment: EnrolmentRecord,
) -> None:
    request = statement.predicate
    for label, attest, signature in (
        ("creation", request.key.attest, request.key.signature),
        ("quote", evidence.quote.attest, evidence.quote.signature),
    ):
        with ledger.failing("attestation.V20"):
            verify_attest(request.ak_public, attest, signature)
            ledger.add("attestation.V20", True, f"{label}: signed by the AK")
    both = (evidence.created, evidence.quoted)
    ledger.add(
        "attestation.V23",
        all(is_endorsed(attest, request.ak_public) for attest in both),
        "the signer is the AK in the endorsement hierarchy",
        otherwise="the signer is not the AK in the endorsement hierarchy",
    )
    ledger.add(
        "attestation.V24",
        is_over(evidence.created, request.terms.digest())
        and is_over(evidence.quoted, bind("request", bytes.fromhex(statement.digest))),
        "creation is bound to the terms, the quote to this request",
        otherwise="an attestation is bound to other terms or another request",
    )
    ledger.add(
        "attestation.V27",
        all(f"{attest.firmware_version:016x}" == enrolment.firmware for attest in both),
        "firmware is the enrolled one",
        otherwise="the TPM's firmware is not the enrolled one: enrol this host again",
    )


def _check_clock(
    ledger: Ledger,
    terms: Terms,
    evidence: Evidence,
    policy: Policy,
    remembered: HostMemory | None,
) -> None:
    created, quoted = evidence.created.clock, evidence.quoted.clock
    ledger.add(
        "attestation.V25",
        created.safe and quoted.safe,
        "the TPM's clock is safe",
        otherwise="the TPM's clock may have run back: after a power cut, wait and ask again",
    )
    counts = (terms.reset_count, terms.restart_count)
    # resetCount 0 is a TPM just cleared, whose clock has begun again below any old deadline.
    floor = max(1, remembered.reset_count) if remembered else 1
    ledger.add(
        "attestation.V26",
        (created.reset_count, created.restart_count) == counts
        and (quoted.reset_count, quoted.restart_count) == counts
        and floor <= terms.reset_count
        and created.clock_ms <= quoted.clock_ms,
        f"one boot throughout (reset {counts[0]}, restart {counts[1]})",
        otherwise="boot counts differ, went back, or the clock did",
    )
    window_ms = policy.limits.request_window_seconds * 1000
    ledger.add(
        "attestation.V28",
        quoted.clock_ms < terms.deadline_ms <= created.clock_ms + window_ms,
        "the deadline is ahead and within the policy's window",
        otherwise="the deadline is past, or further off than the policy's window",
    )


def _check_key(ledger: Ledger, request: Request, evidence: Evidence) -> None:
    ledger.add(
        "attestation.V30",
        compare_digest(evidence.made.object_name, name(request.key.public)),
        "the attested key is H",
        otherwise="the creation attestation is about another key",
    )
    ledger.add(
        "attestation.V31",
        compare_digest(evidence.made.creation_hash, sha256(request.key.creation_data)),
        "creation data are the attested ones",
        otherwise="creation data were swapped",
    )
    ledger.add("attestation.V32", not evidence.creation.outside_info, "outsideInfo is empty")
    curve = _SUITE_CURVES[request.suite]
    template = host_key_template(curve, evidence.host_key.auth_policy)
    ledger.add(
        "attestation.V33",
        matches(evidence.host_key, template),
        "H can only decrypt, only by policy, and never leaves its TPM",
        otherwise="H's public area is not the template for its suite",
    )
    ledger.add(
        "attestation.V34",
        (request.mlkem is not None) == (request.suite == "MLKEM1024_P384"),
        f"H is a {request.suite} key",
        otherwise="the post-quantum half and the suite do not fit",
    )


def _check_policy(
    ledger: Ledger, request: Request, evidence: Evidence, golden: GoldenSet, policy: Policy
) -> None:
    terms = request.terms
    tree, officers = signing_tree(policy)
    expected = host_policy(
        tree,
        officers,
        terms=terms.digest(),
        conditions=conditions_of(terms, golden),
    )
    ledger.add(
        "attestation.V35",
        compare_digest(evidence.host_key.auth_policy, expected),
        "H opens only to the quorum in force, this boot state, this counter and this deadline",
        otherwise="H's authPolicy is not the one recomputed from policy and terms",
    )


def conditions_of(terms: Terms, golden: GoldenSet) -> Conditions:
    """Return what H's policy demands beside the quorum."""
    return Conditions(
        pcrs=golden.selection(),
        pcr_digest=bytes.fromhex(terms.pcr_digest),
        nv_name=bytes.fromhex(terms.nv_name),
        counter=terms.counter,
        deadline_ms=terms.deadline_ms,
        reset_count=terms.reset_count,
        restart_count=terms.restart_count,
    )


def _check_parent(ledger: Ledger, request: Request, evidence: Evidence) -> None:
    parent_name = name(request.key.parent_public)
    in_null = qualified_name(RH_NULL, parent_name)
    # The Qualified Name is what proves the hierarchy: under NULL, a TPM Reset kills H.
    ledger.add(
        "attestation.V36",
        matches(evidence.parent, HOST_PARENT_TEMPLATE)
        and compare_digest(evidence.creation.parent_name, parent_name)
        and compare_digest(evidence.creation.parent_qualified_name, in_null),
        "H's parent is a storage key of the NULL hierarchy: H dies with this boot",
        otherwise="H's parent is not the storage key of the NULL hierarchy",
    )
    ledger.add(
        "attestation.V38",
        evidence.creation.locality == _LOCALITY_ZERO,
        "H was made at locality 0",
        otherwise=f"H was made at locality {evidence.creation.locality:#x}",
    )


def _check_counter(ledger: Ledger, request: Request, evidence: Evidence) -> None:
    ledger.add(
        "attestation.V40",
        nv_name(request.nv_public).hex() == request.terms.nv_name
        and evidence.nv == counter_public(evidence.nv.index),
        "the counter is an NV counter that cannot be set",
        otherwise="the NV index is not the counter of the terms, or could be set",
    )


def _check_pcrs(
    ledger: Ledger, request: Request, evidence: Evidence, golden: GoldenSet, policy: Policy
) -> None:
    wanted = (PcrBank(Alg.SHA256, tuple(policy.host.pcrs)),)
    # The selection is taken from what was signed: whoever reads it from anywhere else can be
    # shown resettable registers under the names of boot registers (CVE-2024-29039).
    ledger.add(
        "attestation.V50",
        evidence.registers.banks == wanted
        and golden.selection() == tuple(policy.host.pcrs)
        and golden.bank == policy.host.bank,
        "the quote is over exactly the policy's registers",
        otherwise="the quote or golden set is over other registers than the policy's",
    )
    pcr_digest = golden.pcr_digest()
    expected = bytes.fromhex(pcr_digest)
    approved = (
        compare_digest(evidence.registers.pcr_digest, expected)
        and request.terms.pcr_digest == pcr_digest
    )
    changed = "" if approved else explain(request.event_log, golden)
    ledger.add(
        "attestation.V51",
        approved,
        f"boot state is golden set {golden.name}, epoch {golden.epoch}",
        otherwise=f"boot state is not golden set {golden.name}, epoch {golden.epoch}"
        + (f"; by its log {changed}" if changed else ""),
    )
    ledger.add(
        "attestation.V37",
        evidence.creation.banks == wanted
        and compare_digest(evidence.creation.pcr_digest, expected),
        "H was made in that boot state",
        otherwise="H was made in another boot state",
    )


def _judged_log(
    request: Request, evidence: Evidence, golden: GoldenSet, policy: Policy
) -> tuple[Verdict, ...]:
    return check_event_log(
        request.event_log,
        demand=policy.host.event_log,
        quoted=evidence.registers.pcr_digest,
        golden=golden,
        subject=f"event log of {request.host}",
    )


def _check_reuse(
    ledger: Ledger, statement: Statement[Request], remembered: HostMemory | None
) -> None:
    host_key = name(statement.predicate.key.public).hex()
    seen = {key.name: key.request for key in remembered.keys} if remembered else {}
    ledger.add(
        "attestation.V39",
        seen.get(host_key, statement.digest) == statement.digest,
        "H was not seen in another request",
        otherwise="H was seen before in another request",
    )
