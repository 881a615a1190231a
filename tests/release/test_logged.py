"""Where the policy says `logged`, nothing opens without the log: by the rules, and by the TPM."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.notekeys import LogSigner
from custody.crypto.signature import sign
from custody.errors import CustodyError, Incomplete, Refused
from custody.formats.approval import Approval
from custody.formats.case import Documents, EntryProof, merge, sort_documents
from custody.formats.checkpoint import Checkpoint, decode_checkpoint, sign_checkpoint
from custody.formats.envelope import Statement, decode_envelope, decode_statement
from custody.formats.logentry import LogEntry, entry_of
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.logproof import LogProof
from custody.formats.request import Request
from custody.formats.tiles import CHECKPOINT_PATH
from custody.lab.swtpm import Swtpm
from custody.log.tree import Tree
from custody.ops import countersign as ops
from custody.ops.audit import audit_case
from custody.ops.bundle import Bundle
from custody.ops.keys import Signer
from custody.ops.open import open_release
from custody.ops.released import judge_answers
from custody.rules import release
from custody.rules.logged import JudgedLogged, judge_logged
from custody.rules.quorum import policy_signed_bytes
from custody.rules.release import Judgement, VerifiedRelease, verified
from tests.release.cast import NOW
from tests.release.conftest import running
from tests.release.expect import failed, requoted
from tests.release.logged import ORIGIN, Log, LoggedCast, witness
from tests.release.unruly import Trick, force, reason, refused_by_tpm, take_everything
from tests.sim.store import Killed, MemoryStore, Steps


@dataclass
class Asked:
    """A request under a policy that demands a log, its approvals, and the log's word on it."""

    cast: LoggedCast
    bundle: Bundle
    request: Statement[Request]
    answers: list[bytes]
    word: bytes
    sec3: bytes
    judges: Iterator[int] = field(default_factory=itertools.count)

    @property
    def log(self) -> Log:
        return self.cast.log

    def judged(self, *files: bytes, now: datetime = NOW) -> Judgement:
        """Judge as the host does."""
        # A home of its own each time: what one has seen of the log would decide over the next.
        judge = f"judge-{next(self.judges)}"
        situation = self.cast.situation(judge, *files, now=now)
        return judge_answers(self.bundle.statement, self.request, situation)

    def refused(self, *files: bytes) -> str:
        """Say which check refuses."""
        with pytest.raises(Refused) as error:
            verified(self.judged(*files))
        return str(error.value.check)

    def refusal_of(self, approval: bytes, word: bytes) -> str | None:
        """Say why an approval does not count by a log's word."""
        tally = self.judged(*self.answers, approval, word).tally
        digest = decode_envelope(approval).digest()
        for over in tally.passed_over:
            if over.statement.digest == digest and not over.counts:
                return next(v.check for v in over.verdicts if v.outcome == "fail")
        return None

    def fresh_log(self) -> Log:
        """The log as it was when the host saw it: empty."""
        return Log(self.log.signer, self.log.witnesses)

    def said(self) -> Logged:
        """What the log says."""
        return decode_statement(Logged, self.word).predicate

    def saying(self, signer: LogSigner | None = None, **changes: object) -> bytes:
        """Have the log, or another key, say something else."""
        by = Signer((signer or self.log.signer).key)
        return by.statement(msgspec.structs.replace(self.said(), **changes))


