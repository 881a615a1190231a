"""What happened to an environment beside its releases, told from statements alone.

Rules and who signed them, people and tokens that came and went, hosts, bundles, recovery.  Every
statement is judged under the chain of policies from a pin; what does not hold is told, with why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from custody.encoding import Digest
from custody.errors import CustodyError
from custody.formats.case import Documents
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.envelope import Statement
from custody.formats.logged import Logged, LoggedStatement
from custody.formats.logpolicy import LogPolicy
from custody.formats.policy import Policy
from custody.ops.audit_ceremony import JudgedCeremony
from custody.ops.deeds import MATTERS, Deed, Place
from custody.ops.teller import Teller
from custody.rules.certificates import read_revocation_lists
from custody.rules.history import is_by, logs_of
from custody.rules.times import trusted_times
from custody.rules.trust import judge_chain

_USES = {"ca": "authority's key", "log": "log's key", "kek": "key-encryption key"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """From when to when an authority's lists that are here covered no moment."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Chronicle:
    """Everything in order; which logs its policies name; where revocation lists leave holes.

    ``places`` says of every statement that is proven to be in one of the logs in which, and where.
    """

    deeds: tuple[Deed, ...] = ()
    policies: tuple[Statement[Policy], ...] = ()
    logs: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    places: Mapping[Digest, Place] = field(default_factory=dict)


def chronicle_of(
    documents: Documents,
    *,
    pin: Digest,
    now: datetime | None,
    tsa_roots: Sequence[bytes] = (),
    ceremonies: Sequence[JudgedCeremony] = (),
) -> Chronicle:
    """Tell what the documents and ``ceremonies`` show up to ``now``, or all of it.

    Where no policy follows from ``pin``, that is nothing.
    """
    start = next((p.predicate.issued_at for p in documents.policies if p.digest == pin), None)
    if start is None:
        return Chronicle()
    # No step of a chain depends on the moment; only whether its end is in force does.
    chain = judge_chain(documents.policies, pin=pin, floor=0, now=now or start).statements
    logs = logs_of(documents, pin=pin)
    teller = Teller(documents, chain)
    places = _places(documents, logs)
    newest = logs[-1] if logs else None
    stamps = trusted_times(documents, logs=newest, tsa_roots=tsa_roots).stamps
    deeds = []
    for deed in _once(teller.deeds()):
        found = deed.statement or ""
        stamp, place = stamps.get(found), places.get(found)
        deeds.append(
            replace(
                deed,
                there_by=stamp.at if stamp else None,
                vouched=stamp.by if stamp else "",
                place=place,
            )
        )
    deeds += [_held(judged, chain) for judged in ceremonies]
    deeds.sort(key=lambda d: (d.at, MATTERS.index(d.matter), d.words, d.statement or ""))
    return Chronicle(
        deeds=tuple(deed for deed in deeds if now is None or deed.at <= now),
        policies=tuple(chain),
        logs=tuple(dict.fromkeys(policy.logs[0].key.name for policy in logs)),
        gaps=tuple(_gaps(documents, chain[-1].predicate)),
        places=places,
    )


def is_tied(judged: JudgedCeremony, chain: Sequence[Statement[Policy]]) -> bool:
    """Tell whether a ceremony is shown to have made a policy that everything is judged by.

    That is one of a chain, or the first of its environment, however far back that is.
    """
    first = [p.predicate.genesis for p in chain[:1] if p.predicate.genesis]
    return judged.progress.policy in {*first, *(policy.digest for policy in chain)}


def faults_of(judged: JudgedCeremony, chain: Sequence[Statement[Policy]]) -> tuple[str, ...]:
    """Say what does not hold of a ceremony."""
    found = [v.reason for v in judged.verdicts if v.outcome == "fail"]
    if judged.progress.policy is not None and not is_tied(judged, chain):
        found.append("the policy that came of it is none of those that follow from the pin")
    return tuple(found)


def _held(judged: JudgedCeremony, chain: Sequence[Statement[Policy]]) -> Deed:
    """Tell a ceremony as one deed, by the moment it began.

    One that no policy ties to the pin is not believed: its files agree, and may all be somebody's.
    """
    faults = faults_of(judged, chain)
    if not faults and not is_tied(judged, chain):
        faults = ("not tied: no policy of the chain from the pin came of it",)
    keys = [key for key in judged.progress.keys if key.use in _USES]
    steps = len(judged.script.steps)
    return Deed(
        done="ceremony.held",
        at=judged.lines[0].record.at,
        # Of a transcript that does not hold nobody can be said to have signed it.
        who=() if faults else judged.progress.signers,
        words=f"ceremony of {judged.script.environment}: {judged.script.title}",
        details=(
            f"{steps} step{'' if steps == 1 else 's'} by a script, on record",
            *(f"{_USES[key.use]} “{key.label}”, in the token of {key.person}" for key in keys),
        ),
        fault=faults[0] if faults else "",
    )


def _once(deeds: Iterable[Deed]) -> Sequence[Deed]:
    """Leave copies of a statement out that nobody known signed, where one is good."""
    told = list(deeds)
    good = {deed.statement for deed in told if deed.statement and not deed.fault}
    kept = (deed for deed in told if not deed.fault or deed.statement not in good)
    return list({(deed.statement, deed.words, deed.at): deed for deed in kept}.values())


def _places(documents: Documents, logs: Sequence[LogPolicy]) -> Mapping[Digest, Place]:
    """Say which statements are proven to be in a log that a policy names, and where."""
    found: dict[Digest, Place] = {}
    for given in documents.proofs:
        try:
            given.proof.check_entry(given.entry.encode())
        except CustodyError:
            continue
        if any(is_by(policy, given.proof.signed) for policy in logs):
            place = Place(log=given.proof.signed.checkpoint.origin, index=given.proof.index)
            found.setdefault(given.entry.digest, place)
    for word in documents.logged:
        for entry, origin in _said(word, logs):
            found.setdefault(entry.statement, Place(log=origin, index=entry.index))
    return found


def _said(
    word: Statement[Logged], logs: Sequence[LogPolicy]
) -> Iterator[tuple[LoggedStatement, str]]:
    """Give what a log's word on a request proves to be in it, and the log's name."""
    try:
        signed = decode_checkpoint(word.predicate.checkpoint)
    except CustodyError:
        return
    for entry in word.predicate.entries:
        with suppress(CustodyError):
            if entry.is_in(signed) and any(is_by(policy, signed) for policy in logs):
                yield entry, signed.checkpoint.origin


def _gaps(documents: Documents, policy: Policy) -> Iterator[Gap]:
    """Find the moments between the first and the last list that no list covers."""
    for authority in policy.authorities:
        reached: datetime | None = None
        for known in read_revocation_lists(documents.crls, authorities=[authority]):
            if reached is not None and known.this_update > reached:
                yield Gap(since=reached, until=known.this_update)
            reached = known.next_update if reached is None else max(reached, known.next_update)
