"""An archive for other tools: JSON Lines of what happened, or an in-toto bundle of statements.

Both tell of releases, and of what else the files show of the environment (`ops.chronicle`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import merge

import msgspec

from custody.encoding import Digest, encode
from custody.formats.approval import Approval, Denial
from custody.formats.case import read_statement
from custody.formats.envelope import Predicate, Statement
from custody.formats.keyrequest import Consent
from custody.ops.account import UNKNOWN
from custody.ops.archive import Act, Archive, Held, acts_of
from custody.ops.audit import AuditedRelease
from custody.ops.chronicle import Chronicle
from custody.ops.deeds import Deed
from custody.rules.gathering import gather


class ActLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line: an act, whose, about which release, whether that holds, and where it is shown.

    What is of no release (`Deed.done`) has no host, request, manifest and outcome; it is ``sound``
    where it is believed.  A revocation list and a ceremony are no ``statement``.
    """

    act: str
    at: datetime
    who: str
    words: str
    note: str
    knew: str
    statement: Digest
    there_by: datetime | None
    vouched: str
    host: str
    request: Digest
    manifest: Digest
    outcome: str
    sound: bool
    file: str


def act_lines(archive: Archive, chronicle: Chronicle) -> Iterator[ActLine]:
    """Give every act of an archive, and all else that a chronicle tells, in order, a line each."""
    acts = acts_of(archive)
    told = {(act.entry.act, act.entry.statement) for act in acts}
    # What a release shows is told of that release, once.
    deeds = [deed for deed in chronicle.deeds if (deed.done, deed.statement) not in told]
    files = {digest: held.name for held in archive.held for digest, _ in held.case.documents.names}
    ordered = merge(
        ((deed.at, _deed_line(deed, files.get(deed.statement or "", ""))) for deed in deeds),
        ((act.entry.order or act.entry.at, _act_line(act)) for act in acts),
        key=lambda pair: pair[0],
    )
    yield from (line for _, line in ordered)


def _act_line(act: Act) -> ActLine:
    entry, release = act.entry, act.release
    return ActLine(
        act=entry.act,
        at=entry.at,
        who=entry.who,
        words=entry.words,
        note=entry.note,
        knew=entry.knew,
        statement=entry.statement,
        there_by=entry.there_by,
        vouched=entry.vouched,
        host=release.host,
        request=release.request,
        manifest=release.manifest,
        outcome=release.outcome,
        sound=act.sound,
        file=act.held,
    )


def _deed_line(deed: Deed, file: str) -> ActLine:
    return ActLine(
        act=deed.done,
        at=deed.at,
        who=", ".join(deed.who) or UNKNOWN,
        words=deed.words,
        note="; ".join(filter(None, (deed.fault, *deed.details))),
        knew="",
        statement=deed.statement or "",
        there_by=deed.there_by,
        vouched=deed.vouched,
        host="",
        request="",
        manifest="",
        outcome="",
        sound=not deed.fault,
        file=file,
    )


def json_lines(archive: Archive, chronicle: Chronicle) -> bytes:
    """Write what happened as JSON Lines."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in act_lines(archive, chronicle))


def intoto_bundle(archive: Archive, chronicle: Chronicle) -> bytes:
    """Write statements as an in-toto attestation bundle, an envelope a line: those of sound
    releases, and those of a chronicle that are believed.

    In-toto attestation framework, spec/v1/bundle.md.  Sorted by kind and digest, each once.  A
    line has no place to say that what it belongs to does not hold, or that it does not count: such
    releases, answers and statements are left out.
    """
    found: dict[tuple[str, Digest, bytes], bytes] = {}
    statements = [s for held in archive.held for s in _statements_of(held)]
    statements += [deed.shown for deed in chronicle.deeds if deed.shown and not deed.fault]
    for statement in statements:
        data = encode(statement.envelope)
        found[statement.predicate.PREDICATE_TYPE, statement.digest, data] = data
    return b"".join(found[key] + b"\n" for key in sorted(found))


def _statements_of(held: Held) -> Iterator[Statement[Predicate]]:
    """Give the statements of the releases of a case that hold, and nothing that merely lies there:
    of a folder anybody may have written, verdicts pass over what is by nobody.
    """
    sound = [release for release in held.report.releases if held.holds(release)]
    if not sound:
        return
    requests = {release.request for release in sound}
    counting = {digest for release in sound for digest in _counting(release)}
    for suffix, data in gather(held.case.documents, pin=held.report.pin, requests=requests).files:
        if suffix == ".dsse":
            statement = read_statement(data)
            answer = isinstance(statement.predicate, Consent | Approval | Denial)
            if not answer or statement.digest in counting:
                yield statement


def _counting(release: AuditedRelease) -> Iterator[Digest]:
    """Give the answers to a release that count."""
    if release.tally is not None:
        yield from (c.statement.digest for c in release.tally.consents if c.counts)
        yield from (a.statement.digest for a in release.tally.counted)
        yield from (a.statement.digest for a in release.tally.passed_over if a.counts)
        yield from (d.statement.digest for d in release.tally.denials if d.counts)
