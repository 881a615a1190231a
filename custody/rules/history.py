"""Are all heads of a log that are at hand of one history?  Format: logged.md, "One history".

Whoever holds a log's key can sign as many histories as he likes and show each of us another.  Two
heads are *shown* to be of one by a consistency proof, or vouched for by a quorum of witnesses that
has cosigned both.  They are *proven* not to be where two verified proofs say different things of
rows that both trees have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

from custody.crypto.merkle import (
    Span,
    consistency_subtrees,
    inclusion_subtrees,
    leaf_hash,
    root,
)
from custody.crypto.signature import verify
from custody.encoding import Digest, key_id
from custody.errors import Malformed, Refused
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint, decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.logged import Logged
from custody.formats.logpolicy import LogPolicy
from custody.formats.witnessing import CosignRequest
from custody.rules.heads import links_of
from custody.rules.trust import judge_chain
from custody.rules.verdicts import Ledger

#: What the rows of a span hash to, as a proof under some head shows.
Shown = tuple[tuple[Span, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The heads of one log that are at hand, each once, the smallest first.

    ``conflict`` are two that are proven to be of different histories.  A strand is a head that is
    not shown to go on, after all that are shown to lead to it; one strand, where all are of one
    history.  ``named`` are the sizes of those that a request or the log's own word rests on.
    """

    origin: str
    heads: tuple[SignedCheckpoint, ...]
    conflict: tuple[SignedCheckpoint, SignedCheckpoint] | None
    strands: tuple[tuple[SignedCheckpoint, ...], ...]
    named: frozenset[int]

    @property
    def loose(self) -> tuple[SignedCheckpoint, ...]:
        """The ends of the strands with a named head, where no strand has them all."""
        bound = [strand for strand in self.strands if self._named_in(strand)]
        if any(self._named_in(strand) == self.named for strand in bound):
            return ()
        return tuple(strand[-1] for strand in bound)

    @property
    def bare(self) -> tuple[SignedCheckpoint, ...]:
        """The heads outside of the strand that has the most of the named ones."""
        best = max(self.strands, key=lambda strand: (len(self._named_in(strand)), len(strand)))
        return tuple(head for head in self.heads if head not in best)

    def _named_in(self, strand: Sequence[SignedCheckpoint]) -> frozenset[int]:
        return self.named & {_size(head) for head in strand}


def logs_of(documents: Documents, *, pin: Digest) -> tuple[LogPolicy, ...]:
    """Return what the policies that follow from the pin say of logs, each once, the newest last."""
    # No step of a chain depends on the moment; only whether its end is in force does.
    start = next((p.predicate.issued_at for p in documents.policies if p.digest == pin), None)
    if start is None:
        return ()
    chain = judge_chain(documents.policies, pin=pin, floor=0, now=start).statements
    found: dict[tuple[str, ...], LogPolicy] = {}
    for statement in chain:
        with suppress(Malformed):
            known = statement.predicate.log_policy()
            if known is not None:
                lines = statement.predicate.logged or ()
                found.pop(lines, None)
                found[lines] = known
    return tuple(found.values())


def of_log(logs: Sequence[LogPolicy], origin: str) -> tuple[LogPolicy, ...]:
    """Choose what is said of one log, by its name."""
    return tuple(policy for policy in logs if policy.logs[0].key.name == origin)


def histories_of(
    documents: Documents,
    logs: Sequence[LogPolicy],
    *,
    remembered: Iterable[SignedCheckpoint] = (),
) -> tuple[History, ...]:
    """Put the heads of each log together: those among ``documents``, and those remembered.

    A log is its name: a policy that gives it another key gives it no second history.
    """
    known = tuple(remembered)
    origins = dict.fromkeys(policy.logs[0].key.name for policy in logs)
    weaves = (_Weave(origin, of_log(logs, origin)) for origin in origins)
    found = (weave.take(documents, known) for weave in weaves)
    return tuple(history for history in found if history.heads)


def heads_in(documents: Documents) -> Iterator[SignedCheckpoint]:
    """Give every head among ``documents``, whoever signed it."""
    for request in documents.asked:
        yield from _decoded(request.predicate.checkpoint)
    for word in documents.logged:
        yield from _decoded(word.predicate.checkpoint)
    yield from (given.proof.signed for given in documents.proofs)
    yield from (link.signed for link in documents.consistencies)


