"""Judged at log time: by witnesses, or by a time-stamping authority; else the time is claimed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from custody.crypto.merkle import leaf_hash
from custody.crypto.notekeys import LogSigner
from custody.encoding import Digest, sha256
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.checkpoint import Checkpoint, sign_checkpoint
from custody.formats.envelope import decode_envelope, decode_statement
from custody.formats.logentry import entry_of
from custody.formats.logproof import LogProof
from custody.formats.receipt import Receipt
from custody.lab.swtpm import Swtpm
from custody.ops.audit import AuditedRelease, AuditReport, audit_case
from custody.ops.collect import collect
from tests.release.cast import NOW, Cast, spki
from tests.release.collected import judged
from tests.release.expect import QUORUM, case_of, changed, failed, opened
from tests.release.logged import ORIGIN, Log, LoggedCast, witness
from tests.release.tsa import Authority

DAY = timedelta(days=1)


class Story:
    """One release, opened and burned, and an authority that can stamp any of it."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        bundle, request, answers, done = opened(cast)
        self.bundle, self.request, self.answers, self.done = bundle, request, answers, done
        self.tsa = Authority()

    @property
    def receipt(self) -> Digest:
        """The statement digest of its receipt."""
        return decode_statement(Receipt, self.done.receipt_data).digest

    def case(self, *tokens: bytes, crl: bytes | None = None) -> Documents:
        """Everything, with timestamps beside it."""
        files = [(f"{n}.tsr", token) for n, token in enumerate(tokens)]
        files += [("newer.crl", crl)] if crl else []
        plain = case_of(self.cast, self.bundle, self.request, self.answers, self.done)
        return merge(plain, sort_documents(files))

    def stamped(self, at: datetime, digest: Digest | None = None) -> bytes:
        """A token over the receipt, which names all that led to it."""
        return self.tsa.stamp(digest or self.receipt, at)

    def audit(self, *tokens: bytes, at: datetime | None = None, **more: bytes) -> AuditReport:
        """Judge it, with the authority's root pinned."""
        case = self.case(*tokens, **more)
        return audit_case(case, pin=self.cast.pin, at=at, tsa_roots=[self.tsa.root])


@pytest.fixture
def story(cast: Cast) -> Story:
    """Give one release to its end."""
    return Story(cast)


def only(report: AuditReport) -> AuditedRelease:
    """Return the one release of a report."""
    (release,) = report.releases
    return release


def test_without_anybody_to_vouch_the_time_is_claimed(story: Story) -> None:
    """Neither no token nor one by an authority that is not pinned makes a claimed time more."""
    assert ("claimed", NOW, "") == basis(story.audit())
    stranger = Authority().stamp(story.receipt, NOW + DAY)
    assert ("claimed", NOW, "") == basis(story.audit(stranger))
    case = story.case(story.stamped(NOW + timedelta(hours=1)))
    assert ("claimed", NOW, "") == basis(audit_case(case, pin=story.cast.pin))


def basis(report: AuditReport) -> tuple[str, datetime, str]:
    """Say on what basis, at what moment, and by whose word a release was judged."""
    release = only(report)
    return release.time, release.at, release.time_by


def test_one_token_over_a_receipt_dates_all_that_it_names(story: Story) -> None:
    """What a receipt names by digest was there before it: request, approvals, manifest, policy."""
    at = NOW + timedelta(hours=1)
    report = story.audit(story.stamped(at))
    assert ("vouched", at, "timestamp by CN=tsa.example") == basis(report)
    assert report.sound
    known = only(report).times.stamps
    policy = story.cast.documents.policies[0].digest
    for digest in (story.request.digest, story.bundle.statement.digest, policy):
        assert at == known[digest].at
    earlier = story.stamped(NOW + timedelta(minutes=3), story.request.digest)
    both = only(story.audit(story.stamped(at), earlier))
    assert at == both.at
    assert NOW + timedelta(minutes=3) == both.times.stamps[story.request.digest].at


def test_a_certificate_good_then_and_not_now_is_good(story: Story) -> None:
    """Years later, certificates, lists and policy have ended; at log time they were good."""
    later = NOW + 900 * DAY
    assert {"policy.expired"} <= failed(story.audit(at=later))
    assert story.audit(story.stamped(NOW + timedelta(hours=1))).sound


def test_a_certificate_good_now_and_not_then_is_not(story: Story) -> None:
    """A date that is written back into a certificate's life does not help: log time decides."""
    late = story.audit(story.stamped(NOW + 310 * DAY))
    assert not late.sound
    assert "policy.expired" in failed(late)
    early = story.audit(story.stamped(NOW - 25 * DAY))
    assert not early.sound
    assert {"policy.expired"} <= failed(early)