@pytest.fixture(scope="module")
def asked(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    """One request, approved by a quorum and one more, and the log's word on the quorum."""
    with running(manufactured) as machine:
        log = Log(witnesses=[witness("w1"), witness("w2")])
        cast = LoggedCast(tmp_path_factory.mktemp("logged"), machine, log)
        bundle = cast.seal()
        request = cast.ask(bundle)
        answers = cast.quorum(bundle, request)
        word = cast.countersign(bundle, request, *answers)
        yield Asked(cast, bundle, request, answers, word, cast.approve(bundle, request, "sec3"))


# ── the rules ────────────────────────────────────────────────────────────────────────────────────


def test_a_quorum_alone_is_incomplete(asked: Asked) -> None:
    """With every approval and no word of the log, what is missing is the log's signature."""
    with pytest.raises(Incomplete) as error:
        verified(asked.judged(*asked.answers))
    assert ("the log's signature",) == tuple(error.value.missing)
    complete = verified(asked.judged(*asked.answers, asked.word))
    assert complete.logged is not None
    assert asked.said() == complete.logged.said


def test_an_approval_that_is_not_logged_does_not_count(asked: Asked) -> None:
    """A good approval that came after the log's word is passed over by its name, and missed."""
    sec1, _, lead1 = asked.answers
    judged = asked.judged(sec1, asked.sec3, lead1, asked.word)
    (over,) = judged.tally.passed_over
    assert ["approval.logged"] == [v.check for v in over.verdicts if v.outcome == "fail"]
    with pytest.raises(Incomplete) as error:
        verified(judged)
    assert "sec3" in error.value.missing


def test_an_approval_logged_as_something_else_does_not_count(asked: Asked) -> None:
    """Its digest under another kind is another entry, whatever the log signs."""
    log = asked.fresh_log()
    kinds = {
        e.statement: "denial" if n == 1 else e.kind for n, e in enumerate(asked.said().entries)
    }
    entries = [LogEntry(digest=digest, kind=kind) for digest, kind in kinds.items()]
    done = log.writer().append([entry.encode() for entry in entries])
    tree = Tree(log.store, size=done.signed.checkpoint.size, head=done.signed.checkpoint.root)
    lie = asked.saying(
        entries=tuple(
            LoggedStatement(
                statement=entry.digest, kind=entry.kind, index=n, proof=tree.inclusion(n)
            )
            for n, entry in enumerate(entries)
        ),
        checkpoint=done.signed.encode(),
        consistency=(),
    )
    judged = asked.judged(*asked.answers, lie)
    assert not judged.unlogged
    (over,) = judged.tally.passed_over
    assert ["approval.logged"] == [v.check for v in over.verdicts if v.outcome == "fail"]


LIES: dict[str, tuple[Callable[[Asked], bytes], str]] = {
    "the log's word by another key": (
        lambda a: a.saying(LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1()))),
        "logged.author",
    ),
    "a word about another manifest": (
        lambda a: a.saying(manifest="ab" * 32),
        "logged.request",
    ),
    "a word about other terms": (lambda a: a.saying(terms="ab" * 32), "logged.request"),
    "a word under another policy": (lambda a: a.saying(policy="ab" * 32), "logged.policy"),
    "another signature on the terms": (
        lambda a: a.saying(terms_signature=sign(a.log.signer.key, bytes(4) + bytes(32))),
        "logged.terms-signature",
    ),
    "a checkpoint that is none": (lambda a: a.saying(checkpoint=b"x"), "logged.checkpoint"),
    "a checkpoint by another key of the same name": (
        lambda a: a.saying(
            checkpoint=resigned(a, LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1())))
        ),
        "logged.checkpoint",
    ),
    "a checkpoint of another log": (
        lambda a: a.saying(checkpoint=resigned(a, LogSigner("other", a.log.signer.key))),
        "logged.checkpoint",
    ),
    "a checkpoint that no witness has cosigned": (
        lambda a: a.saying(checkpoint=resigned(a, a.log.signer)),
        "logged.checkpoint",
    ),
    "proofs from another log": (lambda a: a.saying(entries=elsewhere(a)), "logged.inclusion"),
    "answers without the request": (
        lambda a: a.saying(entries=a.said().entries[1:]),
        "logged.order",
    ),
    "a history that does not follow": (
        lambda a: a.saying(consistency=(bytes(32),)),
        "logged.consistency",
    ),
    "a clock set back on the log": (
        lambda a: a.saying(logged_at=NOW - timedelta(hours=1)),
        "logged.time",
    ),
}


