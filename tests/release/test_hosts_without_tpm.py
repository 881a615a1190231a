"""Hosts without a TPM: two rounds of answers, and what is refused without them.

The keys are software here, which is all that any layer above a token sees; SoftHSM holds them in
`test_key_host_commands`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.keyslots import recipient_id
from custody.encoding import key_id
from custody.errors import Incomplete, Refused
from custody.formats.approval import Approval
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement, decode_statement, encode_statement
from custody.formats.keyrequest import Consent, KeyReceipt, KeyRequest
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.ops.audit import AuditedRelease, audit_case
from custody.ops.bundle import Bundle
from custody.ops.collect import audit_files, collect, read_case
from custody.ops.consent import consent_to
from custody.ops.keyhost import give_up_by_key
from custody.ops.released import judge_answers
from custody.rules.asking import check_asked, check_ending
from custody.rules.policy import check_policy
from custody.rules.verdicts import Verdict
from tests.release.cast import NOW, Cast, PersonKeys, spki
from tests.release.expect import QUORUM
from tests.release.keyhosts import (
    HOST,
    add_host,
    approve,
    ask,
    both_rounds,
    case_of,
    consent,
    key_host,
    open_it,
)
from tests.release.test_release import same_tree

HOUR = timedelta(hours=1)


@pytest.fixture
def hosted(cast: Cast) -> Cast:
    """A cast with a host without a TPM besides, and a policy that takes it."""
    add_host(cast)
    return cast


def failed(verdicts: tuple[Verdict, ...]) -> set[str]:
    """Name the checks that fail."""
    return {verdict.check for verdict in verdicts if verdict.outcome == "fail"}


def audited(
    cast: Cast, bundle: Bundle, request: Statement[KeyRequest], answers: list[bytes]
) -> AuditedRelease:
    """Audit one release."""
    (release,) = audit_case(case_of(cast, bundle, request, answers), pin=cast.pin).releases
    return release


def signed_as(cast: Cast, who: str, consent_data: bytes, **changes: object) -> bytes:
    """Have somebody sign a consent that says something else."""
    said = decode_statement(Consent, consent_data).predicate
    signer = cast.people[who].signer
    changes.setdefault("author", signer.key_id)
    return signer.statement(msgspec.structs.replace(said, **changes))


def given_up(cast: Cast, request: Statement[KeyRequest], *, at: datetime = NOW) -> bytes:
    """Have the host sign that it opened nothing."""
    signer, terms = cast.people[HOST].signer, request.predicate.terms
    return signer.statement(
        KeyReceipt(
            author=signer.key_id,
            request=request.digest,
            manifest=terms.manifest,
            terms=terms.digest().hex(),
            outcome="failed",
            reason="given up",
            approvals=(),
            bad_shares=(),
            finished_at=at,
        )
    )


# ── what works ─────────────────────────────────────────────────────────────────────────────────


def test_a_release_in_two_rounds(hosted: Cast, tmp_path: Path) -> None:
    """A quorum consents, then approves; the HSM's key opens; an auditor is told what is unknown."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    opened = open_it(hosted, bundle, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")
    assert set(QUORUM) == set(opened.officers)
    release = audited(hosted, bundle, request, [*answers, opened.receipt_data])
    assert release.sound, failed(release.verdicts)
    assert "opened-burn-not-provable" == release.outcome
    assert "hsm-key" == release.exhibits.trust_class
    reasons = {v.check: (v.outcome, v.reason) for v in release.verdicts}
    assert "boot state unknown" in reasons["keyrequest.class"][1]
    assert "burn not provable" in reasons["keyrequest.class"][1]
    assert "not-applicable" == reasons["keyrequest.boot"][0] == reasons["keyrequest.burn"][0]
    assert release.tally is not None
    assert set(QUORUM) == {judged.officer for judged in release.tally.consents if judged.counts}


