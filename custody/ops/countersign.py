"""A log signs the terms of a request, once it holds the request and what its officers said.

That signature is a leaf of H's policy: without it, the host's TPM opens nothing.  Protocol
section 6, "Log"; format: logged.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from custody.crypto.merkle import leaf_hash
from custody.crypto.notekeys import LogSigner
from custody.crypto.signature import sign
from custody.encoding import Digest
from custody.errors import Incomplete, Refused
from custody.formats.asking import Asking
from custody.formats.case import Documents, find
from custody.formats.checkpoint import SignedCheckpoint, check_signed_by, decode_checkpoint
from custody.formats.envelope import Predicate, Statement
from custody.formats.logentry import LogEntry, entry_of
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.logpolicy import LogPolicy
from custody.formats.logstate import MAX_BATCH
from custody.formats.manifest import Manifest
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.tiles import CHECKPOINT_PATH
from custody.log.reader import Conflict
from custody.log.storage import Store
from custody.log.tree import Tree
from custody.log.writer import Writer
from custody.ops.heads import refusal_with_evidence
from custody.ops.home import Home
from custody.ops.keys import Signer
from custody.rules.approvals import tally
from custody.rules.logged import JudgedLogged, check_entries
from custody.rules.quorum import policy_signed_bytes
from custody.rules.release import Answers, Judgement, check_agreed, judge
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, require

#: Signs nothing; stands where the signature will be while the rest is judged.
_UNSIGNED = bytes(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Countersigned:
    """A log's word on one request, and its file."""

    said: Logged
    data: bytes


def countersign(
    request: Statement[Asking],
    *,
    home: Home,
    situation: Situation,
    store: Store,
    writer: Writer,
    signer: LogSigner,
) -> Countersigned:
    """Log a request and its answers, and only then sign its terms.

    Manifest, consents, approvals and denials are taken from ``situation.documents``, and every
    rule is applied to them that a host applies.  What the documents prove to be in the log already
    is not appended again.  Killed anywhere, it can be run again.  Raises `Refused` with the first
    check that fails, `Incomplete` naming who has not approved.
    """
    policy = _log_policy(situation, signer)
    manifest = _manifest_of(request, situation.documents)
    answers = Answers(
        approvals=[
            a for a in situation.documents.approvals if a.predicate.request == request.digest
        ],
        denials=situation.documents.denials,
    )
    judgement = judge(manifest, request, answers, situation)
    check_agreed(judgement)
    places = _append(judgement, situation.documents, writer, store, signer)
    # Read again from where it lies: what was returned may be what we hoped to write.
    signed = _published(store, signer)
    tree = Tree(store, size=signed.checkpoint.size, head=signed.checkpoint.root)
    if situation.seen is not None:
        _check_continued(situation.seen, signed, tree, home)
    # That the checkpoint of the terms is by this log's key has been judged with the request.
    named = decode_checkpoint(request.predicate.checkpoint or b"")
    _check_continued(named, signed, tree, home)
    draft = Logged(
        request=request.digest,
        manifest=manifest.digest,
        policy=situation.trusted.digest,
        terms=request.predicate.terms.digest().hex(),
        entries=_entries(places, tree),
        checkpoint=signed.encode(),
        consistency=tree.consistency(named.checkpoint.size),
        terms_signature=_UNSIGNED,
        logged_at=situation.now,
    )
    _check(draft, judgement, answers, replace(situation, seen=signed), policy)
    said = msgspec.structs.replace(
        draft,
        terms_signature=sign(signer.key, policy_signed_bytes(request.predicate.terms.digest())),
    )
    return Countersigned(said=said, data=Signer(signer.key).statement(said))


def _log_policy(situation: Situation, signer: LogSigner) -> LogPolicy:
    policy = situation.trusted.policy.log_policy()
    if policy is None:
        raise Refused("the policy in force demands no log", check="countersign.policy")
    if policy.logs[0].key != signer.note_key:
        raise Refused(
            "the policy in force names another log, or another key of this one",
            check="countersign.key",
        )
    return policy


def _manifest_of(request: Statement[Asking], documents: Documents) -> Statement[Manifest]:
    manifest = find(documents.manifests, request.predicate.terms.manifest)
    if manifest is None:
        raise Incomplete(
            "the manifest that is asked for is not here",
            missing=(f"manifest {request.predicate.terms.manifest}",),
        )
    return manifest