def resigned(asked: Asked, signer: LogSigner) -> bytes:
    """Sign the word's checkpoint again, by some key and nobody else."""
    head = decode_checkpoint(asked.said().checkpoint).checkpoint
    return sign_checkpoint(Checkpoint(signer.name, head.size, head.root), signer).encode()


def elsewhere(asked: Asked) -> tuple[object, ...]:
    """Prove the same entries to be in another log."""
    other = Log()
    entries = [entry.entry() for entry in asked.said().entries]
    other.writer().append([b"something before", *entries])
    head = decode_checkpoint(other.store.objects[CHECKPOINT_PATH]).checkpoint
    tree = Tree(other.store, size=head.size, head=head.root)
    return tuple(
        msgspec.structs.replace(entry, proof=tree.inclusion(n), index=n)
        for n, entry in enumerate(asked.said().entries, 1)
    )


@pytest.mark.parametrize("name", LIES)
def test_a_word_that_does_not_hold_is_refused_by_name(asked: Asked, name: str) -> None:
    """Alone it is refused for its reason; beside a good one it hinders nobody."""
    lie, check = LIES[name]
    files = (*asked.answers, lie(asked))
    assert check == asked.refused(*files)
    assert verified(asked.judged(*files, asked.word)).logged is not None


def test_a_changed_byte_of_a_word_leaves_none(asked: Asked) -> None:
    """Wherever one byte of the file is changed, it is unreadable or does not hold."""
    situation = asked.cast.situation("judge-of-bytes", *asked.answers)
    assert judge_logged(decode_statement(Logged, asked.word), asked.request, situation).counts
    drawn = random.Random(7)
    for at in drawn.sample(range(len(asked.word)), 400):
        changed = bytearray(asked.word)
        changed[at] ^= 1 << drawn.randrange(8)
        heap = sort_documents([("w.dsse", bytes(changed))])
        for word in heap.logged:
            assert not judge_logged(word, asked.request, situation).counts, at


# ── the TPM ──────────────────────────────────────────────────────────────────────────────────────


def opened(asked: Asked, target: Path, *files: bytes) -> None:
    """Open as the host."""
    open_release(
        asked.bundle,
        asked.request,
        target,
        situation=asked.cast.situation("host", *files),
        tpm=asked.cast.tpm,
        place=asked.cast.place,
    )


@pytest.mark.parametrize("trick", ["omit", "relabel", "repeat", "no-or"])
def test_an_unlogged_release_cannot_open(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: Trick
) -> None:
    """With every check of ours deleted and a whole quorum, the TPM refuses without the log."""
    take_everything(monkeypatch)
    force(monkeypatch, trick)
    with pytest.raises(CustodyError) as error:
        opened(asked, tmp_path / "out", *asked.answers)
    assert refused_by_tpm(error.value), reason(error.value)
    assert [] == list(tmp_path.iterdir())


