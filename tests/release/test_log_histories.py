"""A log that shows two histories, or takes one back, is found out by whoever remembers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.notekeys import LogSigner
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, merge
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.request import Request
from custody.formats.tiles import CHECKPOINT_PATH
from custody.formats.witnessing import CosignRequest
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.ops.approve import review_requests
from custody.ops.audit_home import audit_from_home
from custody.ops.bundle import Bundle
from custody.ops.collect import Case
from custody.ops.heads import SEEN, follow_in, newest_head
from custody.ops.home import Home
from custody.rules.situation import Situation
from tests.release.expect import audit, case_of, failed, refused, requoted
from tests.release.logged import ORIGIN, Log, LoggedCast


@pytest.fixture
def cast(machine: Swtpm, tmp_path: Path) -> LoggedCast:
    """A cast whose policy demands a log without witnesses: nobody else would notice."""
    return LoggedCast(tmp_path, machine, Log())


def grow(log: Log, *entries: bytes) -> None:
    """Append entries, and publish."""
    log.writer().append(list(entries))


def standing(cast: LoggedCast, request: Statement[Request], who: str = "sec1") -> Situation:
    """What an officer judges by who has a request."""
    return cast.situation(who, documents=cast.case_with(request))


def faults(bundle: Bundle, request: Statement[Request], situation: Situation) -> set[str]:
    """Which checks of a request fail."""
    (reviewed,) = review_requests(bundle, [request], situation=situation).requests
    return {v.check for v in reviewed.verdicts if v.outcome == "fail"}


def evidence(where: str | None) -> tuple[bytes, bytes]:
    """Read the two heads that an error names."""
    assert where is not None
    folder = Path(where)
    return (
        (folder / "remembered.checkpoint").read_bytes(),
        (folder / "offered.checkpoint").read_bytes(),
    )


def test_two_heads_of_one_size_are_a_fork(cast: LoggedCast) -> None:
    """An officer who remembers one sees the other in a request: refused, and both are kept."""
    bundle, mine = cast.seal(), cast.log
    theirs = mine.copy()
    grow(mine, b"one")
    grow(theirs, b"another")
    cast.follow("sec1")
    cast.log = theirs
    request = cast.ask(bundle)
    with pytest.raises(Refused) as error:
        standing(cast, request)
    assert "log.fork" == error.value.check
    kept = evidence(error.value.where)
    assert (mine.store.objects[CHECKPOINT_PATH], theirs.store.objects[CHECKPOINT_PATH]) == kept


def test_a_longer_history_that_differs_is_refused(cast: LoggedCast) -> None:
    """Offline nothing proves it; online the log itself is the evidence, whichever is asked."""
    bundle, mine = cast.seal(), cast.log
    theirs = mine.copy()
    grow(mine, b"one")
    grow(theirs, b"another", b"and another")
    cast.follow("sec1")
    cast.log = theirs
    request = cast.ask(bundle)
    situation = standing(cast, request)
    assert {"request.continuity"} == faults(bundle, request, situation)
    with refused(cast, "request.continuity"):
        cast.approve(bundle, request, "sec1")
    with pytest.raises(Refused) as error:
        follow_in(cast.home("sec1"), situation, theirs.store)
    assert "log.fork" == error.value.check
    grow(mine, b"two", b"three")
    with pytest.raises(Refused) as error:
        follow_in(cast.home("sec1"), situation, mine.store)
    assert "log.fork" == error.value.check
    assert mine.store.objects[CHECKPOINT_PATH] in evidence(error.value.where)
    assert theirs.store.objects[CHECKPOINT_PATH] in evidence(error.value.where)


def test_a_rewound_log_is_refused(cast: LoggedCast) -> None:
    """A host that saw more than the log shows now asks for nothing, and keeps both heads."""
    bundle = cast.seal()
    grow(cast.log, b"one")
    early = dict(cast.log.store.objects), dict(cast.log.store.versions)
    grow(cast.log, b"two")
    late = cast.log.store.objects[CHECKPOINT_PATH]
    cast.follow("host")
    cast.log.store.objects, cast.log.store.versions = early
    with pytest.raises(Refused) as error:
        cast.ask(bundle)
    assert "log.rollback" == error.value.check
    assert (late, early[0][CHECKPOINT_PATH]) == evidence(error.value.where)


def test_a_log_that_took_back_the_requests_checkpoint_signs_nothing(cast: LoggedCast) -> None:
    """The log's own tree must go on from what its key has signed."""
    bundle, mine = cast.seal(), cast.log
    theirs = mine.copy()
    grow(mine, b"one")
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    grow(theirs, b"another", b"and another")
    with pytest.raises(Refused) as error:
        cast.countersign(bundle, request, *answers, log=theirs)
    assert "log.fork" == error.value.check


def test_a_proof_ties_what_was_seen_to_what_is_offered(cast: LoggedCast) -> None:
    """An officer offline believes a longer log by a file, and remembers the newer head."""
    bundle = cast.seal()
    grow(cast.log, b"one")
    cast.follow("sec1")
    grow(cast.log, b"two", b"three")
    request = cast.ask(bundle)
    assert {"request.continuity"} == faults(bundle, request, standing(cast, request))
    signed = decode_checkpoint(cast.log.store.objects[CHECKPOINT_PATH])
    tree = Tree(cast.log.store, size=3, head=signed.checkpoint.root)
    wrong = CosignRequest(1, tree.consistency(2), signed)
    cast.brought = Documents(consistencies=(wrong,))
    assert {"request.continuity"} == faults(bundle, request, standing(cast, request))
    cast.brought = Documents(consistencies=(wrong, CosignRequest(1, tree.consistency(1), signed)))
    assert set() == faults(bundle, request, standing(cast, request))
    newest = newest_head(cast.home("sec1"), SEEN, ORIGIN)
    assert newest is not None
    assert 3 == newest.checkpoint.size