def _statements(
    judgement: Judgement,
) -> Iterator[Statement[Predicate]]:
    """Yield what is to be logged: the request first, then every good answer to its terms."""
    yield judgement.request
    consents = [judged.statement for judged in judgement.tally.consents if judged.counts]
    yield from sorted(consents, key=lambda c: (c.predicate.consented_at, c.digest))
    counted = (*judgement.tally.counted, *judgement.tally.passed_over)
    approvals = [judged.statement for judged in counted if judged.counts]
    yield from sorted(approvals, key=lambda a: (a.predicate.approved_at, a.digest))
    denials = [judged.statement for judged in judgement.tally.denials if judged.counts]
    yield from sorted(denials, key=lambda d: (d.predicate.denied_at, d.digest))


def _append(
    judgement: Judgement,
    documents: Documents,
    writer: Writer,
    store: Store,
    signer: LogSigner,
) -> dict[int, LogEntry]:
    """Put into the log what is not in it; return every entry by its index."""
    # One copy of each: copies differ in their signatures only, which entries do not hold.
    entries = list(dict.fromkeys(entry_of(said.envelope) for said in _statements(judgement)))
    published = writer.latest()
    tree = Tree(store, size=published.checkpoint.size, head=published.checkpoint.root)
    known = {**_since(judgement.request, entries, tree), **_known(documents, tree, signer)}
    request, *answers = entries
    first = known.get(request)
    # An answer that is logged before its request, as anybody could have had it, is logged again.
    later = {
        known[entry]: entry
        for entry in answers
        if first is not None and known.get(entry, -1) > first
    }
    new = [*([] if first is not None else [request])]
    new += [entry for entry in answers if entry not in later.values()]
    done = writer.append([entry.encode() for entry in new])
    fresh = dict(enumerate(new, done.start))
    return {**({} if first is None else {first: request}), **later, **fresh}


def _since(
    request: Statement[Asking], entries: Sequence[LogEntry], tree: Tree
) -> dict[LogEntry, int]:
    """Return which entries came into the log after the request's checkpoint, each at first.

    What is longer ago than a batch is not looked for: logged twice, it does no harm.
    """
    start = decode_checkpoint(request.predicate.checkpoint or b"").checkpoint.size
    wanted = {entry.encode(): entry for entry in entries}
    found: dict[LogEntry, int] = {}
    start = min(max(start, tree.size - MAX_BATCH), tree.size)
    for index, data in tree.entries(start, tree.size):
        if data in wanted:
            found.setdefault(wanted[data], index)
    return found


def _known(documents: Documents, tree: Tree, signer: LogSigner) -> dict[LogEntry, int]:
    """Return the entries that proofs among the documents show to be in this very tree."""
    found: dict[LogEntry, int] = {}
    for given in documents.proofs:
        index = given.proof.index
        if given.proof.signed.checkpoint.origin != signer.name or index >= tree.size:
            continue
        if tree.leaf(index) == leaf_hash(given.entry.encode()):
            found[given.entry] = min(index, found.get(given.entry, index))
    return found


def _published(store: Store, signer: LogSigner) -> SignedCheckpoint:
    data = store.read(CHECKPOINT_PATH, max_bytes=MAX_NOTE_BYTES)
    if data is None:
        raise Refused("the log has no checkpoint any more", check="log.rewound")
    signed = decode_checkpoint(data)
    check_signed_by(signed, signer.note_key)
    return signed


def _entries(places: dict[int, LogEntry], tree: Tree) -> tuple[LoggedStatement, ...]:
    if max(places) >= tree.size:
        raise Refused("the log lacks what was just appended", check="log.rewound")
    return tuple(
        LoggedStatement(
            statement=places[index].digest,
            kind=places[index].kind,
            index=index,
            proof=tree.inclusion(index),
        )
        for index in sorted(places)
    )


def _check_continued(
    old: SignedCheckpoint, signed: SignedCheckpoint, tree: Tree, home: Home
) -> None:
    """Refuse with the evidence if this log does not go on from a head that its key has signed."""
    size = old.checkpoint.size
    if size > tree.size or tree.head_at(size) != old.checkpoint.root:
        conflict = Conflict("rollback" if size > tree.size else "fork", old, signed)
        raise refusal_with_evidence(home, conflict)


def _check(
    draft: Logged,
    judgement: Judgement,
    answers: Answers,
    situation: Situation,
    policy: LogPolicy,
) -> None:
    """Judge what is about to be signed as every host will."""
    ledger = Ledger(subject="log")
    after, by = check_entries(ledger, draft, judgement.request, situation, policy)
    require(ledger.done())
    word = JudgedLogged(
        said=draft,
        digest=_no_digest(),
        log=policy.logs[0].key.name,
        after=after,
        by=by,
        verdicts=ledger.done(),
    )
    counted = tally(
        answers.approvals,
        answers.denials,
        judgement.request,
        judgement.manifest,
        situation,
        logged=[word],
    )
    check_agreed(replace(judgement, tally=counted))


def _no_digest() -> Digest:
    """Stand for the digest of a statement that is not signed yet."""
    return "0" * 64
