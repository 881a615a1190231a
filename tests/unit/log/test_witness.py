from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from custody.crypto.notekeys import NoteKey
from custody.errors import Refused, Unavailable
from custody.formats.checkpoint import SignedCheckpoint, sign_checkpoint
from custody.formats.logpolicy import KnownKey
from custody.formats.note import Note, NoteSignature, decode_signatures
from custody.formats.witnessing import SIZE_MEDIA_TYPE, CosignRequest
from custody.log.tree import Tree
from custody.log.witness import Answer, Post, Reply, Witness, ask_witness, ask_witnesses
from tests.sim.store import MemoryStore
from tests.unit.log.logs import entries, grown, head, signed, signer, witness_signer

NOW = 1_800_000_000


@dataclass
class MemoryWitnessed:
    """What a witness has cosigned; with `race` somebody else is faster once."""

    heads: dict[str, SignedCheckpoint] = field(default_factory=dict)
    race: SignedCheckpoint | None = None

    def latest(self, origin: str) -> SignedCheckpoint | None:
        return self.heads.get(origin)

    def advance(self, signed: SignedCheckpoint, *, after: SignedCheckpoint | None) -> bool:
        origin = signed.checkpoint.origin
        if self.race is not None:
            self.heads[origin], self.race = self.race, None
        if self.heads.get(origin) != after:
            return False
        self.heads[origin] = signed
        return True


def witness(memory: MemoryWitnessed | None = None, *keys: NoteKey) -> Witness:
    """A witness of our log."""
    logs = keys or (signer().note_key,)
    return Witness(witness_signer(), logs, memory or MemoryWitnessed())


def tree_of(store: MemoryStore, size: int) -> Tree:
    """The tree of our log."""
    return Tree(store, size=size, head=head(entries(0, size)).root)


def request(old: int, new: int) -> CosignRequest:
    """An honest request."""
    store, _ = grown(new)
    return CosignRequest(old, tree_of(store, new).consistency(old), signed(entries(0, new)))


def ask(who: Witness, asked: CosignRequest) -> Answer:
    """Ask a witness, now."""
    return who.add_checkpoint(asked.encode(), seconds=NOW)


def test_heads_that_follow_are_cosigned() -> None:
    """From nothing, further, and once more the same: each is answered by a cosignature."""
    who = witness()
    for old, new in ((0, 5), (5, 300), (300, 300)):
        asked = request(old, new)
        answer = ask(who, asked)
        assert 200 == answer.status
        lines = decode_signatures(answer.body.decode())
        assert (NOW,) == asked.signed.with_signatures(*lines).note.by(who.signer.note_key)


def test_an_empty_log_is_cosigned() -> None:
    """The first head of a log is one like any other."""
    assert 200 == ask(witness(), request(0, 0)).status


@pytest.mark.parametrize("told", [0, 4, 6])
def test_another_old_size_is_a_conflict(told: int) -> None:
    """Told another size than it knows, a witness answers 409 and the size, as tlog-witness says."""
    who = witness()
    ask(who, request(0, 5))
    answer = ask(who, request(told, 9))
    assert (409, b"5\n", SIZE_MEDIA_TYPE) == (answer.status, answer.body, answer.media_type)
    assert None is answer.conflict


def test_two_heads_of_one_size_are_evidence() -> None:
    """409 again, and both heads are kept: the log has signed two histories."""
    who = witness()
    honest = request(0, 5)
    ask(who, honest)
    fork = CosignRequest(5, (), signed(entries(0, 5, salt="other")))
    answer = ask(who, fork)
    assert (409, b"5\n") == (answer.status, answer.body)
    assert answer.conflict is not None
    assert (honest.signed, fork.signed) == (answer.conflict.remembered, answer.conflict.offered)


def test_wrong_proofs_are_unprocessable() -> None:
    """422: a fork, a proof that is cut, one that is too long, one where none is wanted."""
    good = request(5, 300)
    forked = signed(entries(0, 300, salt="other"))
    wrong = [
        CosignRequest(5, good.proof, forked),
        CosignRequest(5, good.proof[:-1], good.signed),
        CosignRequest(5, (*good.proof, bytes(32)), good.signed),
    ]
    for asked in wrong:
        who = witness()
        ask(who, request(0, 5))
        assert 422 == ask(who, asked).status
    assert 422 == ask(witness(), CosignRequest(0, good.proof, good.signed)).status


