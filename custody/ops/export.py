"""An archive for other tools: JSON Lines of what happened, or an in-toto bundle of statements."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from custody.encoding import Digest, encode
from custody.formats.approval import Approval, Denial
from custody.formats.case import read_statement
from custody.formats.envelope import Predicate, Statement
from custody.formats.keyrequest import Consent
from custody.ops.archive import Archive, Held, acts_of
from custody.ops.audit import AuditedRelease
from custody.rules.gathering import gather


class ActLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line: an act, whose, about which release, whether that holds, and where it is shown."""

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


def act_lines(archive: Archive) -> Iterator[ActLine]:
    """Give every act of an archive in order, as a line each."""
    for act in acts_of(archive):
        entry, release = act.entry, act.release
        yield ActLine(
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


def json_lines(archive: Archive) -> bytes:
    """Write what happened as JSON Lines."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in act_lines(archive))


def intoto_bundle(archive: Archive) -> bytes:
    """Write the statements of sound releases as an in-toto attestation bundle: an envelope a line.

    In-toto attestation framework, spec/v1/bundle.md.  Sorted by kind and digest, each once.  A
    line has no place to say that what it belongs to does not hold, or that it does not count: such
    releases, and such answers, are left out.
    """
    found: dict[tuple[str, Digest, bytes], bytes] = {}
    for held in archive.held:
        for statement in _statements_of(held):
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