def test_a_case_file_holds_the_consents(hosted: Cast, tmp_path: Path) -> None:
    """What is collected is judged the same, and without the consents it does not hold."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    opened = open_it(hosted, bundle, request, answers, tmp_path / "out")
    documents = case_of(hosted, bundle, request, [*answers, opened.receipt_data])
    stranger = signed_as(hosted, "pub", answers[0])
    documents = merge(documents, sort_documents([("stranger.dsse", stranger)]))
    found = collect(documents, pin=hosted.pin)
    assert () == found.missing
    kinds = [name.rsplit("-", 1)[0] for name in found.members]
    assert [len(QUORUM), 1, 1] == [
        kinds.count(kind) for kind in ("consent", "keyrequest", "keyreceipt")
    ]
    assert any("consent" in name for name in found.left_out)
    bare = case_of(hosted, bundle, request, [*answers[len(QUORUM) :], opened.receipt_data])
    (release,) = audit_case(bare, pin=hosted.pin).releases
    assert not release.sound
    assert "receipt.approvals" in failed(release.verdicts)


def test_a_request_is_opened_once_by_honest_hosts(hosted: Cast, tmp_path: Path) -> None:
    """A request that has its receipt is refused; one that was given up says so."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    open_it(hosted, bundle, request, answers, tmp_path / "out")
    with pytest.raises(Refused) as caught:
        open_it(hosted, bundle, request, answers, tmp_path / "again")
    assert "host.ended" == caught.value.check
    assert not (tmp_path / "again").exists()
    other = ask(hosted, bundle)
    situation = hosted.situation(HOST)
    data = give_up_by_key(other, situation=situation, host=key_host(hosted), reason="no need")
    release = audited(hosted, bundle, other, [data])
    assert ("failed", True) == (release.outcome, release.sound)


# ── consents ───────────────────────────────────────────────────────────────────────────────────


def test_nobody_approves_without_consents(hosted: Cast) -> None:
    """With none, or fewer than the tree demands, an officer's program opens no share."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    given = [consent(hosted, bundle, request, name) for name in QUORUM]
    for shown in ([], given[:1], given[:-1], given[1:]):
        with pytest.raises(Incomplete) as caught:
            approve(hosted, bundle, request, QUORUM[0], shown)
        assert "consent" in caught.value.reason
    assert approve(hosted, bundle, request, QUORUM[0], given)


def test_consents_of_another_request_are_none(hosted: Cast) -> None:
    """Replayed for a later request of the same host for the same model, consents count nothing."""
    bundle = hosted.seal()
    first, second = ask(hosted, bundle), ask(hosted, bundle)
    assert first.predicate.terms.digest() != second.predicate.terms.digest()
    given = [consent(hosted, bundle, first, name) for name in QUORUM]
    with pytest.raises(Incomplete):
        approve(hosted, bundle, second, QUORUM[0], given)
    # Nor when their digest of the request is the only thing that was changed, by whoever carries.
    spoilt = [data.replace(first.digest.encode(), second.digest.encode()) for data in given]
    with pytest.raises(Incomplete):
        approve(hosted, bundle, second, QUORUM[0], spoilt)
    # Nor when an officer himself names the one request and the other's terms.
    mixed = [
        signed_as(hosted, who, data, request=second.digest)
        for who, data in zip(QUORUM, given, strict=True)
    ]
    with pytest.raises(Incomplete):
        approve(hosted, bundle, second, QUORUM[0], mixed)


@pytest.mark.parametrize("who", ["pub", "enr1", "cus1", HOST])
def test_who_is_no_officer_consents_to_nothing(hosted: Cast, who: str) -> None:
    """A consent counts by its author's role, and by his own signature."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    given = [consent(hosted, bundle, request, name) for name in QUORUM]
    with pytest.raises(Refused) as caught:
        consent(hosted, bundle, request, who)
    assert "approve.officer" == caught.value.check
    for forged in (
        signed_as(hosted, who, given[0]),
        signed_as(hosted, who, given[0], author=hosted.people[QUORUM[0]].signer.key_id),
    ):
        with pytest.raises(Incomplete):
            approve(hosted, bundle, request, QUORUM[0], [forged, *given[1:]])