def test_an_officers_certificate_is_judged_at_log_time(cast: Cast) -> None:
    """Revoked before log time: not counted, whatever date it bears.  Revoked since: counted."""
    story = Story(cast)
    sec1 = spki(cast.people["sec1"].signing[0])
    at = NOW + timedelta(hours=2)
    before = cast.make_crl(number=2, revoked=[sec1], at=NOW + timedelta(hours=1))
    after = cast.make_crl(number=2, revoked=[sec1], at=NOW + timedelta(hours=3))
    assert story.audit(story.stamped(at), crl=after).sound
    assert "receipt.approvals" in failed(story.audit(story.stamped(at), crl=before))
    # By its own claim, the very approval that the revocation is to stop would count.
    assert story.audit(crl=before).sound


def test_a_policy_is_judged_at_log_time(cast: Cast) -> None:
    """A policy that ended a day after the release was in force at log time, and not a day later."""
    cast.policies = [cast.sign_policy(cast.make_policy(expires_at=NOW + DAY))]
    cast.refresh()
    cast.enrol()
    story = Story(cast)
    assert story.audit(story.stamped(NOW + timedelta(hours=1))).sound
    assert "policy.expired" in failed(story.audit(story.stamped(NOW + 2 * DAY)))


def test_the_authoritys_own_certificate_is_judged_at_the_tokens_time(story: Story) -> None:
    """A stamp made after, or before, the authority's certificate was valid is none; one made while
    it was valid stays good for ever.  A certificate for something else stamps nothing.
    """
    at = NOW + timedelta(hours=1)
    ended = Authority(end=NOW + timedelta(minutes=30))
    coming = Authority(start=NOW + DAY)
    server = Authority(usage=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))
    short = Authority(end=NOW + timedelta(hours=2))
    for tsa, expected in ((ended, "claimed"), (coming, "claimed"), (server, "claimed")):
        case = story.case(tsa.stamp(story.receipt, at))
        found = audit_case(case, pin=story.cast.pin, tsa_roots=[tsa.root])
        assert expected == only(found).time
    case = story.case(short.stamp(story.receipt, at))
    found = audit_case(case, pin=story.cast.pin, tsa_roots=[story.tsa.root, short.root])
    assert ("vouched", at, "timestamp by CN=tsa.example") == basis(found)


def test_a_statement_from_after_its_own_stamp_is_refused(story: Story) -> None:
    """What was there at noon cannot have been made at three."""
    report = story.audit(story.stamped(NOW - timedelta(hours=3)))
    assert "time.order" in failed(report)
    reason = next(v.reason for v in only(report).verdicts if v.check == "time.order")
    assert "the request says 2027-01-05T12:00:00Z, and was there by 2027-01-05T09:00:00Z" in reason


def test_a_clock_that_was_set_back_is_noticed(story: Story) -> None:
    """An approval dated before the request that it names contradicts itself."""
    cast, request = story.cast, story.request
    back = changed(
        cast,
        story.answers[0],
        "sec1",
        approved_at=NOW - timedelta(hours=4),
        expires_at=NOW + timedelta(hours=4),
    )
    answers = [back, *story.answers[1:]]
    report = audit_case(case_of(cast, story.bundle, request, answers), pin=cast.pin)
    assert {"time.order"} == failed(report)


def test_an_opening_after_its_approvals_ended_is_refused(cast: Cast) -> None:
    """Log time lies before the end of the approvals; what the host says of its opening does not."""
    bundle = cast.seal()
    request = cast.request(bundle)
    hour = timedelta(hours=1)
    answers = [cast.approve(bundle, request, who, lifetime=hour) for who in QUORUM]
    done = cast.open(bundle, request, answers, cast.folder / "out")
    tsa = Authority()
    report = audit_case(
        merge(
            case_of(cast, bundle, request, answers, done),
            sort_documents(
                [
                    (f"{n}.tsr", tsa.stamp(digest, NOW + timedelta(minutes=9)))
                    for n, digest in enumerate(
                        [request.digest, *(decode_envelope(a).digest() for a in answers)]
                    )
                ]
            ),
        ),
        pin=cast.pin,
        tsa_roots=[tsa.root],
    )
    assert report.sound
    assert "receipt.time" in {v.check for v in only(report).verdicts if v.outcome == "pass"}


def test_a_token_over_a_checkpoint_dates_what_is_proven_under_it(story: Story) -> None:
    """A log without witnesses has time once somebody stamps its head."""
    from cryptography.hazmat.primitives.asymmetric import ec

    signer = LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1()))
    entry = entry_of(decode_envelope(story.done.receipt_data)).encode()
    signed = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(entry)), signer)
    proof = LogProof(0, (), signed, entry)
    at = NOW + timedelta(hours=5)
    token = story.tsa.stamp(sha256(signed.checkpoint.text().encode()).hex(), at)
    case = merge(story.case(token), sort_documents([("r.tlog-proof", proof.encode())]))
    found = audit_case(case, pin=story.cast.pin, tsa_roots=[story.tsa.root])
    assert ("vouched", at, "timestamp by CN=tsa.example") == basis(found)
    without = audit_case(story.case(token), pin=story.cast.pin, tsa_roots=[story.tsa.root])
    assert "claimed" == only(without).time
    # No policy here knows the log, so nobody could tell whether its signature was changed.
    left_out = collect(case, pin=story.cast.pin, tsa_roots=[story.tsa.root]).left_out
    assert {".tlog-proof", ".tsr"} <= {Path(name).suffix for name in left_out}