def test_the_logs_signature_alone_opens_nothing(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is no officer: with its signature and one approval short, the TPM refuses."""
    lawless(monkeypatch, asked.said())
    force(monkeypatch, "omit")
    with pytest.raises(CustodyError) as error:
        opened(asked, tmp_path / "out", *asked.answers[1:])
    assert refused_by_tpm(error.value), reason(error.value)


def test_a_log_signs_one_request_only(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's signature on other terms is refused by TPM2_PolicySigned."""
    other = asked.cast.ask(asked.bundle)
    key = asked.log.signer.key
    foreign = sign(key, policy_signed_bytes(other.predicate.terms.digest()))
    lawless(monkeypatch, msgspec.structs.replace(asked.said(), terms_signature=foreign))
    with pytest.raises(Refused) as error:
        opened(asked, tmp_path / "out", *asked.answers)
    assert "tpm.quorum" == error.value.check
    assert refused_by_tpm(error.value)


def lawless(monkeypatch: pytest.MonkeyPatch, said: Logged) -> None:
    """Delete the rules, and believe what a log is said to have said."""
    take_everything(monkeypatch)
    word = JudgedLogged(said=said, digest="", log=ORIGIN, after=None, by=None, verdicts=())

    def verified(judgement: Judgement) -> VerifiedRelease:
        return VerifiedRelease(release._TOKEN, replace(judgement, logged=(word,)))

    monkeypatch.setattr("custody.ops.released.verified", verified)


def test_a_logged_release_opens(cast: LoggedCast, tmp_path: Path) -> None:
    """Quorum and log together open the model, and the audit of the case is sound."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    denial = cast.deny(bundle, request, "lead2")
    word = cast.countersign(bundle, request, *answers, denial)
    made = cast.open(bundle, request, [*answers, word], tmp_path / "out")
    entry = entry_of(decode_envelope(made.receipt_data))
    done = cast.log.writer().append([entry.encode()])
    tree = Tree(cast.log.store, size=done.signed.checkpoint.size, head=done.signed.checkpoint.root)
    proof = LogProof(done.start, tree.inclusion(done.start), done.signed, entry.encode())
    files = [
        ("receipt.dsse", made.receipt_data),
        ("burn.dsse", made.burn_data),
        ("receipt.tlog-proof", proof.encode()),
    ]
    case = merge(cast.case(bundle, request, *answers, denial, word), sort_documents(files))
    report = audit_case(case, pin=cast.pin)
    assert report.sound, failed(report)
    (audited,) = report.releases
    assert "opened-and-burned" == audited.outcome
    assert [0, 1, 2, 3, 4] == [entry.index for entry in audited.logged[0].said.entries]
    assert "denial" == audited.logged[0].said.entries[-1].kind
    said = {v.reason for v in audited.verdicts if v.check == "log.entry" and v.outcome == "pass"}
    assert {f"receipt {entry.digest[:16]}…: entry 5 of {ORIGIN}, by 2027-01-05T12:00:00Z"} == said
    bare = audit_case(replace(case, logged=()), pin=cast.pin)
    assert "logged.signed" in failed(bare)
    assert not bare.sound


@pytest.fixture
def cast(machine: Swtpm, tmp_path: Path) -> LoggedCast:
    """A cast whose policy demands a log with two witnesses."""
    return LoggedCast(tmp_path, machine, Log(witnesses=[witness("w1"), witness("w2")]))


# ── the log's own side ───────────────────────────────────────────────────────────────────────────


def test_the_log_signs_for_no_less_than_a_quorum(asked: Asked) -> None:
    """One approval short, the log names who is missing, and has appended nothing."""
    before = dict(asked.log.store.objects)
    with pytest.raises(Incomplete) as error:
        asked.cast.countersign(asked.bundle, asked.request, *asked.answers[1:])
    assert {"sec1", "sec3"} <= set(error.value.missing)
    assert before == asked.log.store.objects


def test_the_log_judges_as_a_host_does(asked: Asked) -> None:
    """A request that no host would open is not signed for, and nothing of it is appended."""
    before = dict(asked.log.store.objects)
    lie = requoted(asked.cast, asked.request, host="gpu-2")
    with pytest.raises(Refused) as error:
        asked.cast.countersign(asked.bundle, lie, *asked.answers)
    assert "enrolment.host" == error.value.check
    assert before == asked.log.store.objects


def test_another_logs_key_signs_nothing(asked: Asked) -> None:
    """A log that the policy does not name, or a new key of the one it names, is told so."""
    other = asked.log.copy()
    other.signer = LogSigner(ORIGIN, ec.generate_private_key(ec.SECP256R1()))
    situation = asked.cast.situation("log", documents=case_of(asked))
    with pytest.raises(Refused) as error:
        ops.countersign(
            asked.request,
            home=asked.cast.home("log"),
            situation=situation,
            store=other.store,
            writer=other.writer(),
            signer=other.signer,
        )
    assert "countersign.key" == error.value.check


def case_of(asked: Asked, *more: bytes) -> Documents:
    """What the log was sent."""
    return asked.cast.case(asked.bundle, asked.request, *asked.answers, *more)


def test_what_is_logged_already_is_not_logged_again(asked: Asked) -> None:
    """Proofs tell the log where statements are; what comes before its request is logged again."""
    log = asked.log
    size = log.size
    proofs = tuple(
        EntryProof(
            entry=LogEntry(digest=entry.statement, kind=entry.kind),
            proof=LogProof(entry.index, entry.proof, decode_checkpoint(asked.said().checkpoint)),
        )
        for entry in asked.said().entries
    )
    word = asked.cast.countersign(
        asked.bundle,
        asked.request,
        *asked.answers,
        asked.sec3,
        documents=Documents(proofs=proofs),
    )
    entries = decode_statement(Logged, word).predicate.entries
    assert [*(e.index for e in asked.said().entries), size] == [e.index for e in entries]
    assert asked.refusal_of(asked.sec3, word) is None


def test_what_was_offered_since_the_request_is_found_without_proofs(asked: Asked) -> None:
    """A log finds in itself what came to it after the checkpoint that the request names."""
    log = asked.fresh_log()
    given = [asked.request.envelope, *map(decode_envelope, asked.answers[:2])]
    log.writer().append([b"something", *(entry_of(each).encode() for each in given)])
    word = asked.cast.countersign(asked.bundle, asked.request, *asked.answers, log=log)
    entries = decode_statement(Logged, word).predicate.entries
    assert [1, 2, 3, 4] == [entry.index for entry in entries]
    assert 5 == log.size


def test_an_answer_that_was_logged_before_its_request_is_logged_again(asked: Asked) -> None:
    """The order in a log's word is always the request first."""
    log = asked.fresh_log()
    early = entry_of(decode_envelope(asked.answers[0]))
    done = log.writer().append([early.encode()])
    tree = Tree(log.store, size=done.signed.checkpoint.size, head=done.signed.checkpoint.root)
    proof = LogProof(done.start, tree.inclusion(done.start), done.signed)
    word = asked.cast.countersign(
        asked.bundle,
        asked.request,
        *asked.answers,
        log=log,
        documents=Documents(proofs=(EntryProof(entry=early, proof=proof),)),
    )
    entries = decode_statement(Logged, word).predicate.entries
    assert asked.request.digest == entries[0].statement
    assert [1, 2, 3, 4] == [entry.index for entry in entries]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_log_signs_only_what_is_durably_published(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Killed at any write it has signed nothing; run again it signs, and the entries are there."""
    writes = 0

    def signing(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
        signed = decode_checkpoint(log.store.objects[CHECKPOINT_PATH])
        tree = Tree(log.store, size=signed.checkpoint.size, head=signed.checkpoint.root)
        published = {entry for _, entry in tree.entries(0, tree.size)}
        for data in (*asked.answers,):
            assert entry_of(decode_envelope(data)).encode() in published
        assert entry_of(asked.request.envelope).encode() in published
        return sign(key, message)

    monkeypatch.setattr(ops, "sign", signing)
    while True:
        writes += 1
        log = asked.fresh_log()
        steps = Steps(at=writes, when=when)
        log.store.steps = log.ledger.steps = steps
        try:
            asked.cast.countersign(asked.bundle, asked.request, *asked.answers, log=log)
        except Killed:
            log.store.steps = log.ledger.steps = Steps()
            word = asked.cast.countersign(asked.bundle, asked.request, *asked.answers, log=log)
            entries = decode_statement(Logged, word).predicate.entries
            assert asked.request.digest == entries[0].statement
            continue
        break
    assert writes > 5


def test_a_store_that_loses_what_was_appended_gets_no_signature(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store shows afterwards decides, not what was handed to it."""
    log = asked.fresh_log()
    old = dict(log.store.objects)
    monkeypatch.setattr(ops, "sign", lambda *_: pytest.fail("signed"))
    real = MemoryStore.read

    def forgetful(self: MemoryStore, path: str, *, max_bytes: int) -> bytes | None:
        forgets = self is log.store and path == CHECKPOINT_PATH and "pending" in self.objects
        return old[path] if forgets else real(self, path, max_bytes=max_bytes)

    monkeypatch.setattr(MemoryStore, "read", forgetful)
    with pytest.raises(Refused) as error:
        asked.cast.countersign(asked.bundle, asked.request, *asked.answers, log=log)
    assert "log.rewound" == error.value.check


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: bytes([d[0] ^ 1]) + d[1:]])
def test_a_spoilt_tile_stops_the_log(asked: Asked, spoil: Callable[[bytes], bytes]) -> None:
    """A truncated or corrupted tile is refused by its name before anything is signed."""
    log = asked.fresh_log()
    log.writer().append([b"one", b"two"])
    (tile,) = (path for path in log.store.objects if path == "tile/0/000.p/2")
    log.store.objects[tile] = spoil(log.store.objects[tile])
    with pytest.raises(Refused) as error:
        asked.cast.countersign(asked.bundle, asked.request, *asked.answers, log=log)
    assert "log.tile" == error.value.check