def test_consents_end(hosted: Cast) -> None:
    """Expired, dated ahead, from before the request, or good for too long: none counts."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    given = [consent(hosted, bundle, request, name, lifetime=HOUR) for name in QUORUM]
    assert approve(hosted, bundle, request, QUORUM[0], given, now=NOW + HOUR / 2)
    with pytest.raises(Incomplete):
        approve(hosted, bundle, request, QUORUM[0], given, now=NOW + HOUR)
    for changes in (
        {"consented_at": NOW - HOUR},
        {"consented_at": NOW + HOUR, "expires_at": NOW + 2 * HOUR},
        {"expires_at": NOW + timedelta(days=30)},
        {"expires_at": NOW},
    ):
        wrong = [
            signed_as(hosted, who, data, **changes) for who, data in zip(QUORUM, given, strict=True)
        ]
        with pytest.raises(Incomplete):
            approve(hosted, bundle, request, QUORUM[0], wrong)


def test_an_approval_from_before_the_consents_does_not_count(hosted: Cast, tmp_path: Path) -> None:
    """A dishonest officer's early approval is passed over by host and auditor alike."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    early = decode_statement(Approval, answers[-1]).predicate
    early = msgspec.structs.replace(early, approved_at=NOW - HOUR, expires_at=NOW + HOUR)
    answers[-1] = hosted.people[QUORUM[-1]].signer.statement(early)
    with pytest.raises(Incomplete):
        open_it(hosted, bundle, request, answers, tmp_path / "out")
    judged = judge_answers(bundle.statement, request, hosted.situation(HOST, *answers))
    (over,) = judged.tally.passed_over
    assert {"approval.consents"} == failed(over.verdicts)


def test_a_denial_takes_a_consent_back(hosted: Cast, tmp_path: Path) -> None:
    """Who denied these terms consents to nothing, cannot approve, nor does his approval count."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    denier = QUORUM[0]
    no = hosted.deny(bundle, request, denier)
    with pytest.raises(Refused) as caught:
        consent(hosted, bundle, request, denier)
    assert "approval.denied" == caught.value.check
    with pytest.raises(Refused) as caught:
        approve(hosted, bundle, request, denier, answers)
    assert "approval.denied" == caught.value.check
    with pytest.raises(Incomplete):
        approve(hosted, bundle, request, QUORUM[1], [*answers, no])
    with pytest.raises((Incomplete, Refused)):
        open_it(hosted, bundle, request, [*answers, no], tmp_path / "out")


def test_shares_of_two_requests_do_not_meet(hosted: Cast, tmp_path: Path) -> None:
    """Approvals of several requests are never counted together, with or without their consents."""
    bundle = hosted.seal()
    first, second = ask(hosted, bundle), ask(hosted, bundle)
    one, two = both_rounds(hosted, bundle, first), both_rounds(hosted, bundle, second)
    mixed = [*one[: len(QUORUM)], *two[: len(QUORUM)], one[-1], *two[len(QUORUM) : -1]]
    for request in (first, second):
        with pytest.raises(Incomplete):
            open_it(hosted, bundle, request, mixed, tmp_path / "out")


# ── the host ───────────────────────────────────────────────────────────────────────────────────


def test_no_policy_takes_such_hosts_unless_it_says_so(cast: Cast) -> None:
    """Without the class a policy that lists such a host is unsound, and its request refused."""
    add_host(cast)
    bundle = cast.seal()
    request = ask(cast, bundle)
    policy = cast.situation("sec1").trusted.policy
    plain = msgspec.structs.replace(policy.host, trust_classes=("software",))
    without = msgspec.structs.replace(policy, host=plain)
    assert {"policy.hsm-hosts"} == failed(check_policy(without))
    # A policy that lists no such host, and takes none.
    people = tuple(p for p in policy.principals if p.id != HOST)
    cast.next_policy(principals=people, host=plain)
    with pytest.raises(Refused) as caught:
        ask(cast, bundle)
    assert "keyrequest.host" == caught.value.check
    situation = cast.situation("sec1")
    faults = failed(check_asked(request, bundle.statement, situation))
    assert {"keyrequest.class", "keyrequest.author", "keyrequest.recipient"} <= faults
    with pytest.raises(Refused):
        consent(cast, bundle, request, "sec1")


def test_a_host_has_no_other_role(hosted: Cast) -> None:
    """A host that is an officer besides would give itself what it asks for."""
    policy = hosted.situation("sec1").trusted.policy
    for roles in (("officer", "host"), ("host", "site"), ("custodian", "host")):
        people = tuple(
            msgspec.structs.replace(p, roles=roles) if p.id == HOST else p
            for p in policy.principals
        )
        faults = failed(check_policy(msgspec.structs.replace(policy, principals=people)))
        assert "policy.hsm-hosts" in faults


def test_further_evidence_that_is_demanded_is_not_there(cast: Cast) -> None:
    """A policy that wants more than a TPM's evidence takes no key in its place."""
    add_host(cast, further=("urn:example:gpu",))
    with pytest.raises(Refused) as caught:
        ask(cast, cast.seal())
    assert "keyrequest.further" == caught.value.check


