"""Where the policy says `logged`, no bundle is re-wrapped of which the log knows nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from custody.cli._session import Unlocked
from custody.encoding import decode
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.case import Documents, EntryProof, merge
from custody.formats.envelope import Statement, decode_statement
from custody.formats.logentry import LogEntry, entry_of
from custody.formats.logproof import LogProof
from custody.formats.recovery import BreakGlass, Rewrapped
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.ops.audit import AuditReport, audit_case
from custody.ops.break_glass import Broken
from custody.ops.bundle import Bundle
from custody.ops.collect import collect, open_case_file
from custody.ops.heads import follow_in
from custody.ops.home import Home
from custody.ops.rewrap import sign_rewrapped
from custody.rules.verdicts import Verdict
from tests.release.cast import NOW, Cast
from tests.release.expect import case_of, failed
from tests.release.logged import Log, LoggedCast, check_of, witness
from tests.release.test_log_commands import Typed, typed
from tests.release.test_recovery import broken, found, signed, words
from tests.sim.softtoken import SoftToken

__all__ = ["typed"]

HOUR = timedelta(hours=1)


@dataclass
class Glass:
    """A bundle whose glass was broken, under a policy that demands a log."""

    cast: LoggedCast
    bundle: Bundle
    done: Broken

    @property
    def stated(self) -> Statement[BreakGlass]:
        """What the custodian said."""
        return decode_statement(BreakGlass, self.done.statement)

    def logged(self, log: Log | None = None) -> EntryProof:
        """Have a log append the statement, and prove it."""
        return proven(log or self.cast.log, entry_of(self.stated.envelope))

    def sign(self, target: Path, *proofs: EntryProof, followed: bool = False) -> Bundle:
        """Sign as the publisher, with proofs beside what the custodian made."""
        heap = merge(self.cast.documents, Documents(proofs=proofs))
        situation = self.cast.situation("pub", documents=heap)
        if followed:
            situation = follow_in(self.cast.home("pub"), situation, self.cast.log.store)
        sign_rewrapped(
            self.bundle,
            decode(Rewrapped, self.done.rewrapped),
            self.stated,
            target,
            situation=situation,
            signer=self.cast.people["pub"].signer,
        )
        return Bundle.at(target)

    def refused(self, target: Path, *proofs: EntryProof) -> CustodyError:
        """Say why the publisher does not sign, and that nothing was written."""
        with pytest.raises((Refused, Incomplete)) as caught:
            self.sign(target, *proofs)
        assert not target.exists()
        return caught.value


def proven(log: Log, entry: LogEntry) -> EntryProof:
    """Log an entry; return the proof."""
    done = log.writer().append([entry.encode()])
    head = done.signed.checkpoint
    tree = Tree(log.store, size=head.size, head=head.root)
    proof = LogProof(done.start, tree.inclusion(done.start), done.signed, entry.encode())
    return EntryProof(entry=entry, proof=proof)


@pytest.fixture
def glass(machine: Swtpm, tmp_path: Path) -> Glass:
    """Officers are as they were: what was lost is of no matter here."""
    cast = LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))
    made = found(cast)
    bundle = cast.seal()
    return Glass(cast, bundle, broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1")))


def released(glass: Glass, again: Bundle) -> Documents:
    """Release a re-wrapped bundle to its end; return the case, without what its recovery left."""
    cast = glass.cast
    cast.log.clock = NOW
    request = cast.ask(again)
    answers = cast.quorum(again, request)
    word = cast.countersign(again, request, *answers)
    done = cast.open(again, request, [*answers, word], cast.folder / "out")
    return case_of(cast, again, request, [*answers, word], done)


def said(report: AuditReport, check: str = "recovery.logged") -> list[Verdict]:
    """Return what an audit says of the log and the glass."""
    return [v for release in report.releases for v in release.verdicts if v.check == check]


def test_a_broken_glass_that_nobody_logged_is_not_signed_for(glass: Glass, tmp_path: Path) -> None:
    """A custodian and enough holders cannot open a bundle again with no trace but their files."""
    error = glass.refused(tmp_path / "again")
    assert isinstance(error, Incomplete)
    assert "not shown to be logged, which the policy demands" in error.reason
    assert ("the log's proof of it",) == tuple(error.missing)
    assert "custody log append LOG break-glass.dsse --proofs DIR" in (error.hint or "")


def test_with_the_logs_proof_it_is_signed(glass: Glass, tmp_path: Path) -> None:
    """The proof of an inclusion is all that is asked."""
    again = glass.sign(tmp_path / "again", glass.logged())
    assert glass.bundle.statement.digest == again.core.replaces


def test_the_proof_of_something_else_is_none(glass: Glass, tmp_path: Path) -> None:
    """Another entry's proof is passed over; one that does not lead to the head is refused."""
    proof, other = glass.logged(), proven(glass.cast.log, LogEntry(digest="ab" * 32, kind="policy"))
    assert isinstance(glass.refused(tmp_path / "again", other), Incomplete)
    renamed = replace(other, entry=proof.entry)
    error = glass.refused(tmp_path / "again", renamed)
    assert "recovery.logged" == check_of(error)
    # A bad one beside a good one stops nothing.
    assert glass.sign(tmp_path / "again", renamed, proof, followed=True)


