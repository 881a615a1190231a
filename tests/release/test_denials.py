"""Whose a logged answer is, and when it came: what no file makes an auditor believe of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from custody.cli._words import answer_views, show_tally
from custody.crypto.certificates import spki_of
from custody.encoding import Digest, key_id
from custody.formats.approval import Approval, Denial
from custody.formats.case import Documents, merge, read_statement, sort_documents
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_envelope,
    decode_statement,
    encode_statement,
)
from custody.formats.logentry import entry_of
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.request import Request
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.ops.account import Entry, account_of
from custody.ops.audit import AuditedRelease, AuditReport, audit_case
from custody.ops.keys import Signer
from custody.report.html import render_report
from custody.rules.verdicts import passed
from tests.release.cast import NOW, Cast, person
from tests.release.collected import Collection, faults, judged, logged_release, reason_of, written
from tests.release.conftest import running
from tests.release.expect import audit, case_of, failed, opened
from tests.release.logged import Log, LoggedCast, witness
from tests.report.test_page import read


@dataclass(frozen=True)
class Told:
    """A collected release that is logged, with a denial by sec3, and everybody's keys."""

    cast: LoggedCast
    whole: Collection

    def copied(self, name: str, by: str) -> bytes:
        """Sign the text of a member again, as somebody else."""
        said = read_statement(self.whole.members[name]).predicate
        return self.cast.people[by].signer.statement(said)

    def instead(self, name: str, data: bytes) -> bytes:
        """Write the file with one member exchanged, every digest right."""
        return written(*{**self.whole.members, name: data}.items())

    def beside(self, data: bytes) -> bytes:
        """Write the file with one member more."""
        return written(*self.whole.members.items(), ("x.dsse", data))

    def faults(self, data: bytes) -> set[str]:
        """List what a file fails."""
        return faults(data, self.whole.pin, tsa_roots=self.whole.tsa_roots)

    def release(self, data: bytes) -> AuditedRelease:
        """Judge the one release of a file."""
        (found,) = judged(data, self.whole.pin, tsa_roots=self.whole.tsa_roots).releases
        return found

    def digest(self, name: str) -> Digest:
        """Return the statement digest that a member is called by."""
        return name.partition("-")[2].removesuffix(".dsse")


