"""What still lingers: keys that live, bundles that had their time, rules that end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from custody.crypto.certificates import read_certificate, spki_of
from custody.encoding import Digest, key_id
from custody.errors import CustodyError
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.logentry import LogEntry
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.ops.archive import Archive
from custody.ops.audit import AuditedRelease
from custody.rules.certificates import read_revocation_lists
from custody.rules.disposal import check_disposal, is_published, superseded
from custody.rules.forgotten import check_forgotten
from custody.rules.history import told
from custody.rules.times import statements_of
from custody.rules.trust import author_of, judge_chain
from custody.rules.verdicts import passed

Kind = Literal[
    "overdue.request",
    "overdue.burn",
    "overdue.kept-key",
    "overdue.disposal",
    "overdue.policy",
    "overdue.certificate",
    "overdue.crl",
    "overdue.file",
    "overdue.history",
    "overdue.unshown",
]
#: How long before its end a policy, a list or a certificate is told of.
NOTICE = timedelta(days=30)
_SHORT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """Something that somebody should have done, or soon must: what, whose, since when, and how."""

    kind: Kind
    since: datetime
    who: str
    what: str
    do: str
    digest: Digest | None = None

    def is_due(self, now: datetime) -> bool:
        """Tell whether it is late already, and not only near."""
        return self.since <= now


def overdue(archive: Archive, *, pin: Digest, now: datetime) -> tuple[Overdue, ...]:
    """List what lingers in an archive, the oldest first."""
    documents = archive.documents()
    found = [
        *_releases(archive, now),
        *_files(archive, now),
        *_histories(archive, now),
        *_rules(documents, pin=pin, now=now),
    ]
    return tuple(sorted(found, key=lambda o: (o.since, o.kind, o.who, o.what)))


def policies_of(documents: Documents, *, pin: Digest, now: datetime) -> tuple[Policy, ...]:
    """Return the chain of policies from the pin, the newest last; empty where there is none."""
    chain = judge_chain(documents.policies, pin=pin, floor=0, now=now)
    return tuple(statement.predicate for statement in chain.statements)


def _releases(archive: Archive, now: datetime) -> Iterator[Overdue]:
    for _, release in archive.releases():
        yield from _release(release, now)


def _release(release: AuditedRelease, now: datetime) -> Iterator[Overdue]:
    request = release.exhibits.request.predicate
    short = release.request[:_SHORT]
    policy = release.exhibits.policy
    window = timedelta(seconds=policy.limits.request_window_seconds) if policy else timedelta(0)
    if release.outcome in {"approved", "open", "refused"}:
        ended = request.requested_at + window
        if ended <= now:
            yield Overdue(
                kind="overdue.request",
                since=ended,
                who=release.host,
                what=f"request {short}… came to no end that is shown here",
                do=f"custody host cancel {short} --burn"
                if request.BURNS
                else "custody host end-by-key --help",
                digest=release.request,
            )
    elif not request.BURNS:
        return
    elif release.outcome in {"opened-not-burned", "failed"} and release.receipt is not None:
        finished = release.receipt.predicate.finished_at
        # Whoever asks about a day in the past is not told what came later.
        if finished > now:
            return
        yield Overdue(
            kind="overdue.burn",
            since=finished,
            who=release.host,
            what=f"nothing shows that the key of request {short}… is dead",
            do=f"custody host cancel {short} --burn",
            digest=release.request,
        )


def _files(archive: Archive, now: datetime) -> Iterator[Overdue]:
    for unopened in archive.unopened:
        yield Overdue(
            kind="overdue.file",
            since=now,
            who="the auditor",
            what=f"{unopened.name} cannot be read: {unopened.reason}",
            do="get it again",
        )


def _histories(archive: Archive, now: datetime) -> Iterator[Overdue]:
    """Tell of logs that have shown this archive two histories, or may have."""
    for history in archive.histories:
        if history.conflict is not None:
            both = "; ".join(told(head) for head in history.conflict)
            what, do = (
                f"shows two histories, and has signed both: {both}",
                "keep the files, and ask",
            )
        elif history.loose:
            sizes = ", ".join(str(head.checkpoint.size) for head in history.loose)
            what = f"its heads of {sizes} entries are not shown to be of one history"
            do = "custody auditor overdue --log LOG"
        else:
            continue
        yield Overdue(kind="overdue.history", since=now, who=history.origin, what=what, do=do)


def _rules(documents: Documents, *, pin: Digest, now: datetime) -> Iterator[Overdue]:
    chain = policies_of(documents, pin=pin, now=now)
    if not chain:
        return
    newest = chain[-1]
    yield from _manifests(documents, newest, now)
    yield from _ends(documents, newest, now)


def _manifests(documents: Documents, policy: Policy, now: datetime) -> Iterator[Overdue]:
    """Tell of bundles that had their time: their publisher's copies, and keys that hosts keep."""
    every = {m.digest: m for m in documents.manifests if is_published(m, policy)}
    gone = {digest for digest, m in every.items() if _is_disposed(m, documents, policy)}
    for manifest in every.values():
        found = superseded(manifest, every.values(), policy, now=now)
        if found is None or found.since > now:
            continue
        holder = policy.holder(manifest.predicate.core.publisher)
        if manifest.digest not in gone:
            yield Overdue(
                kind="overdue.disposal",
                since=found.since,
                who=holder.id if holder else "its publisher",
                what=f"the bundle of manifest {manifest.digest[:_SHORT]}… is {found.why}, and "
                "nothing shows that it is gone",
                do="custody publisher retire BUNDLE",
                digest=manifest.digest,
            )
        yield from _kept(documents, manifest, found.why, found.since)