def test_the_word_of_another_log_is_none(glass: Glass, tmp_path: Path) -> None:
    """Neither by another key, nor by the log's where the witnesses demanded have not cosigned."""
    witnesses = glass.cast.log.witnesses
    for log in (Log(witnesses=witnesses), Log(glass.cast.log.signer)):
        error = glass.refused(tmp_path / "again", glass.logged(log))
        assert isinstance(error, Refused)
        assert "recovery.logged" == check_of(error)


def test_a_log_that_shows_somebody_another_history_is_not_believed(
    glass: Glass, tmp_path: Path
) -> None:
    """A log told to forget a broken glass later, or never to show it, is held to what was seen."""
    log, twin = glass.cast.log, glass.cast.log.copy()
    proven(log, LogEntry(digest="ab" * 32, kind="policy"))
    glass.cast.follow("pub")
    error = glass.refused(tmp_path / "again", glass.logged(twin))
    assert "log.fork" == check_of(error)
    # Another size is no proof of a fork: what is wanted is one that both are of one history.
    proven(twin, LogEntry(digest="cd" * 32, kind="policy"))
    error = glass.refused(tmp_path / "again", glass.logged(twin))
    assert ("recovery.logged", True) == (check_of(error), "are one history" in str(error))
    assert glass.sign(tmp_path / "again", glass.logged(), followed=True)


def test_a_glass_is_not_broken_after_it_was_logged(glass: Glass, tmp_path: Path) -> None:
    """A date to come would have it pass for something of another day."""
    glass.cast.log.clock = NOW - HOUR
    error = glass.refused(tmp_path / "again", glass.logged())
    assert "recovery.log-time" == check_of(error)


def test_where_no_log_is_demanded_none_is(cast: Cast, tmp_path: Path) -> None:
    """A policy without a log asks for no proof."""
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))
    assert signed(cast, bundle, done, tmp_path / "again")


def audited(glass: Glass, case: Documents, *more: Documents) -> AuditReport:
    """Audit a release of a re-wrapped bundle."""
    return audit_case(merge(case, *more), pin=glass.cast.pin)


def test_an_auditor_holds_a_broken_glass_against_the_log(glass: Glass, tmp_path: Path) -> None:
    """A publisher whose program asked for no proof is found out: no statement, or none logged."""
    proof = glass.logged()
    again = glass.sign(tmp_path / "again", proof)
    case = released(glass, again)
    old = Documents(manifests=(glass.bundle.statement,))
    stated, shown = Documents(broken=(glass.stated,)), Documents(proofs=(proof,))

    whole = audited(glass, case, old, stated, shown)
    assert whole.sound, failed(whole)
    assert ["pass"] == [v.outcome for v in said(whole)]
    assert ["pass"] == [v.outcome for v in said(whole, "recovery.log-time")]
    for lacking in ((old, stated), (old, shown), (old,), (stated,)):
        report = audited(glass, case, *lacking)
        assert not report.sound
        assert ["fail"] == [v.outcome for v in said(report)]
    # What it replaces is not here: that is told, and no more can be.
    (told,) = said(audited(glass, case))
    assert ("not-applicable", True) == (told.outcome, "which is not here" in told.reason)
    forged = glass.cast.people["cus1"].signer.statement(glass.stated.predicate)
    by_another = Documents(broken=(decode_statement(BreakGlass, forged),))
    assert not audited(glass, case, old, by_another, shown).sound


