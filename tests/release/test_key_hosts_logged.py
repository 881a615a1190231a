"""Hosts without a TPM where releases are logged: consents go into the log before approvals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from custody.errors import Incomplete
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyRequest
from custody.formats.logged import Logged
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.countersign import countersign
from custody.ops.heads import follow_in
from custody.ops.released import judge_answers
from tests.release.cast import NOW
from tests.release.conftest import running
from tests.release.expect import QUORUM
from tests.release.keyhosts import HOST, add_host, ask, both_rounds, case_of, consent, open_it
from tests.release.logged import Log, LoggedCast, witness
from tests.release.test_release import same_tree


@pytest.fixture
def hosted(manufactured: tuple[Path, Path], tmp_path: Path) -> Iterator[LoggedCast]:
    """A cast whose policy demands a log, and takes a host without a TPM."""
    with running(manufactured) as machine:
        cast = LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))
        add_host(cast)
        yield cast


def asked(cast: LoggedCast, bundle: Bundle) -> Statement[KeyRequest]:
    """Follow the log, and ask."""
    cast.follow(HOST)
    return ask(cast, bundle)


def signed(
    cast: LoggedCast, bundle: Bundle, request: Statement[KeyRequest], answers: list[bytes]
) -> bytes:
    """Have the log append and sign."""
    home = cast.home(cast.log.home)
    documents = case_of(cast, bundle, request, answers)
    situation = follow_in(home, cast.situation(cast.log.home, documents=documents), cast.log.store)
    return countersign(
        request,
        home=home,
        situation=situation,
        store=cast.log.store,
        writer=cast.log.writer(),
        signer=cast.log.signer,
    ).data


def test_a_logged_release_in_two_rounds(hosted: LoggedCast, tmp_path: Path) -> None:
    """The log holds request, consents, approvals, in this order; the audit is at its time."""
    bundle = hosted.seal()
    request = asked(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    with pytest.raises(Incomplete) as caught:
        open_it(hosted, bundle, request, answers, tmp_path / "out")
    assert "has not signed these terms" in caught.value.reason
    word = signed(hosted, bundle, request, answers)
    said = decode_statement(Logged, word).predicate
    kinds = [entry.kind for entry in said.entries]
    assert ["keyrequest", *["consent"] * len(QUORUM), *["approval"] * len(QUORUM)] == kinds
    opened = open_it(hosted, bundle, request, [*answers, word], tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")
    case = case_of(hosted, bundle, request, [*answers, word, opened.receipt_data])
    (release,) = audit_case(case, pin=hosted.pin).releases
    assert release.sound, [v for v in release.verdicts if v.outcome == "fail"]
    assert ("opened-burn-not-provable", "vouched") == (release.outcome, release.time)
    # One consent less than the log signed for is noticed.
    gone = replace(case, consents=case.consents[1:])
    (release,) = audit_case(gone, pin=hosted.pin).releases
    assert not release.sound


def test_a_consent_that_is_not_logged_does_not_count(hosted: LoggedCast) -> None:
    """Where the log's word is there, a consent beside it is passed over, with the reason."""
    bundle = hosted.seal()
    request = asked(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    word = signed(hosted, bundle, request, answers)
    late = consent(hosted, bundle, request, "sec2")
    heap = merge(hosted.documents, sort_documents([("late.dsse", late)]))
    judged = judge_answers(
        bundle.statement,
        request,
        hosted.situation(HOST, *answers, word, documents=heap, now=NOW),
    )
    (over,) = [c for c in judged.tally.consents if not c.counts]
    assert ("sec2", {"consent.logged"}) == (
        over.officer,
        {v.check for v in over.verdicts if v.outcome == "fail"},
    )
    assert judged.tally.complete


def test_a_late_opening_of_a_logged_release(hosted: LoggedCast, tmp_path: Path) -> None:
    """Where witnesses vouch for the time, lateness is all that is wrong with it."""
    bundle = hosted.seal()
    request = asked(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    word = signed(hosted, bundle, request, answers)
    good = open_it(hosted, bundle, request, [*answers, word], tmp_path / "out").receipt.predicate
    late = msgspec.structs.replace(good, finished_at=request.predicate.terms.deadline)
    data = hosted.people[HOST].signer.statement(late)
    (release,) = audit_case(
        case_of(hosted, bundle, request, [*answers, word, data]), pin=hosted.pin
    ).releases
    assert ("opened-burn-not-provable", "vouched") == (release.outcome, release.time)
    assert {"receipt.deadline"} == {v.check for v in release.verdicts if v.outcome == "fail"}