def test_an_old_request_is_not_a_new_one(hosted: Cast, tmp_path: Path) -> None:
    """Past its deadline, or with one that is further away than allowed, nobody answers or opens."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    late = request.predicate.terms.deadline
    for act in (
        lambda: consent(hosted, bundle, request, QUORUM[0], now=late),
        lambda: approve(hosted, bundle, request, QUORUM[0], answers, now=late),
        lambda: open_it(hosted, bundle, request, answers, tmp_path / "out", now=late),
    ):
        with pytest.raises(Refused) as caught:
            act()
        assert "keyrequest.deadline" == caught.value.check
    terms = msgspec.structs.replace(request.predicate.terms, deadline=NOW + timedelta(days=20))
    made = msgspec.structs.replace(request.predicate, terms=terms)
    longer = decode_statement(KeyRequest, hosted.people[HOST].signer.statement(made))
    faults = failed(check_asked(longer, bundle.statement, hosted.situation("sec1")))
    assert {"keyrequest.deadline"} == faults


def test_a_host_asks_for_its_own_key_alone(hosted: Cast) -> None:
    """A request for shares to another key than the policy lists for that host is refused."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    thief = hosted.people["sec1"]
    stolen = spki(thief.sharing[0])
    terms = msgspec.structs.replace(request.predicate.terms, recipient=recipient_id(stolen, None))
    made = msgspec.structs.replace(request.predicate, recipient=stolen, terms=terms)
    situation = hosted.situation("sec1")
    for data, check in (
        (hosted.people[HOST].signer.statement(made), "keyrequest.recipient"),
        (thief.signer.statement(request.predicate), "keyrequest.author"),
    ):
        forged = decode_statement(KeyRequest, data)
        assert check in failed(check_asked(forged, bundle.statement, situation))


