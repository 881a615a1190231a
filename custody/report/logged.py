"""What a page shows of the log: what is where in it, who stands behind its head, and since when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from custody.encoding import Bytes32, Digest, KeyId, key_id
from custody.errors import CustodyError
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.logpolicy import LogPolicy
from custody.ops.audit import AuditedRelease
from custody.report.words import clipped
from custody.rules.logged import JudgedLogged, judge_head
from custody.rules.verdicts import Verdict

EntryKind = Literal["ask", "yes", "no", "void", "log"]
#: More entries do not fit a picture; the table has all.
MAX_DRAWN_ENTRIES = 14
_BELOW_CHARS = 12
_EDGE, _COLUMN, _Y, _HEIGHT = 44, 84, 20, 72


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRow:
    """One entry of the log; ``there_by`` is when somebody vouches that it was there."""

    index: int
    kind: EntryKind
    what: str
    who: str
    there_by: datetime | None
    vouched: str
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRow:
    """A witness that cosigned, and the time it states; None where no calendar holds it."""

    name: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StripMark:
    """One sign in the picture of a log, and what stands under it; CSS pixels."""

    x: int
    y: int
    kind: EntryKind
    label: str
    below: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The picture: from the head that the request names to the one the log signed for."""

    marks: tuple[StripMark, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WordView:
    """What the log said of a release.  Every check of it held."""

    digest: Digest
    signed_at: datetime
    after: datetime | None
    by: datetime | None
    since: int
    size: int
    root: Bytes32
    witnesses: tuple[WitnessRow, ...]
    entries: tuple[EntryRow, ...]
    strip: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """The log that a policy demands; ``others`` says of other statements whether they are in it."""

    name: str
    key: KeyId
    quorum: int
    word: WordView | None
    others: tuple[Verdict, ...]


def view_log(release: AuditedRelease) -> LogView | None:
    """Work out what is shown of the log; None where the policy in force asks for none."""
    policy = release.exhibits.policy
    try:
        known = None if policy is None else policy.log_policy()
    except CustodyError:
        return None
    if known is None:
        return None
    return LogView(
        name=known.logs[0].key.name,
        key=key_id(known.logs[0].key.public),
        quorum=len(known.witnesses),
        word=_word(release, release.logged[0], known) if release.logged else None,
        others=tuple(v for v in release.verdicts if v.check == "log.entry"),
    )


def _word(release: AuditedRelease, word: JudgedLogged, policy: LogPolicy) -> WordView:
    signed = decode_checkpoint(word.said.checkpoint)
    named = release.exhibits.request.predicate.checkpoint
    since = 0 if named is None else decode_checkpoint(named).checkpoint.size
    entries = tuple(_entries(release, word))
    head = signed.checkpoint
    return WordView(
        digest=word.digest,
        signed_at=word.said.logged_at,
        after=word.after,
        by=word.by,
        since=since,
        size=head.size,
        root=head.root,
        witnesses=tuple(
            WitnessRow(name=name, at=_moment(seconds))
            for name, seconds in judge_head(policy, signed).witnesses
        ),
        entries=entries,
        strip=_strip(entries, since=since, size=head.size),
    )


def _entries(release: AuditedRelease, word: JudgedLogged) -> Iterator[EntryRow]:
    authors = _authors(release)
    for entry in word.said.entries:
        kind, who = authors.get(entry.statement, ("void", "nobody whose statement is here"))
        stamp = release.times.stamps.get(entry.statement)
        yield EntryRow(
            index=entry.index,
            kind=kind,
            what=entry.kind,
            who=who,
            there_by=stamp.at if stamp else None,
            vouched=stamp.by if stamp else "",
            digest=entry.statement,
        )


def _authors(release: AuditedRelease) -> dict[Digest, tuple[EntryKind, str]]:
    """Say of the request and its answers whose they are, and what they count for."""
    found: dict[Digest, tuple[EntryKind, str]] = {release.request: ("ask", release.host)}
    tally = release.tally
    if tally is None:
        return found
    for consent in sorted(tally.consents, key=lambda consent: (consent.authentic, consent.counts)):
        who = consent.officer if consent.authentic else "nobody known"
        found[consent.statement.digest] = ("yes" if consent.counts else "void", who)
    # A copy that counts for nothing must not hide the one that does, nor put a name to it.
    for approval in sorted(tally.passed_over, key=lambda approval: approval.authentic):
        who = approval.officer if approval.authentic else "nobody known"
        found[approval.statement.digest] = ("void", who)
    for approval in tally.counted:
        found[approval.statement.digest] = ("yes", approval.officer)
    for denial in sorted(tally.denials, key=lambda denial: (denial.authentic, denial.counts)):
        kind: EntryKind = "no" if denial.counts else "void"
        who = denial.officer if denial.authentic else "nobody known"
        found[denial.statement.digest] = (kind, who)
    return found


def _strip(entries: Sequence[EntryRow], *, since: int, size: int) -> Strip:
    """Draw entries between two heads; space between them means nothing, only order does."""
    told: list[tuple[EntryKind, int, str, str]] = [
        ("log", since, "size, asked", f"the head that the request names: {since} entries"),
        *(
            (row.kind, row.index, row.who, f"entry {row.index}: {row.what} by {row.who}")
            for row in entries[:MAX_DRAWN_ENTRIES]
        ),
        ("log", size, "size, signed", f"the head that the log signed for: {size} entries"),
    ]
    marks = tuple(
        StripMark(
            x=_EDGE + _COLUMN * n,
            y=_Y,
            kind=kind,
            label=f"{number:,}",
            below=clipped(below, _BELOW_CHARS),
            words=words,
        )
        for n, (kind, number, below, words) in enumerate(told)
    )
    return Strip(marks=marks, width=2 * _EDGE + _COLUMN * (len(marks) - 1), height=_HEIGHT)


def _moment(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