def test_a_re_wrap_of_before_the_log_is_held_to_the_log_that_came(
    machine: Swtpm, tmp_path: Path
) -> None:
    """The version is what a publisher writes: an old one is no way round. What is true is logged
    later.
    """
    log = Log(witnesses=[witness()])
    cast = LoggedCast(tmp_path, machine, log)
    cast.next_policy(logged=None)
    made = found(cast)
    bundle = cast.seal()
    done = broken(cast, bundle, made, words(made, "cus1", "cus2", "lead1"))
    glass = Glass(cast, bundle, done)
    again = glass.sign(tmp_path / "again")
    cast.next_policy(logged=log.lines)
    case = released(glass, again)
    left = Documents(manifests=(bundle.statement,), broken=(glass.stated,))
    report = audited(glass, case, left)
    assert ["fail"] == [v.outcome for v in said(report)]
    report = audited(glass, case, left, Documents(proofs=(glass.logged(),)))
    assert report.sound, failed(report)


def test_a_bundle_sealed_anew_has_no_glass(glass: Glass) -> None:
    """`replaces` alone is no recovery: another payload was sealed by its publisher."""
    again = glass.cast.seal("later", replaces=glass.bundle.statement.digest)
    case = released(glass, again)
    report = audited(glass, case, Documents(manifests=(glass.bundle.statement,)))
    assert report.sound, failed(report)
    assert [] == said(report)


def test_what_recovery_left_is_collected_with_a_release(glass: Glass, tmp_path: Path) -> None:
    """One file holds the statement and its proof, so that it is judged as the folder was."""
    proof = glass.logged()
    again = glass.sign(tmp_path / "again", proof)
    left = Documents(manifests=(glass.bundle.statement,), broken=(glass.stated,), proofs=(proof,))
    data = collect(merge(released(glass, again), left), pin=glass.cast.pin).data
    report = audit_case(open_case_file("release.custody", data).documents, pin=glass.cast.pin)
    assert report.sound, failed(report)
    assert ["pass"] == [v.outcome for v in said(report)]


def test_a_re_wrap_is_typed_with_the_proof_beside_it(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who forgot the log is told what to do, does so, and the same command signs."""
    cast, made = typed.cast, typed.path("rewrapped")
    key = found(cast)
    (typed.path("env") / "policy-2.dsse").write_bytes(cast.policies[-1])
    bundle = cast.seal("recoverable")
    done = broken(cast, bundle, key, words(key, "cus1", "cus2", "lead1"))
    made.mkdir()
    (made / "rewrapped.json").write_bytes(done.rewrapped)
    (made / "break-glass.dsse").write_bytes(done.statement)

    @contextmanager
    def unlocked(_home: Home, _pin_fd: int | None) -> Iterator[Unlocked]:
        yield Unlocked(SoftToken(), cast.people["pub"].signer, ())

    monkeypatch.setattr("custody.cli._rewrap.unlocked", unlocked)
    again = typed.path("again")
    command = ("rewrap", bundle.path, made, "--out", again, "--log", typed.log, "--yes")
    said = typed.run("publisher", *command)
    assert (4, False) == (said.code, again.exists())
    assert "not shown to be logged, which the policy demands" in said.err
    assert "custody: missing: the log's proof of it" in said.err
    assert "hint: custody log append LOG break-glass.dsse --proofs DIR" in said.err
    assert "sign it?" not in said.err

    append = ("append", typed.log, made / "break-glass.dsse", "--proofs", made)
    typed.done("log", *append)
    typed.done("publisher", *command)
    assert bundle.statement.digest == Bundle.at(again).core.replaces
