"""A log that shows two histories, or takes one back, is found out by whoever remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.notekeys import LogSigner
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, EntryProof, merge
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.logentry import LogEntry, decode_entry
from custody.formats.logproof import LogProof
from custody.formats.request import Request
from custody.formats.tiles import CHECKPOINT_PATH
from custody.formats.witnessing import CosignRequest
from custody.lab.swtpm import Swtpm
from custody.log.storage import Source
from custody.log.tree import Tree
from custody.ops.approve import review_requests
from custody.ops.audit import AuditReport
from custody.ops.audit_home import audit_from_home, collect_from_home
from custody.ops.bundle import Bundle
from custody.ops.collect import Case, audit_files, collect, open_case_file
from custody.ops.heads import check_proof, follow_in, follow_log, newest_head
from custody.ops.home import SEEN, Home
from custody.rules.situation import Situation
from tests.release.expect import audit, case_of, failed, refused, requoted
from tests.release.logged import ORIGIN, Log, LoggedCast, witness


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

    old, name = cast.log, "log.example.com/models-2"
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
    both = Case(documents=merge(case, later), files=())
    for served, other in ((old, name), (cast.log, ORIGIN)):
        home = Home(tmp_path / f"auditing-{other.replace('/', '-')}")
        report = audit_from_home(home, both, pin=cast.pin, source=served.store)
        assert report.sound, failed(report)
        (unread,) = [v.reason for v in report.verdicts if v.check == "log.served"]
        assert f"{other}: not read; another log is served" == unread


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


def released(cast: LoggedCast, bundle: Bundle, log: Log) -> Documents:
    """Have a log sign for a request and its answers, by people who have seen nothing of it yet."""
    for who in ("host", "sec1", "sec2", "lead1"):
        cast.forget(who)
    cast.log = log
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    word = cast.countersign(bundle, request, *answers)
    return cast.case(bundle, request, *answers, word)


def padded(log: Log, count: int) -> Log:
    """Fill a log with entries that nobody asks for."""
    rows = [LogEntry(digest=f"{n:064x}", kind="denial").encode() for n in range(count)]
    grow(log, *rows)
    return log


def reasons(report: AuditReport) -> str:
    """What the case as a whole fails for."""
    return " ".join(v.reason for v in report.verdicts if v.outcome == "fail")


def test_two_histories_in_one_case_are_proven_without_a_home(cast: LoggedCast) -> None:
    """An auditor who has never seen the log is told both heads, with their roots."""
    bundle, mine, theirs = cast.seal(), cast.log, cast.log.copy()
    first, second = released(cast, bundle, mine), released(cast, bundle, padded(theirs, 1))
    for alone in (first, second):
        assert set() == failed(audit(cast, alone))
    report = audit(cast, merge(first, second))
    assert not report.sound
    assert {"log.history"} == failed(report)
    assert "two histories" in reasons(report)
    (history,) = report.histories
    assert history.conflict is not None
    for head in history.conflict:
        assert head.checkpoint.root.hex() in reasons(report)


def test_two_histories_that_nothing_contradicts_are_not_believed(cast: LoggedCast) -> None:
    """A fork whose entries lie where the other log's were never shown is not one history either."""
    bundle, mine, theirs = cast.seal(), cast.log, cast.log.copy()
    first, second = released(cast, bundle, mine), released(cast, bundle, padded(theirs, 16))
    report = audit(cast, merge(first, second))
    assert {"log.history"} == failed(report)
    assert "nothing here shows its heads of 4, 20 entries to be of one history" in reasons(report)


def test_a_first_contact_with_two_histories_is_remembered_as_none(
    cast: LoggedCast, tmp_path: Path
) -> None:
    """An auditor's home keeps proof of a fork, and does not begin with either of two histories."""
    bundle, mine = cast.seal(), cast.log
    theirs, other = mine.copy(), mine.copy()
    home = Home(tmp_path / "auditing")
    first = released(cast, bundle, mine)
    apart = merge(first, released(cast, bundle, padded(theirs, 16)))
    report = audit_from_home(home, Case(documents=apart, files=()), pin=cast.pin)
    assert {"log.history"} == failed(report)
    assert None is newest_head(home, SEEN, ORIGIN)
    forked = merge(first, released(cast, bundle, padded(other, 1)))
    with pytest.raises(Refused) as error:
        audit_from_home(home, Case(documents=forked, files=()), pin=cast.pin)
    assert "log.fork" == error.value.check
    assert 2 == len(set(evidence(error.value.where)))


def test_two_releases_are_shown_to_be_of_one_history(cast: LoggedCast, tmp_path: Path) -> None:
    """By what the log itself gives, which a collected file can hold for who reads no log."""
    bundle = cast.seal()
    first, second = released(cast, bundle, cast.log), released(cast, bundle, cast.log)
    third = released(cast, bundle, padded(cast.log, 3))
    case = merge(first, third)
    assert {"log.history"} == failed(audit(cast, case))
    assert audit(cast, merge(first, second)).sound
    alone = collect(case, pin=cast.pin)
    assert ["consistency with"] == [missing.kind for missing in alone.missing]
    home, source = Home(tmp_path / "auditing"), cast.log.store
    file = collect_from_home(home, case, pin=cast.pin, source=source)
    assert () == file.missing
    padded(cast.log, 7)
    assert file.data == collect_from_home(home, case, pin=cast.pin, source=source).data
    found = open_case_file("x.case", file.data)
    report = audit_files(Case(documents=found.documents, files=(found,)), pin=cast.pin)
    assert report.sound, failed(report)


