"""A host that is retired, or enrolled again: who refuses it, and who remembers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from custody.cli._audit_words import show_audit
from custody.cli._ui import Screen
from custody.errors import Refused
from custody.formats.case import Documents, sort_documents
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.retirement import Retirement
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.collect import collect, open_case_file
from custody.ops.home import Home
from custody.ops.trust import pin, remember_retired
from custody.ops.unseal import unseal_release
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, case_of, failed, refused

LATER = NOW + timedelta(hours=1)


def retirement(
    cast: Cast, *signers: str, of: Statement[EnrolmentRecord] | None = None, at: datetime = NOW
) -> tuple[Statement[Retirement], ...]:
    """Retire the host by two enrollers, unless others are named."""
    record = of or cast.documents.enrolments[0]
    said = record.predicate
    ended = Retirement(
        environment=cast.pin,
        host=said.host,
        ek_spki=said.ek_spki,
        record=record.digest,
        epoch=said.epoch,
        reason="stolen from the rack",
        retired_at=at,
    )
    data = cast.sign(ended, *(signers or ("enr2", "enr3")))
    return sort_documents([("retirement.dsse", data)]).retirements


def test_a_retired_host_gets_nothing_from_anybody(cast: Cast, tmp_path: Path) -> None:
    """Host, officer and auditor refuse it; a request made before is not opened after."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.documents = replace(cast.documents, retirements=retirement(cast))
    with refused(cast, "enrolment.retired"):
        cast.open(bundle, request, answers, tmp_path / "out")
    with refused(cast, "enrolment.retired"):
        cast.approve(bundle, request, "sec2")
    with refused(cast, "enrolment.retired"):
        cast.request(bundle)
    report = audit_case(case_of(cast, bundle, request, answers), pin=cast.pin, at=LATER)
    assert "enrolment.retired" in failed(report)
    (said,) = {v.reason for v in report.releases[0].verdicts if v.check == "enrolment.retired"}
    assert "host retired on 2027-01-05T12:00:00Z: stolen from the rack" == said


def test_a_retirement_that_is_left_out_later_is_remembered(cast: Cast, tmp_path: Path) -> None:
    """Who carries the files cannot bring a host back to an officer who has seen it retired."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    before = cast.documents
    cast.documents = replace(before, retirements=retirement(cast))
    cast.situation("sec2")
    cast.situation("host")
    cast.documents = before
    with refused(cast, "enrolment.retired"):
        cast.approve(bundle, request, "sec2")
    with refused(cast, "enrolment.retired"):
        cast.open(bundle, request, answers, tmp_path / "out")


def test_one_enroller_stops_no_host(cast: Cast, tmp_path: Path) -> None:
    """A retirement that the threshold has not signed says nothing."""
    bundle = cast.seal()
    cast.documents = replace(cast.documents, retirements=retirement(cast, "enr2"))
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, tmp_path / "out")


def test_enrolling_again_ends_the_record_that_was(cast: Cast, tmp_path: Path) -> None:
    """Evidence under the old record is refused; under the new one the host goes on."""
    bundle = cast.seal()
    old, first = cast.request(bundle), cast.documents.enrolments
    cast.enrol(epoch=2)
    new = cast.documents.enrolments
    cast.documents = replace(cast.documents, enrolments=(*first, *new))
    with refused(cast, "enrolment.epoch"):
        cast.approve(bundle, old, "sec2")
    # The officer has seen record 2 now: the folder as it was does not help.
    cast.documents = replace(cast.documents, enrolments=first)
    with refused(cast, "enrolment.epoch"):
        cast.approve(bundle, old, "sec2")
    cast.documents = replace(cast.documents, enrolments=(*first, *new))
    request = cast.request(bundle)
    assert new[0].digest == request.predicate.enrolment
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, tmp_path / "out")


def test_two_records_of_one_number_are_nobodys(cast: Cast) -> None:
    """Two answers to who this TPM is, both signed: neither is taken."""
    bundle = cast.seal()
    request = cast.request(bundle)
    said = cast.documents.enrolments[0].predicate
    other = cast.sign(msgspec.structs.replace(said, host="gpu-2"), "enr1", "enr3")
    both = sort_documents([("other.dsse", other)]).enrolments
    cast.documents = replace(cast.documents, enrolments=(*cast.documents.enrolments, *both))
    with refused(cast, "enrolment.fork"):
        cast.approve(bundle, request, "sec1")


def test_a_kept_key_of_a_retired_host_stays_shut(cast: Cast, tmp_path: Path) -> None:
    """What a host keeps for restarts is not unsealed once it is retired."""
    cast.next_policy(modes=("once", "sealed"))
    bundle = cast.seal()
    request = cast.request(bundle, mode="sealed")
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, tmp_path / "first")
    cast.documents = replace(cast.documents, retirements=retirement(cast))
    with refused(cast, "enrolment.retired"):
        _unseal(cast, bundle, tmp_path / "out")


def _unseal(cast: Cast, bundle: Bundle, target: Path) -> None:
    unseal_release(
        bundle,
        target,
        situation=cast.situation("host"),
        tpm=cast.tpm,
        place=cast.place,
        event_log=cast.event_log,
    )


def test_a_later_retirement_leaves_an_audit_as_it_was(
    cast: Cast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was lawful when it happened stays so; the report says what came after."""
    case = _opened(cast, tmp_path)
    later = replace(case, retirements=retirement(cast, at=NOW + timedelta(days=3)))
    report = audit_case(later, pin=cast.pin)
    assert report.sound
    said = [v.reason for v in report.releases[0].verdicts if v.check == "enrolment.retired"]
    assert ["host retired on 2027-01-08T12:00:00Z, after the moment judged"] == said
    show_audit(Screen(as_json=False), report, checks=False)
    assert f"retired    {said[0]}\n" in capsys.readouterr().out


def _opened(cast: Cast, tmp_path: Path) -> Documents:
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    return case_of(cast, bundle, request, answers, opened)


def test_an_auditor_remembers_retirements_too(cast: Cast, tmp_path: Path) -> None:
    """A case that leaves one out is judged by what the auditor has seen, at its moment."""
    before = NOW - timedelta(minutes=30)
    case = _opened(cast, tmp_path)
    home = Home(tmp_path / "auditor")
    pin(home, documents=cast.documents, digest=cast.pin, now=NOW)
    told = replace(cast.documents, retirements=retirement(cast, at=before))
    remember_retired(home, documents=told, now=NOW)
    known = home.memory().enrolments
    report = audit_case(case, pin=cast.pin, retired=known)
    assert "enrolment.retired" in failed(report)
    earlier = audit_case(case, pin=cast.pin, at=before - timedelta(minutes=1), retired=known)
    assert "enrolment.retired" not in failed(earlier)


def test_a_collected_case_tells_of_the_retirement(cast: Cast, tmp_path: Path) -> None:
    """Collecting a release brings the retirement of its host along."""
    case = _opened(cast, tmp_path)
    ended = retirement(cast, at=NOW + timedelta(days=3))
    file = collect(replace(case, retirements=ended), pin=cast.pin)
    found = open_case_file("release.case", file.data).documents
    assert ended == found.retirements


def test_a_retired_hosts_folder_teaches_nothing_by_a_stranger(cast: Cast) -> None:
    """Retirements are remembered only where the policies follow from the pin."""
    home = cast.home("sec1")
    remember_retired(home, documents=Documents(retirements=retirement(cast)), now=NOW)
    assert all(known.retired == 0 for known in home.memory().enrolments)
    with pytest.raises(Refused):
        pin(home, documents=Documents(), digest=cast.pin, now=NOW)