def _is_disposed(manifest: Statement[Manifest], documents: Documents, policy: Policy) -> bool:
    return any(
        passed(check_disposal(disposal, manifest, policy))
        for disposal in documents.disposals
        if disposal.predicate.manifest == manifest.digest
    )


def _kept(
    documents: Documents, manifest: Statement[Manifest], why: str, since: datetime
) -> Iterator[Overdue]:
    """Tell of hosts that were let keep a key to a bundle that had its time, and did not forget."""
    hosts = {
        receipt.predicate.request
        for receipt in documents.receipts
        if receipt.predicate.manifest == manifest.digest and receipt.predicate.outcome == "retained"
    }
    for request in documents.requests:
        gone = any(
            passed(check_forgotten(said, request))
            for said in documents.forgotten
            if said.predicate.request == request.digest
        )
        if request.digest in hosts and not gone:
            yield Overdue(
                kind="overdue.kept-key",
                since=since,
                who=request.predicate.host,
                what=f"keeps a key to manifest {manifest.digest[:_SHORT]}…, {why}",
                do=f"custody host forget {manifest.digest[:_SHORT]} --out FILE",
                digest=request.digest,
            )


def _ends(documents: Documents, policy: Policy, now: datetime) -> Iterator[Overdue]:
    """Tell of what ends soon: the policy, revocation lists, certificates of listed keys."""
    if policy.expires_at <= now + NOTICE:
        yield Overdue(
            kind="overdue.policy",
            since=policy.expires_at,
            who="custodians",
            what=f"policy version {policy.version} ends",
            do="custody custodian policy propose",
        )
    for authority in policy.authorities:
        lists = read_revocation_lists(documents.crls, authorities=[authority])
        newest = max(lists, key=lambda known: known.number, default=None)
        if newest is not None and newest.next_update <= now + NOTICE:
            yield Overdue(
                kind="overdue.crl",
                since=newest.next_update,
                who="custodians",
                what=f"revocation list {newest.number} is due to be replaced",
                do="custody custodian renew-crl",
            )
    yield from _certificates(documents.certificates, policy, now)


def _certificates(ders: Iterable[bytes], policy: Policy, now: datetime) -> Iterator[Overdue]:
    """Tell of the last certificate of each listed key that is here, if it ends soon."""
    last: dict[str, datetime] = {}
    for der in ders:
        try:
            found, end = key_id(spki_of(der)), read_certificate(der).not_valid_after_utc
        except CustodyError:
            continue
        last[found] = max(end, last.get(found, end))
    for person in policy.principals:
        for key in person.keys:
            ends = last.get(key_id(key.spki))
            if ends is not None and ends <= now + NOTICE:
                yield Overdue(
                    kind="overdue.certificate",
                    since=ends,
                    who=person.id,
                    what=f"the certificate of key {key.key_id[:_SHORT]}… ends",
                    do="custody custodian admit",
                )


def unshown(
    archive: Archive, entries: Iterable[tuple[int, LogEntry]], *, now: datetime
) -> tuple[Overdue, ...]:
    """Tell of what a log has and no file here shows: a statement that was left out is there.

    A copy that somebody else signed is not what its author says, and shows nothing.
    """
    documents = (held.case.documents for held in archive.held)
    here = {
        statement.digest
        for heap in documents
        for statement in statements_of(heap)
        if author_of(statement) in (None, statement.envelope.signatures[0].keyid)
    }
    return tuple(
        Overdue(
            kind="overdue.unshown",
            since=now,
            who="the auditor",
            what=f"entry {index} of the log, a {entry.kind}, is in no file here",
            do=f"ask for statement {entry.digest}",
            digest=entry.digest,
        )
        for index, entry in entries
        if entry.digest not in here
    )