def test_a_revoked_host_gets_nothing(hosted: Cast, tmp_path: Path) -> None:
    """A host whose key was revoked is refused by officers, and by its own program."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    hosted.crl = hosted.make_crl(number=2, revoked=[spki(hosted.people[HOST].sharing[0])])
    hosted.refresh()
    with pytest.raises(Refused) as caught:
        consent(hosted, bundle, request, QUORUM[0])
    assert "certificate.revoked" == caught.value.check
    with pytest.raises(Refused):
        open_it(hosted, bundle, request, answers, tmp_path / "out")


# ── one kind for the other ─────────────────────────────────────────────────────────────────────


def test_a_tpms_request_is_no_key_request_nor_the_reverse(hosted: Cast) -> None:
    """Bytes of the one are none of the other, consents are for one, and receipts for their own."""
    bundle = hosted.seal()
    by_key, by_tpm = ask(hosted, bundle), hosted.request(bundle)
    with pytest.raises(Refused) as caught:
        consent_to(
            bundle.statement,
            [by_tpm],
            situation=hosted.situation("sec1"),
            home=hosted.home("sec1"),
            signer=hosted.people["sec1"].signer,
        )
    assert "consent.kind" == caught.value.check
    data = give_up_by_key(
        by_key, situation=hosted.situation(HOST), host=key_host(hosted), reason=""
    )
    receipt = decode_statement(KeyReceipt, data)
    assert {"receipt.kind"} == failed(check_ending(receipt, by_tpm))
    assert set() == failed(check_ending(receipt, by_key))


def test_a_tpm_host_cannot_shed_its_tpm(hosted: Cast, tmp_path: Path) -> None:
    """A machine with a TPM that asks by a key of its own making is no host of the policy."""
    bundle = hosted.seal()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    genuine = ask(hosted, bundle).predicate
    hosted.people["gpu-1"] = PersonKeys("gpu-1", ("host",), keys[:1], keys[1:])
    hosted.certify(hosted.people["gpu-1"])
    with pytest.raises(Refused) as caught:
        ask(hosted, bundle, name="gpu-1")
    assert "keyrequest.host" == caught.value.check
    own, share = spki(keys[0]), spki(keys[1])
    terms = msgspec.structs.replace(genuine.terms, recipient=recipient_id(share, None))
    made = msgspec.structs.replace(
        genuine, host="gpu-1", author=key_id(own), signer=own, recipient=share, terms=terms
    )
    forged = decode_statement(KeyRequest, hosted.people["gpu-1"].signer.statement(made))
    faults = failed(check_asked(forged, bundle.statement, hosted.situation("sec1")))
    assert {"keyrequest.author", "keyrequest.host", "keyrequest.recipient"} <= faults


def test_an_hsm_host_has_no_tpms_evidence(hosted: Cast) -> None:
    """A TPM's request that a listed host's HSM has signed is refused by every check of evidence."""
    bundle = hosted.seal()
    genuine = hosted.request(bundle)
    data = hosted.people[HOST].signer.statement(genuine.predicate)
    forged = decode_statement(Request, data)
    faults = failed(check_asked(forged, bundle.statement, hosted.situation("sec1")))
    assert {"attestation.V12"} & faults or {"attestation.V02"} & faults
    assert Receipt.PREDICATE_TYPE != KeyReceipt.PREDICATE_TYPE


def test_a_receipt_is_by_the_key_that_asked(hosted: Cast, tmp_path: Path) -> None:
    """Another host's, or another's about this request, is none, in time or late."""
    add_host(hosted, "other")
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good = open_it(hosted, bundle, request, answers, tmp_path / "out").receipt.predicate
    host, other = hosted.people[HOST].signer, hosted.people["other"].signer
    late = msgspec.structs.replace(good, finished_at=request.predicate.terms.deadline)
    signed = decode_statement(KeyReceipt, host.statement(good)).envelope.signatures
    for data, check in (
        (other.statement(good), "receipt.author"),
        (other.statement(late), "receipt.author"),
        (other.statement(msgspec.structs.replace(late, author=other.key_id)), "receipt.author"),
        (hosted.people["sec1"].signer.statement(late), "receipt.author"),
        (encode_statement(late, signed), "receipt.signature"),
    ):
        receipt = decode_statement(KeyReceipt, data)
        assert check in failed(check_ending(receipt, request))
        release = audited(hosted, bundle, request, [*answers, data])
        assert ("refused", False, None) == (release.outcome, release.sound, release.receipt)
        assert check in failed(release.verdicts)


def test_an_opening_stays_one_whatever_else_the_host_says(hosted: Cast, tmp_path: Path) -> None:
    """By the key that asked it counts with another manifest, terms or author in it, and is unsound.

    That nothing was opened counts only if all of it holds.
    """
    add_host(hosted, "other")
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good = open_it(hosted, bundle, request, answers, tmp_path / "out").receipt.predicate
    host, other = hosted.people[HOST].signer, hosted.people["other"].signer
    gave_up = msgspec.structs.replace(good, outcome="failed", approvals=())
    for changes, check in (
        ({"terms": "0" * 64}, "receipt.request"),
        ({"manifest": "0" * 64}, "receipt.request"),
        ({"author": other.key_id}, "receipt.author"),
    ):
        flawed = host.statement(msgspec.structs.replace(good, **changes))
        denied = host.statement(msgspec.structs.replace(gave_up, **changes))
        for files in ([flawed], [flawed, denied], [flawed, host.statement(gave_up)]):
            release = audited(hosted, bundle, request, [*answers, *files])
            found = (release.outcome, release.sound, failed(release.verdicts))
            assert ("opened-burn-not-provable", False, {check}) == found
        release = audited(hosted, bundle, request, [*answers, denied])
        assert ("refused", None) == (release.outcome, release.receipt)
        sent = collect(case_of(hosted, bundle, request, [*answers, flawed]), pin=hosted.pin)
        assert any(name.startswith("keyreceipt") for name in sent.members)


def test_an_opening_after_the_deadline_stays_an_opening(hosted: Cast, tmp_path: Path) -> None:
    """A host that owns up to opening too late is told so, and nothing it adds takes that back."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good = open_it(hosted, bundle, request, answers, tmp_path / "out").receipt.predicate
    host, deadline = hosted.people[HOST].signer, request.predicate.terms.deadline
    in_time, gave_up = good, msgspec.structs.replace(good, outcome="failed", approvals=())
    for at in (deadline, deadline + timedelta(days=2)):
        late = host.statement(msgspec.structs.replace(good, finished_at=at))
        for beside in ((), (gave_up,), (in_time,)):
            more = [host.statement(receipt) for receipt in beside]
            release = audited(hosted, bundle, request, [*answers, late, *more])
            assert ("opened-burn-not-provable", False) == (release.outcome, release.sound)
            words = {v.reason for v in release.verdicts if v.check == "receipt.deadline"}
            assert any("after the deadline of its terms" in reason for reason in words)
            assert "receipt.deadline" in failed(release.verdicts)
    # A second before, nothing is wrong.
    just = msgspec.structs.replace(good, finished_at=deadline - timedelta(seconds=1))
    release = audited(hosted, bundle, request, [*answers, host.statement(just)])
    assert ("opened-burn-not-provable", True) == (release.outcome, release.sound)