def test_other_statuses_are_those_of_the_specification() -> None:
    """400 for no request and a shrinking tree, 403 for a strange key, 404 for a strange log."""
    good = request(0, 5)
    stranger = sign_checkpoint(good.signed.checkpoint, signer("other.example.com"))
    unknown = witness(None, signer("other.example.com").note_key)
    assert 400 == witness().add_checkpoint(b"junk", seconds=NOW).status
    assert 400 == ask(witness(), CosignRequest(6, (), good.signed)).status
    assert 403 == ask(witness(), CosignRequest(0, (), stranger)).status
    assert 404 == ask(unknown, good).status


def test_a_false_signature_beside_nothing_is_forbidden() -> None:
    """A line in the log's name that does not verify is 403, not a crash."""
    good = request(0, 5)
    key = signer().note_key
    note = Note(good.signed.note.text, (NoteSignature(key.name, key.id, b"0" * 70),))
    assert (
        403
        == ask(
            witness(), CosignRequest(0, (), type(good.signed)(good.signed.checkpoint, note))
        ).status
    )


def test_requests_at_once_do_not_roll_back() -> None:
    """The race of tlog-witness: the slower request for fewer entries is not cosigned."""
    memory = MemoryWitnessed()
    who = witness(memory)
    memory.race = request(0, 9).signed
    answer = ask(who, request(0, 5))
    assert (409, b"9\n") == (answer.status, answer.body)
    latest = memory.latest(signer().name)
    assert latest is not None
    assert 9 == latest.checkpoint.size


def posting(who: Witness, sent: list[str] | None = None) -> Post:
    """Post to a witness in this process."""

    def post(address: str, body: bytes) -> Reply:
        if sent is not None:
            sent.append(address)
        answer = who.add_checkpoint(body, seconds=NOW)
        return Reply(answer.status, answer.media_type, answer.body)

    return post


def test_asking_finds_out_how_far_a_witness_is() -> None:
    """Nobody has told the log; the first answer does, and the second request is right."""
    store, _ = grown(300)
    who = witness()
    ask(who, request(0, 5))
    known = KnownKey(who.signer.note_key, "https://w1.example.com/")
    sent: list[str] = []
    made = signed(entries(0, 300))
    lines = ask_witness(known, made, tree_of(store, 300), posting(who, sent))
    assert (NOW,) == made.with_signatures(*lines).note.by(who.signer.note_key)
    assert ["https://w1.example.com/add-checkpoint"] * 2 == sent


def test_a_witness_that_is_ahead_is_named() -> None:
    """A witness that has cosigned more than this log has is a sign that the log was rewound."""
    store, _ = grown(5)
    who = witness()
    ask(who, request(0, 300))
    known = KnownKey(who.signer.note_key, "https://w1.example.com")
    with pytest.raises(Refused) as refused:
        ask_witness(known, signed(entries(0, 5)), tree_of(store, 5), posting(who))
    assert "witness.ahead" == refused.value.check


def test_answers_that_are_none() -> None:
    """A refusal, junk, a stranger's signature, an endless conflict: one witness's failure."""
    store, _ = grown(5)
    made, tree = signed(entries(0, 5)), tree_of(store, 5)
    other = Witness(witness_signer("other"), (signer().note_key,), MemoryWitnessed())
    known = KnownKey(witness_signer().note_key, "https://w1.example.com")

    def gone(*_: object) -> Reply:
        raise Unavailable("does not answer")

    def always(status: int, body: bytes, media_type: str = "text/plain") -> object:
        return lambda *_: Reply(status, media_type, body)

    for post in (
        gone,
        always(500, b""),
        always(200, b"junk"),
        always(200, "— w1.example.com AAAA\n".encode()),
        always(409, b"x\n", SIZE_MEDIA_TYPE),
        always(409, b"3\n", SIZE_MEDIA_TYPE),
        posting(other),
    ):
        asked = ask_witnesses([("w1", known)], made, tree, post)  # type: ignore[arg-type]
        assert ((), ["w1"]) == (asked.signatures, [name for name, _ in asked.failures])


def test_a_witness_without_an_address_is_not_asked() -> None:
    """A policy for offline use names keys alone."""
    store, _ = grown(5)
    known = KnownKey(witness_signer().note_key)
    asked = ask_witnesses(
        [("w1", known)], signed(entries(0, 5)), tree_of(store, 5), posting(witness())
    )
    assert ((), ()) == (asked.signatures, asked.failures)