@pytest.fixture(scope="module")
def told(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """Run one release, which a log and a witness saw, once for all that only change the file."""
    with running(manufactured) as machine:
        cast = LoggedCast(tmp_path_factory.mktemp("denials"), machine, Log(witnesses=[witness()]))
        whole = logged_release(cast)
        cast.people["mallory"] = person("mallory", "officer")
        yield Told(cast, whole)


def deniers(release: AuditedRelease) -> list[str]:
    """Name who denied, by denials that hold."""
    assert release.tally is not None
    return [denial.officer for denial in release.tally.denials if passed(denial.verdicts)]


OTHERS = ["sec1", "lead2", "pub", "cus1", "enr1", "mallory"]


@pytest.mark.parametrize("by", OTHERS)
def test_a_logged_denial_cannot_be_taken_over(told: Told, by: str) -> None:
    """The text of a denial names the key of its author.  Signed again by another officer, a person
    of another role or a stranger, in its place, it is missed; beside it, it is foreign.
    """
    (name,) = told.whole.named("denial")
    assert ["sec3"] == deniers(told.release(told.whole.data))
    copy = told.copied(name, by)
    swapped = told.instead(name, copy)
    assert {"logged.whole", "case.missing", "case.foreign"} <= told.faults(swapped)
    assert [] == deniers(told.release(swapped))
    assert f"denial {told.digest(name)}" in reason_of("case.missing", swapped, told.whole.pin)
    more = told.beside(copy)
    assert {"case.foreign"} == told.faults(more)
    assert ["sec3"] == deniers(told.release(more))


@pytest.mark.parametrize("by", OTHERS)
def test_a_logged_approval_cannot_be_taken_over(told: Told, by: str) -> None:
    """Nor an approval: what its author signed for the TPM is in its text."""
    name = told.whole.named("approval")[0]
    said = decode_statement(Approval, told.whole.members[name])
    author = said.envelope.signatures[0].keyid
    if told.cast.people[by].signer.key_id == author:
        name = told.whole.named("approval")[1]
    copy = told.copied(name, by)
    assert {"logged.whole", "case.missing", "case.foreign"} <= told.faults(told.instead(name, copy))
    assert {"case.foreign"} == told.faults(told.beside(copy))


def test_a_denial_is_not_taken_away_with_its_authors_certificate(told: Told) -> None:
    """Without his certificate nothing shows that a key was revoked: his no stays one, wherever it
    lies, and a collected file says that the certificate is missing.
    """
    (name,) = told.whole.named("denial")
    key = decode_statement(Denial, told.whole.members[name]).predicate.author
    kept = {
        member: data
        for member, data in told.whole.members.items()
        if not (member.endswith(".cer") and key_id(spki_of(data)) == key)
    }
    assert len(told.whole.members) - 1 == len(kept)
    short = written(*kept.items())
    assert {"case.missing"} == told.faults(short)
    assert f"certificate of key {key}" in reason_of("case.missing", short, told.whole.pin)
    denied = [e for e in account_of(told.release(short)) if e.act.startswith("denial.")]
    assert [("denial.given", "sec3")] == [(entry.act, entry.who) for entry in denied]
    assert "no certificate here is for key" in denied[0].note


def test_a_denial_that_names_another_is_nobodys(told: Told) -> None:
    """An officer cannot have another deny: a text that names sec1, signed by sec2, is by neither,
    and keeps sec1's own approval from nothing.
    """
    (name,) = told.whole.named("denial")
    said = decode_statement(Denial, told.whole.members[name]).predicate
    people = told.cast.people
    lie = msgspec.structs.replace(said, author=people["sec1"].signer.key_id)
    data = told.beside(people["sec2"].signer.statement(lie))
    assert {"case.foreign"} == told.faults(data)
    assert ["sec3"] == deniers(told.release(data))


def test_a_denial_in_somebodys_name_is_told_as_nobodys(told: Told) -> None:
    """Anybody can write sec1's key id beside a signature that is none: no account, page or table
    says that sec1 denied.
    """
    (name,) = told.whole.named("denial")
    said = decode_statement(Denial, told.whole.members[name]).predicate
    author = told.cast.people["sec1"].signer.key_id
    lie = msgspec.structs.replace(said, author=author, reason="I never wanted this")
    forged = encode_statement(lie, [Signature(keyid=author, sig=b"no signature")])
    release = told.release(told.beside(forged))
    assert release.tally is not None
    denied = [e for e in account_of(release) if e.act.startswith("denial.")]
    assert [("denial.given", "sec3"), ("denial.uncounted", "unknown")] == [
        (entry.act, entry.who) for entry in denied
    ]
    assert ["approved"] == [act for k in release.exhibits.keys if k.key == author for act in k.acts]
    text = read(render_report(judged(told.beside(forged), told.whole.pin))).text
    assert "Denial by sec1" not in text
    assert "Denial by nobody known" in text
    shown = [view for view in answer_views(release.tally) if view.answer == "denial"]
    assert {"sec3": "not yet"} == {v.officer: v.reason for v in shown if v.good}
    assert {"sec3", "nobody known"} == {view.officer for view in shown}
    assert all("never" not in view.reason for view in shown)
    lines: list[str] = []
    show_tally(lines.append, release.tally)
    assert ["denied     sec3: not yet"] == [line for line in lines if line.startswith("denied")]


def dated(cast: LoggedCast, at: datetime) -> tuple[AuditedRelease, list[Entry]]:
    """Log a release with a denial that says it was made at ``at``; return its answers as told."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    terms = request.predicate.terms
    signer = cast.people["sec3"].signer
    said = Denial(
        author=signer.key_id,
        request=request.digest,
        manifest=bundle.statement.digest,
        policy=terms.policy,
        terms=terms.digest().hex(),
        reason="not yet",
        denied_at=at,
    )
    answers.append(signer.statement(said))
    word = cast.countersign(bundle, request, *answers)
    report = audit_case(cast.case(bundle, request, *answers, word), pin=cast.pin)
    assert report.sound, failed(report)
    (release,) = report.releases
    return release, [e for e in account_of(release) if e.act.startswith(("approval", "denial"))]


@pytest.fixture
def logged(machine: Swtpm, tmp_path: Path) -> LoggedCast:
    """A cast whose policy demands a log with one witness."""
    return LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))


def test_answers_are_told_in_the_logs_order(logged: LoggedCast) -> None:
    """A denial that was logged last is told last, whatever time it gives."""
    release, told = dated(logged, NOW - timedelta(minutes=4))
    assert [*["approval.given"] * 3, "denial.given"] == [entry.act for entry in told]
    indexes = [entry.index for entry in told if entry.index is not None]
    assert (4, True) == (len(indexes), indexes == sorted(indexes))
    assert NOW - timedelta(minutes=4) == told[-1].at
    assert ["sec3"] == deniers(release)


@pytest.mark.parametrize("minutes", [-6, 6, 600])
def test_a_denial_dated_back_or_ahead_is_found_out(logged: LoggedCast, minutes: int) -> None:
    """Its date is not believed and it says so; that its author said no is not taken from him."""
    release, told = dated(logged, NOW + timedelta(minutes=minutes))
    assert release.tally is not None
    (denial,) = release.tally.denials
    assert ["denial.log-time"] == [v.check for v in denial.verdicts if v.outcome == "fail"]
    assert denial.counts
    last = told[-1]
    assert "denial.given" == last.act
    assert "“not yet”; says it was made " in last.note
    assert last.order is not None
    assert NOW - timedelta(minutes=5) <= last.order <= NOW + timedelta(minutes=5)


def test_a_denial_after_the_opening_takes_nothing_back(cast: Cast) -> None:
    """An officer who approved, and denies when it is done, does not make it unlawful; before that,
    and as long as nothing was opened, his no is one.
    """
    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    terms, signer = request.predicate.terms, cast.people["sec1"].signer

    def denied(at: datetime) -> Documents:
        said = Denial(
            author=signer.key_id,
            request=request.digest,
            manifest=bundle.statement.digest,
            policy=terms.policy,
            terms=terms.digest().hex(),
            reason="on second thoughts",
            denied_at=at,
        )
        return sort_documents([("d.dsse", signer.statement(said))])

    late = denied(NOW + timedelta(minutes=6))
    report = audit(cast, merge(case, late))
    assert report.sound, failed(report)
    (release,) = report.releases
    assert "denial.given" == account_of(release)[-1].act
    assert not audit(cast, merge(case, denied(NOW + timedelta(minutes=4)))).sound
    (open_,) = audit(cast, merge(replace(case, receipts=(), burns=()), late)).releases
    assert open_.tally is not None
    assert not open_.tally.complete


def test_an_opening_against_a_logged_denial_is_not_dated_before_it(
    logged: LoggedCast, tmp_path: Path
) -> None:
    """A host and the log's key together: the log signs in spite of a no, and the host writes that
    it had opened before.  Nothing opens without the log's word, and there the denial is.
    """
    bundle = logged.seal()
    request = logged.ask(bundle)
    answers = logged.quorum(bundle, request)
    word = logged.countersign(bundle, request, *answers)
    done = logged.open(bundle, request, [*answers, word], tmp_path / "out")
    no = decode_statement(Denial, logged.deny(bundle, request, "sec1")).predicate
    late = msgspec.structs.replace(no, denied_at=NOW + timedelta(minutes=8))
    denial = logged.people["sec1"].signer.statement(late)
    logged.log.clock = NOW + timedelta(minutes=10)

    def judged_by(*words: bytes) -> AuditReport:
        receipts = sort_documents([("r.dsse", done.receipt_data), ("b.dsse", done.burn_data)])
        case = logged.case(bundle, request, *answers, denial, *words)
        return audit_case(merge(case, receipts), pin=logged.pin)

    again = signed_again(logged.log, request, word, denial)
    assert judged_by(word).sound, failed(judged_by(word))
    assert {"receipt.approvals", "time.order"} <= failed(judged_by(again))


def test_an_opening_dated_before_the_log_signed_is_found_out(
    logged: LoggedCast, tmp_path: Path
) -> None:
    """Without the log's signature no TPM opens: what a host says of an earlier time is not so."""
    bundle = logged.seal()
    request = logged.ask(bundle)
    answers = logged.quorum(bundle, request)
    word = logged.countersign(bundle, request, *answers)
    done = logged.open(bundle, request, [*answers, word], tmp_path / "out")
    logged.log.clock = NOW + timedelta(minutes=10)
    again = signed_again(logged.log, request, word)
    case = merge(
        logged.case(bundle, request, *answers, again),
        sort_documents([("r.dsse", done.receipt_data), ("b.dsse", done.burn_data)]),
    )
    report = audit_case(case, pin=logged.pin)
    assert {"time.order"} == failed(report)
    (said,) = {v.reason for v in report.releases[0].verdicts if v.check == "time.order"}
    assert "before the log signed, 2027-01-05T12:10:00Z" in said


def signed_again(log: Log, asked: Statement[Request], data: bytes, *more: bytes) -> bytes:
    """Say with a log's key what no log would: a word on a request, later, with ``more`` in it."""
    said = decode_statement(Logged, data).predicate
    entries = [entry_of(decode_envelope(each)) for each in more]
    done = log.writer().append([entry.encode() for entry in entries] or [b"anything else"])
    head = done.signed.checkpoint
    tree = Tree(log.store, size=head.size, head=head.root)
    old = [msgspec.structs.replace(e, proof=tree.inclusion(e.index)) for e in said.entries]
    new = [
        LoggedStatement(statement=e.digest, kind=e.kind, index=index, proof=tree.inclusion(index))
        for index, e in enumerate(entries, done.start)
    ]
    named = decode_checkpoint(asked.predicate.checkpoint or b"").checkpoint.size
    later = msgspec.structs.replace(
        said,
        entries=(*old, *new),
        checkpoint=done.signed.encode(),
        consistency=tree.consistency(named),
        logged_at=log.clock,
    )
    return Signer(log.signer.key).statement(later)