def test_a_quorum_of_witnesses_vouches_for_one_history(machine: Swtpm, tmp_path: Path) -> None:
    """Two heads that the same quorum has cosigned need no proof beside."""
    cast = LoggedCast(tmp_path, machine, Log(witnesses=[witness()]))
    bundle = cast.seal()
    first, second = released(cast, bundle, cast.log), released(cast, bundle, padded(cast.log, 16))
    assert audit(cast, merge(first, second)).sound


def test_a_log_that_shows_less_than_a_request_names_is_refused(cast: LoggedCast) -> None:
    """Whoever reads it for the first time has the request's head: what is served is older."""
    early = cast.log.copy()
    bundle = cast.seal()
    grow(cast.log, b"one")
    request = cast.ask(bundle)
    situation = standing(cast, request, "sec2")
    cast.forget("sec2")
    with pytest.raises(Refused) as error:
        follow_in(cast.home("sec2"), situation, early.store)
    assert "log.rollback" == error.value.check
    assert early.store.objects[CHECKPOINT_PATH] in evidence(error.value.where)


def test_a_fork_that_is_served_is_not_what_is_remembered(cast: LoggedCast, tmp_path: Path) -> None:
    """An auditor whose files show another history refuses it, and believes the right one later."""
    bundle, mine, theirs = cast.seal(), cast.log, cast.log.copy()
    case = Case(documents=released(cast, bundle, mine), files=())
    home = Home(tmp_path / "auditing")
    padded(theirs, 9)
    with pytest.raises(Refused) as error:
        audit_from_home(home, case, pin=cast.pin, source=theirs.store)
    assert "log.fork" == error.value.check
    assert None is newest_head(home, SEEN, ORIGIN)
    assert audit_from_home(home, case, pin=cast.pin, source=mine.store).sound
    assert 4 == seen_size(home)


def test_a_proof_from_another_history_than_was_seen_is_refused(cast: LoggedCast) -> None:
    """``custody log verify --home`` knows a fork by the head that it remembers."""
    mine, theirs = cast.log, cast.log.copy()
    padded(mine, 3)
    grow(theirs, b"other", LogEntry(digest=f"{1:064x}", kind="denial").encode())
    home, key = cast.home("sec1"), mine.signer.note_key
    check_proof(home, key, proof_of(theirs, 1))
    cast.follow("sec1")
    check_proof(home, key, proof_of(mine, 1))
    with pytest.raises(Refused) as error:
        check_proof(home, key, proof_of(padded(theirs, 1), 1))
    assert "log.fork" == error.value.check
    assert 2 == len(set(evidence(error.value.where)))


def proof_of(log: Log, index: int) -> EntryProof:
    """Prove an entry by a log's newest head."""
    signed = decode_checkpoint(log.store.objects[CHECKPOINT_PATH])
    tree = Tree(log.store, size=signed.checkpoint.size, head=signed.checkpoint.root)
    ((_, entry),) = tree.entries(index, index + 1)
    proof = LogProof(index, tree.inclusion(index), signed, entry)
    return EntryProof(entry=decode_entry(entry), proof=proof)


def test_a_lost_memory_is_no_first_contact(cast: LoggedCast) -> None:
    """Whoever takes away what a home has seen of a log makes nobody believe another."""
    bundle = cast.seal()
    grow(cast.log, b"one")
    request = cast.ask(bundle)
    for who in ("host", "sec1"):
        (cast.home(who).path / SEEN).unlink()
        with pytest.raises(Refused) as error:
            cast.follow(who)
        assert "log.rewound" == error.value.check
    with pytest.raises(Refused) as error:
        standing(cast, request)
    assert "log.rewound" == error.value.check
    home = cast.home("auditor")
    (home.path / SEEN).unlink()
    case = Case(documents=cast.case(bundle, request), files=())
    with pytest.raises(Refused) as error:
        audit_from_home(home, case, pin=cast.pin)
    assert ("log.rewound", str(home.path)) == (error.value.check, error.value.where)


@dataclass
class Meanwhile:
    """A log whose checkpoint is read while another command follows another one."""

    source: Source
    then: Callable[[], object] | None

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return the object; before the first tile, let the other command run."""
        if path != CHECKPOINT_PATH and self.then is not None:
            then, self.then = self.then, None
            then()
        return self.source.read(path, max_bytes=max_bytes)


@pytest.mark.parametrize(("others", "check"), [(1, "log.fork"), (2, "log.rollback")])
def test_two_commands_at_once_are_not_shown_two_histories(
    cast: LoggedCast, others: int, check: str
) -> None:
    """What another command saw in the meantime is held against, whichever is larger."""
    mine, theirs = cast.log, cast.log.copy()
    grow(mine, b"mine")
    padded(theirs, others)
    home, policy = cast.home("sec1"), cast.log_policy
    source = Meanwhile(mine.store, lambda: follow_log(home, theirs.store, policy))
    with pytest.raises(Refused) as error:
        follow_log(home, source, policy)
    assert check == error.value.check
    assert theirs.size == seen_size(home)


def test_a_smaller_history_seen_meanwhile_is_held_against(cast: LoggedCast) -> None:
    """A command that read more does not cover up that another one saw a fork of the beginning."""
    mine, theirs = cast.log, cast.log.copy()
    padded(theirs, 1)
    grow(mine, b"one", b"two", b"three")
    home, policy = cast.home("sec1"), cast.log_policy
    source = Meanwhile(mine.store, lambda: follow_log(home, theirs.store, policy))
    with pytest.raises(Refused) as error:
        follow_log(home, source, policy)
    assert "log.fork" == error.value.check