# ── time ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_dated_back_is_found_out(cast: LoggedCast, monkeypatch: pytest.MonkeyPatch) -> None:
    """An approval says an hour that no witness can confirm: the log refuses, and every host."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    said = decode_statement(Approval, answers[0]).predicate
    back = cast.people["sec1"].signer.statement(
        msgspec.structs.replace(
            said, approved_at=NOW - timedelta(hours=1), expires_at=NOW + timedelta(hours=20)
        )
    )
    with pytest.raises(Incomplete) as error:
        cast.countersign(bundle, request, back, *answers[1:])
    assert "sec1" in error.value.missing
    # A log that looks away helps nobody.
    monkeypatch.setattr(ops, "_check", lambda *_: None)
    word = cast.countersign(bundle, request, back, *answers[1:])
    judged = judge_answers(
        bundle.statement, request, cast.situation("host", back, *answers[1:], word)
    )
    (over,) = judged.tally.passed_over
    (fault,) = (v for v in over.verdicts if v.outcome == "fail")
    assert "approval.log-time" == fault.check
    assert fault.reason.startswith("says it was made 2027-01-05T11:00:00Z, but")


def test_what_was_logged_after_it_expired_does_not_count(
    cast: LoggedCast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log whose own clock is set back cannot revive an approval: witnesses state the time."""
    bundle = cast.seal()
    request = cast.ask(bundle)
    answers = [
        cast.approve(bundle, request, who, lifetime=timedelta(hours=1))
        for who in ("sec1", "sec2", "lead1")
    ]
    cast.log.clock = NOW + timedelta(hours=2)
    with pytest.raises(Refused) as error:
        cast.countersign(bundle, request, *answers)
    assert "logged.time" == error.value.check
    monkeypatch.setattr(ops, "_check", lambda *_: None)
    word = cast.countersign(bundle, request, *answers)
    judged = judge_answers(bundle.statement, request, cast.situation("host", *answers, word))
    assert judged.unlogged
    late = msgspec.structs.replace(
        decode_statement(Logged, word).predicate, logged_at=NOW + timedelta(hours=2)
    )
    word = Signer(cast.log.signer.key).statement(late)
    judged = judge_answers(bundle.statement, request, cast.situation("host", *answers, word))
    assert not judged.unlogged
    faults = {v.check for a in judged.tally.passed_over for v in a.verdicts if v.outcome == "fail"}
    assert {"approval.log-time"} == faults
    assert 3 == len(judged.tally.passed_over)


def test_a_request_that_is_dated_back_is_not_signed(cast: LoggedCast) -> None:
    """The checkpoint in its terms was cosigned later than the request says it was made."""
    bundle = cast.seal()
    cast.log.clock = NOW + timedelta(hours=1)
    cast.log.writer().append([b"something else"])
    request = cast.ask(bundle)
    answers = cast.quorum(bundle, request)
    with pytest.raises(Refused) as error:
        cast.countersign(bundle, request, *answers)
    assert "logged.time" == error.value.check
