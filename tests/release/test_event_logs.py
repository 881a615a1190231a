"""Event logs of requests, as officers judge them: what a host shows must be of its boot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from custody.errors import Refused
from custody.formats.case import merge, sort_documents
from custody.formats.envelope import Statement, decode_statement
from custody.formats.eventlog import EventLog, EventType, parse_event_log
from custody.formats.goldenset import GoldenSet
from custody.formats.request import Request
from custody.lab import bootlog
from custody.ops.approve import review_requests
from custody.ops.bundle import Bundle
from custody.ops.golden import approve_state, measure
from custody.rules.verdicts import Verdict
from tests.release.cast import NOW, PCRS, Cast
from tests.release.expect import refused, requoted
from tests.unit.eventlogs import event


def verdicts(cast: Cast, bundle: Bundle, request: Statement[Request]) -> dict[str, Verdict]:
    """Return what an officer's review finds, by check."""
    found = review_requests(bundle, [request], situation=cast.situation("sec1"))
    return {verdict.check: verdict for verdict in found.requests[0].verdicts}


def shown(cast: Cast, *, without: int | None = None, **changes: object) -> bytes:
    """Return the host's log, changed."""
    made = parse_event_log(cast.event_log)
    events = tuple(e for number, e in enumerate(made.events) if number != without)
    return EventLog(spec=made.spec, banks=made.banks, events=(*events, *changes.values())).pack()  # type: ignore[arg-type]


def test_a_request_explains_its_boot(cast: Cast) -> None:
    """V53 to V56 hold, or do not apply, for the log the lab's host booted by."""
    bundle = cast.seal()
    found = verdicts(cast, bundle, cast.request(bundle))
    assert ["pass", "pass", "pass", "not-applicable"] == [
        found[f"attestation.V{n}"].outcome for n in (53, 54, 55, 56)
    ]


def test_a_request_without_a_log_is_refused(cast: Cast) -> None:
    """Where the policy demands a log, host and officers refuse alike."""
    bundle = cast.seal()
    request = cast.request(bundle)
    with refused(cast, "attestation.V53"):
        cast.approve(bundle, requoted(cast, request, event_log=b""), "sec1")
    cast.event_log = b""
    with pytest.raises(Refused) as caught:
        cast.request(bundle)
    assert "attestation.V53" == caught.value.check


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("truncated", "attestation.V53"),
        ("of another kernel", "attestation.V53"),
        ("with an invented event", "attestation.V54"),
        ("that is none", "attestation.V54"),
    ],
)
def test_a_log_of_another_boot_is_refused(cast: Cast, name: str, check: str) -> None:
    """An officer refuses a request whose log is not of the boot its quote shows."""
    bundle = cast.seal()
    request = cast.request(bundle)
    logs = {
        "truncated": shown(cast, without=0),
        "of another kernel": bootlog.record(bootlog.BootState(loader="evil")),
        "with an invented event": shown(cast, more=event(1, 0x1234, b"")),
        "that is none": b"\0",
    }
    with refused(cast, check):
        cast.approve(bundle, requoted(cast, request, event_log=logs[name]), "sec1")


def test_an_optional_log_may_be_missing_and_not_wrong(cast: Cast) -> None:
    """Where the policy does not demand a log, one that is shown is judged all the same."""
    host = msgspec.structs.replace(cast.make_policy().host, event_log="optional")
    cast.next_policy(host=host)
    bundle = cast.seal()
    good = cast.request(bundle)
    none = requoted(cast, good, event_log=b"")
    assert "not-applicable" == verdicts(cast, bundle, none)["attestation.V53"].outcome
    assert cast.approve(bundle, none, "sec1")
    wrong = requoted(cast, good, event_log=shown(cast, without=0))
    with refused(cast, "attestation.V53"):
        cast.approve(bundle, wrong, "sec3")