def test_an_older_head_is_no_fault(cast: LoggedCast) -> None:
    """A host that has seen less than the officer is behind, and not refused where it is proven."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    grow(cast.log, b"one")
    cast.follow("sec1")
    situation = standing(cast, request)
    assert {"request.continuity"} == faults(bundle, request, situation)
    situation = follow_in(cast.home("sec1"), situation, cast.log.store)
    assert set() == faults(bundle, request, situation)


def test_a_host_that_never_saw_the_log_asks_for_nothing(cast: LoggedCast) -> None:
    """Terms without a checkpoint would be tied to no history."""
    with pytest.raises(Incomplete) as error:
        cast.request(cast.seal())
    assert (f"a checkpoint of {ORIGIN}",) == tuple(error.value.missing)


@pytest.mark.parametrize("kind", ["none", "another", "junk"])
def test_the_checkpoint_is_the_one_of_the_terms(cast: LoggedCast, kind: str) -> None:
    """A host cannot leave out the checkpoint, nor show another than its terms name."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    grow(cast.log, b"one")
    notes = {"none": None, "another": cast.log.store.objects[CHECKPOINT_PATH], "junk": b"x"}
    lie = requoted(cast, request, checkpoint=notes[kind])
    assert {"request.checkpoint"} == faults(bundle, lie, cast.situation("sec2"))


def test_a_rotated_key_vouches_for_nothing(cast: LoggedCast) -> None:
    """Once the policy names a new key of the log, what the old one signed is refused by name."""
    bundle = cast.seal()
    cast.follow("host")
    signer = LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1()))
    cast.next_policy("cus1", "cus2", logged=(f"log {signer.note_key.vkey}", "quorum none"))
    with refused(cast, "request.checkpoint"):
        cast.request(bundle)


def test_a_policy_moves_everybody_to_a_new_log(cast: LoggedCast, tmp_path: Path) -> None:
    """Its key gone, a log ends and another begins, which every host reads once before it asks;
    what the old one signed for stays good under the policy of its time.
    """
    bundle = cast.seal()
    first = cast.ask(bundle)
    answers = cast.quorum(bundle, first)
    word = cast.countersign(bundle, first, *answers)
    done = cast.open(bundle, first, [*answers, word], tmp_path / "first")
    case = case_of(cast, bundle, first, [*answers, word], done)
    assert audit(cast, case).sound

    name = "log.example.com/models-2"
    cast.log = Log(LogSigner(name, ec.generate_private_key(ec.SECP256R1())))
    cast.next_policy("cus1", "cus2", logged=cast.log.lines)
    with pytest.raises(Incomplete) as error:
        cast.request(bundle)
    assert (f"a checkpoint of {name}",) == tuple(error.value.missing)
    second = cast.ask(bundle)
    answers = cast.quorum(bundle, second)
    word = cast.countersign(bundle, second, *answers)
    done = cast.open(bundle, second, [*answers, word], tmp_path / "second")
    later = case_of(cast, bundle, second, [*answers, word], done)
    report = audit(cast, merge(case, later))
    assert report.sound, failed(report)
    assert [ORIGIN, name] == sorted(release.logged[0].log for release in report.releases)


def test_answers_are_given_by_who_has_followed(cast: LoggedCast) -> None:
    """An approval of a request moves the officer's memory of the log as well."""
    bundle = cast.seal()
    grow(cast.log, b"one")
    request = cast.ask(bundle)
    standing(cast, request)
    cast.approve(bundle, request, "sec1")
    newest = newest_head(cast.home("sec1"), SEEN, ORIGIN)
    assert newest is not None
    assert cast.log.store.objects[CHECKPOINT_PATH] == newest.encode()
    terms = msgspec.structs.replace(request.predicate.terms, checkpoint=None)
    assert terms.digest() != request.predicate.terms.digest()


def test_an_auditor_remembers_what_he_saw(cast: LoggedCast, tmp_path: Path) -> None:
    """His home holds the newest head; a case from another history of the log is refused."""
    bundle, mine = cast.seal(), cast.log
    theirs = mine.copy()
    home = cast.home("auditor")

    def case_of(log: Log) -> Case:
        cast.log = log
        cast.forget("host")
        request = cast.ask(bundle)
        answers = cast.quorum(bundle, request)
        word = cast.countersign(bundle, request, *answers)
        return Case(documents=cast.case(bundle, request, *answers, word), files=())

    grow(mine, b"one")
    first = case_of(mine)
    assert audit_from_home(home, first, pin=cast.pin).sound
    assert 5 == seen_size(home)
    second = case_of(mine)
    assert audit_from_home(home, second, pin=cast.pin).sound
    assert audit_from_home(home, second, pin=cast.pin, source=mine.store).sound
    assert 9 == seen_size(home)
    for who in ("sec1", "sec2", "lead1"):
        cast.forget(who)
    grow(theirs, b"another")
    other = case_of(theirs)
    report = audit_from_home(home, other, pin=cast.pin)
    assert {"request.continuity", "logged.continuity"} == failed(report)
    with pytest.raises(Refused) as error:
        audit_from_home(home, other, pin=cast.pin, source=mine.store)
    assert "log.fork" == error.value.check
    assert error.value.where is not None
    assert Path(error.value.where).is_relative_to(home.path)


def seen_size(home: Home) -> int:
    """How many entries the newest head has that a home remembers."""
    newest = newest_head(home, SEEN, ORIGIN)
    assert newest is not None
    return newest.checkpoint.size