def judge_history(ledger: Ledger, history: History) -> None:
    """Write down whether all heads of a log are of one history (``log.history``)."""
    if history.conflict is not None:
        both = "; ".join(told(head) for head in history.conflict)
        ledger.add(
            "log.history",
            False,
            f"{history.origin} shows two histories, and has signed both: {both}",
        )
        return
    count, newest = len(history.heads), _size(history.heads[-1])
    apart = ", ".join(str(_size(head)) for head in history.loose)
    ledger.add(
        "log.history",
        not apart,
        f"{history.origin}: one history ({count} heads, the newest of {newest} entries)",
        otherwise=f"{history.origin}: nothing here shows its heads of {apart} entries to be of one "
        "history: ask the log, with --log, or bring what custody log consistency writes",
    )
    if history.bare and not apart:
        sizes = ", ".join(str(_size(head)) for head in history.bare)
        ledger.skip(
            "log.history",
            f"{history.origin}: heads of {sizes} entries are not shown to be of one history with "
            "those that requests rest on",
        )


def told(signed: SignedCheckpoint) -> str:
    """Say which head one is."""
    return f"{_size(signed)} entries with root {signed.checkpoint.root.hex()}"


class _Weave:
    """The heads of one log, half put together."""

    def __init__(self, origin: str, policies: Sequence[LogPolicy]) -> None:
        self._origin = origin
        self._policies = policies
        self._heads: dict[int, SignedCheckpoint] = {}
        self._cosigned: dict[int, set[str]] = {}
        self._ours: dict[bytes, bool] = {}
        self._shown: dict[Span, tuple[bytes, SignedCheckpoint]] = {}
        self._before: dict[int, set[int]] = {}
        self._conflict: tuple[SignedCheckpoint, SignedCheckpoint] | None = None

    def take(self, documents: Documents, remembered: Sequence[SignedCheckpoint]) -> History:
        # What is remembered was judged when it was seen, by a key that may be another now.
        self._ours |= {
            signed.encode(): True
            for signed in remembered
            if signed.checkpoint.origin == self._origin
        }
        for signed in (*remembered, *heads_in(documents)):
            if self._is_ours(signed):
                self._add(signed)
        links = [link for link in links_of(documents) if self._is_ours(link.signed)]
        self._include(documents)
        for link in sorted(links, key=lambda link: (_size(link.signed), link.old_size)):
            self._tie(link)
        self._tie_by_witnesses()
        return History(
            origin=self._origin,
            heads=tuple(self._heads[size] for size in sorted(self._heads)),
            conflict=self._conflict,
            strands=tuple(self._strands()),
            named=frozenset(self._named(documents)),
        )

    def _is_ours(self, signed: SignedCheckpoint) -> bool:
        if signed.checkpoint.origin != self._origin:
            return False
        note = signed.encode()
        if note not in self._ours:
            self._ours[note] = any(is_by(policy, signed) for policy in self._policies)
        return self._ours[note]

    def _add(self, signed: SignedCheckpoint) -> None:
        size = _size(signed)
        other = self._heads.setdefault(size, signed)
        if other.checkpoint.root != signed.checkpoint.root:
            self._clash(other, signed)
            return
        self._before.setdefault(size, set())
        cosigned = self._cosigned.setdefault(size, set())
        for name, witness in self._policies[-1].witnesses.items():
            with suppress(Refused):
                if signed.note.by(witness.key):
                    cosigned.add(name)
        if size == 0 and signed.checkpoint.root != root(()):
            # No tree at all begins with it.
            self._clash(signed, signed)
        elif size and size & (size - 1) == 0:
            self._show(((Span(0, size), signed.checkpoint.root),), signed)

    def _include(self, documents: Documents) -> None:
        """Take what inclusion proofs show: that two trees differ in a row both have, for one."""
        for given in documents.proofs:
            place = (given.proof.index, given.proof.hashes)
            self._show_row(given.entry.encode(), *place, given.proof.signed)
        for word in documents.logged:
            for signed in _decoded(word.predicate.checkpoint):
                for entry in word.predicate.entries:
                    self._show_row(entry.entry(), entry.index, entry.proof, signed)

    def _show_row(
        self, entry: bytes, index: int, proof: Sequence[bytes], signed: SignedCheckpoint
    ) -> None:
        head = signed.checkpoint
        if self._is_ours(signed):
            with suppress(Refused):
                leaf = leaf_hash(entry)
                shown = inclusion_subtrees(leaf, index, size=head.size, proof=proof, head=head.root)
                self._show(shown, signed)

    def _tie(self, link: CosignRequest) -> None:
        head, old = link.signed.checkpoint, self._heads.get(link.old_size)
        known = None if old is None else old.checkpoint.root
        try:
            begun, shown = consistency_subtrees(
                link.old_size, head.size, proof=link.proof, head=head.root, old_head=known
            )
        except Refused:
            return
        self._show(shown, link.signed)
        if old is not None and begun != known:
            self._clash(old, link.signed)
        elif old is not None and self._heads[head.size].checkpoint.root == head.root:
            self._lead(link.old_size, head.size)

    def _tie_by_witnesses(self) -> None:
        """Believe a quorum that has cosigned two heads: keeping to one history is its office."""
        # By the newest policy alone: a witness that was dropped may have been dropped for lying.
        policy = self._policies[-1]
        if policy.satisfied_by(()):
            return
        by: dict[frozenset[str], list[int]] = {}
        for size in sorted(self._heads):
            by.setdefault(frozenset(self._cosigned[size]), []).append(size)
        for names, others in combinations_with_replacement(by, 2):
            if policy.satisfied_by(names & others):
                for old, new in pairwise(sorted({*by[names], *by[others]})):
                    self._lead(old, new)

    def _strands(self) -> Iterator[tuple[SignedCheckpoint, ...]]:
        """Give each head that leads to no other, after all that lead to it.

        That two go on from a third ties them to each other as little as it ties a fork.
        """
        if 0 in self._heads and self._heads[0].checkpoint.root == root(()):
            for size in self._heads:
                self._lead(0, size)
        beginnings = set().union(*self._before.values())
        for end in sorted(self._heads.keys() - beginnings):
            found, todo = {end}, [end]
            while todo:
                fresh = self._before[todo.pop()] - found
                found |= fresh
                todo += fresh
            yield tuple(self._heads[size] for size in sorted(found))

    def _lead(self, old: int, new: int) -> None:
        if old < new:
            self._before[new].add(old)

    def _show(self, shown: Shown, signed: SignedCheckpoint) -> None:
        for span, known in shown:
            other, by = self._shown.setdefault(span, (known, signed))
            if other != known:
                self._clash(by, signed)

    def _clash(self, one: SignedCheckpoint, other: SignedCheckpoint) -> None:
        if self._conflict is None:
            first, second = sorted((one, other), key=_size)
            self._conflict = (first, second)

    def _named(self, documents: Documents) -> Iterator[int]:
        for request in documents.asked:
            for signed in _decoded(request.predicate.checkpoint):
                if self._is_ours(signed):
                    yield _size(signed)
        for word in documents.logged:
            for signed in _decoded(word.predicate.checkpoint):
                if self._is_ours(signed) and self._said(word):
                    yield _size(signed)

    def _said(self, word: Statement[Logged]) -> bool:
        """Whether a word on a request is the log's own: anybody could put a head into another."""
        signature = word.envelope.signatures[0]
        for key in (policy.logs[0].key for policy in self._policies):
            if key_id(key.public) == signature.keyid:
                with suppress(Refused):
                    verify(key.public, word.envelope.signed_bytes(), signature.sig)
                    return True
        return False


def is_by(policy: LogPolicy, signed: SignedCheckpoint) -> bool:
    """Whether a log of a policy has signed a head."""
    try:
        policy.log_of(signed)
    except Refused:
        return False
    return True


def _decoded(note: bytes | None) -> Iterator[SignedCheckpoint]:
    if note is not None:
        with suppress(Malformed):
            yield decode_checkpoint(note)


def _size(signed: SignedCheckpoint) -> int:
    return signed.checkpoint.size