def test_a_token_is_collected_and_a_strangers_named(story: Story) -> None:
    """A collected file holds the stamps of authorities that its judge pins, and no others."""
    mine, other = story.stamped(NOW + DAY / 24), Authority().stamp(story.receipt, NOW)
    case = story.case(mine, other, story.stamped(NOW, "ab" * 32))
    root = [story.tsa.root]
    found = collect(case, pin=story.cast.pin, tsa_roots=root)
    assert 1 == sum(name.endswith(".tsr") for name in found.members)
    assert 2 == sum(name.endswith(".tsr") for name in found.left_out)
    report = judged(found.data, story.cast.pin, tsa_roots=root)
    assert report.sound
    assert "vouched" == only(report).time
    both = collect(case, pin=story.cast.pin).data
    assert {"case.foreign"} == failed(judged(both, story.cast.pin, tsa_roots=root))


@pytest.fixture
def logged(machine: Swtpm, tmp_path: Path) -> LoggedCast:
    """A cast whose policy demands a log with one witness."""
    return LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))


def test_a_witness_tells_the_time(logged: LoggedCast, tmp_path: Path) -> None:
    """Where the policy names witnesses, a release is judged when they had cosigned; and the one
    file that is collected has all that shows it.
    """
    bundle = logged.seal()
    request = logged.ask(bundle)
    answers = logged.quorum(bundle, request)
    logged.log.clock = NOW + timedelta(minutes=7)
    word = logged.countersign(bundle, request, *answers, now=NOW + timedelta(minutes=7))
    files = [*answers, word]
    done = logged.open(bundle, request, files, tmp_path / "o", now=NOW + timedelta(minutes=9))
    case = merge(
        logged.case(bundle, request, *files),
        sort_documents([("r.dsse", done.receipt_data), ("b.dsse", done.burn_data)]),
    )
    report = audit_case(case, pin=logged.pin)
    at = NOW + timedelta(minutes=7)
    assert report.sound, failed(report)
    assert ("vouched", at, f"witnesses of {ORIGIN}") == basis(report)
    whole = collect(case, pin=logged.pin)
    assert () == whole.missing
    again = judged(whole.data, logged.pin)
    assert again.sound
    assert ("vouched", at, f"witnesses of {ORIGIN}") == basis(again)


def test_witnesses_of_a_policy_that_nobody_told_state_no_time(
    logged: LoggedCast, tmp_path: Path
) -> None:
    """Whoever makes a policy can name witnesses in it.  Until that follows from the auditor's pin
    nobody's time is believed: not for the moment, nor for any statement.
    """
    bundle = logged.seal()
    request = logged.ask(bundle)
    answers = logged.quorum(bundle, request)
    word = logged.countersign(bundle, request, *answers)
    case = logged.case(bundle, request, *answers, word)
    release = only(audit_case(case, pin=logged.pin))
    assert "vouched" == release.time
    assert {request.digest} < set(release.times.stamps)
    one_custodian = logged.sign_policy(logged.make_policy(logged=logged.log.lines), "cus1")
    alone = sort_documents([("p.dsse", one_custodian)])
    for pin, documents in (
        ("ab" * 32, case),
        (logged.pin, replace(case, policies=alone.policies)),
    ):
        release = only(audit_case(documents, pin=pin))
        assert ("claimed", "") == (release.time, release.time_by)
        assert {} == release.times.stamps


def test_logged_but_backdated_is_judged_at_log_time(logged: LoggedCast) -> None:
    """Approvals that claim a day on which all was well, and were logged when a key was revoked."""
    bundle = logged.seal()
    request = logged.ask(bundle)
    answers = logged.quorum(bundle, request)
    late = NOW + timedelta(hours=2)
    logged.log.clock = late
    word = logged.countersign(bundle, request, *answers, now=late)
    sec1 = spki(logged.people["sec1"].signing[0])
    crl = logged.make_crl(number=2, revoked=[sec1], at=NOW + timedelta(hours=1))
    case = merge(logged.case(bundle, request, *answers, word), sort_documents([("n.crl", crl)]))
    release = only(audit_case(case, pin=logged.pin))
    assert ("vouched", late) == (release.time, release.at)
    assert release.tally is not None
    assert "sec1" not in {approval.officer for approval in release.tally.counted}