def test_a_host_that_tells_of_two_openings_is_not_sound(hosted: Cast, tmp_path: Path) -> None:
    """Each good by itself, two receipts of an opening contradict the mode `once`; copies do not."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good = open_it(hosted, bundle, request, answers, tmp_path / "out").receipt.predicate
    host = hosted.people[HOST].signer
    copies = [host.statement(good), host.statement(good)]
    assert audited(hosted, bundle, request, [*answers, *copies]).sound
    second = host.statement(msgspec.structs.replace(good, finished_at=NOW + HOUR))
    release = audited(hosted, bundle, request, [*answers, *copies, second])
    assert ("opened-burn-not-provable", {"receipt.once"}) == (
        release.outcome,
        failed(release.verdicts),
    )


def test_a_late_opening_is_collected_with_its_case(hosted: Cast, tmp_path: Path) -> None:
    """Who collects the case of a host that opened late cannot leave that receipt out unseen."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good = open_it(hosted, bundle, request, answers, tmp_path / "out").receipt.predicate
    late = msgspec.structs.replace(good, finished_at=request.predicate.terms.deadline)
    data = hosted.people[HOST].signer.statement(late)
    found = collect(case_of(hosted, bundle, request, [*answers, data]), pin=hosted.pin)
    assert any(name.startswith("keyreceipt") for name in found.members)


# ── given up ───────────────────────────────────────────────────────────────────────────────────


def test_giving_up_after_the_deadline_is_no_fault(hosted: Cast) -> None:
    """A host that says long afterwards that it opened nothing is believed as if it said so at once.

    The deadline is held against answers and openings; no answer, some, or a quorum may be there.
    """
    bundle = hosted.seal()
    for upto in (0, 1, len(QUORUM), len(QUORUM) + 1, 2 * len(QUORUM)):
        request = ask(hosted, bundle)
        answers = both_rounds(hosted, bundle, request)[:upto]
        for late in (request.predicate.terms.deadline, NOW + timedelta(days=20)):
            data = given_up(hosted, request, at=late)
            release = audited(hosted, bundle, request, [*answers, data])
            assert ("failed", True) == (release.outcome, release.sound), failed(release.verdicts)


def test_a_late_approval_spoils_no_request_that_was_given_up(hosted: Cast) -> None:
    """An officer's approval from after the deadline is passed over, and moves no judgement."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    deadline = request.predicate.terms.deadline
    for late in (deadline + timedelta(minutes=5), deadline + timedelta(days=3)):
        said = msgspec.structs.replace(
            decode_statement(Approval, answers[-1]).predicate,
            approved_at=late,
            expires_at=late + HOUR,
        )
        data = hosted.people[QUORUM[-1]].signer.statement(said)
        for ending, outcome in (([], "open"), ([given_up(hosted, request)], "failed")):
            release = audited(hosted, bundle, request, [*answers[:-1], data, *ending])
            assert (outcome, True) == (release.outcome, release.sound)
            assert release.tally is not None
            (over,) = release.tally.passed_over
            assert "approval.deadline" in failed(over.verdicts)


def test_a_case_of_consents_alone_is_judged_when_they_were_given(hosted: Cast) -> None:
    """Before anybody approved, consents count in an audit as they do at the host."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    later = NOW + HOUR
    given = [consent(hosted, bundle, request, name, now=later) for name in QUORUM]
    release = audited(hosted, bundle, request, given)
    assert ("open", True, later) == (release.outcome, release.sound, release.at)
    assert release.tally is not None
    assert set(QUORUM) == {judged.officer for judged in release.tally.consents if judged.counts}
    assert not release.tally.unconsented


def test_judging_a_collected_file_is_judging_its_case(hosted: Cast, tmp_path: Path) -> None:
    """The one file that an auditor is sent gives the verdict of the folder it was made from."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    opened = open_it(hosted, bundle, request, answers, tmp_path / "out")
    documents = case_of(hosted, bundle, request, [*answers, opened.receipt_data])
    path = tmp_path / "release.case"
    path.write_bytes(collect(documents, pin=hosted.pin).data)
    report = audit_files(read_case(path), pin=hosted.pin)
    (release,) = report.releases
    assert (True, "opened-burn-not-provable") == (report.sound, release.outcome)