def vouch(cast: Cast, *, epoch: int, oldest: int | None = None) -> Statement[GoldenSet]:
    """Measure the host with its log, and publish the next golden set."""
    signed: Statement[GoldenSet] | None = None
    for name in ("enr1", "enr2"):
        data = approve_state(
            measure(cast.tpm, pcrs=PCRS, now=NOW, event_log=cast.event_log),
            signer=cast.people[name].signer,
            situation=cast.situation("cus1"),
            name="lab-6.1",
            notes="",
            epoch=epoch,
            oldest=oldest,
            onto=signed,
        )
        signed = decode_statement(GoldenSet, data)
    assert signed is not None
    added = sort_documents([(f"golden-{epoch}.dsse", data)])
    cast.documents = merge(cast.documents, added)
    return signed


def test_the_changed_component_is_named(cast: Cast) -> None:
    """A request from another boot state than its golden set's is told by component."""
    bundle = cast.seal()
    golden = vouch(cast, epoch=2, oldest=1)
    cast.machine.reboot()
    cast.boot(bootlog.BootState(loader="boot loader 2.12"))
    cast.documents = replace(cast.documents, golden_sets=())
    changed = vouch(cast, epoch=3)
    request = cast.request(bundle)
    assert changed.digest == request.predicate.golden
    cast.documents = replace(cast.documents, golden_sets=(golden,))
    lie = requoted(cast, request, golden=golden.digest)
    verdict = verdicts(cast, bundle, lie)["attestation.V51"]
    assert "fail" == verdict.outcome
    assert "pcr 4: 'boot application" in verdict.reason


def test_a_replaced_epoch_is_refused(cast: Cast) -> None:
    """Once a newer set has come, a request by the one it replaced is refused; by it, accepted."""
    bundle = cast.seal()
    old = cast.request(bundle)
    assert "pass" == verdicts(cast, bundle, old)["golden.epoch"].outcome
    vouch(cast, epoch=2, oldest=1)
    assert "pass" == verdicts(cast, bundle, old)["golden.epoch"].outcome
    newest = vouch(cast, epoch=3)
    with refused(cast, "golden.epoch"):
        cast.approve(bundle, old, "sec1")
    request = cast.request(bundle)
    assert newest.digest == request.predicate.golden
    assert cast.approve(bundle, request, "sec1")


def test_a_retired_state_stays_retired(cast: Cast) -> None:
    """Who has seen a set retired refuses it, though nobody shows him the newer set any more."""
    bundle = cast.seal()
    old, before = cast.request(bundle), cast.documents
    vouch(cast, epoch=2)
    assert 2 == cast.situation("sec1").memory.oldest_epoch("lab-6.1")
    cast.documents = before
    with refused(cast, "golden.epoch"):
        cast.approve(bundle, old, "sec1")
    # Who never saw it cannot know.
    assert cast.approve(bundle, old, "sec2")


def test_one_enroller_retires_nothing(cast: Cast) -> None:
    """A newer set that the threshold has not signed, or from the future, is not remembered."""
    (golden,) = cast.documents.golden_sets
    for signers, later in ((("enr1",), 0), (("enr1", "cus1"), 0), (("enr1", "enr2"), 1)):
        newer = msgspec.structs.replace(
            golden.predicate, epoch=2, oldest=2, issued_at=NOW + timedelta(hours=later)
        )
        files = sort_documents([("golden-2.dsse", cast.sign(newer, *signers))])
        known = cast.situation("sec1", documents=merge(cast.documents, files)).memory
        assert 1 == known.oldest_epoch("lab-6.1")


def test_no_action_hides_nothing(cast: Cast) -> None:
    """An event retyped to extend nothing leaves the register unexplained."""
    bundle = cast.seal()
    request = cast.request(bundle)
    made = parse_event_log(cast.event_log)
    hidden = made.events[0]._replace(kind=int(EventType.NO_ACTION))
    lie = EventLog(spec=made.spec, banks=made.banks, events=(hidden, *made.events[1:])).pack()
    with refused(cast, "attestation.V53"):
        cast.approve(bundle, requoted(cast, request, event_log=lie), "sec1")
