"""How much judging a case asks for, counted before anything in it is verified.

A file is written by whoever sends it.  Each limit bounds one kind of work, or one product of two
(every answer is held against every certificate, say), so that no file costs an auditor hours.
Format: case.md, "Limits".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from custody.errors import Refused
from custody.formats.case import Documents
from custody.rules.times import statements_of

#: Reading a revocation list of this size is as much work as reading a certificate.
_LIST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Share:
    """One part of the work: how much there is, and how much an auditor takes on at once."""

    what: str
    count: int
    most: int


def check_burden(documents: Documents) -> None:
    """Refuse (``case.burden``) a case that takes too long to judge, naming what is too much."""
    for share in burden_of(documents):
        if share.count > share.most:
            raise Refused(
                f"{share.what}: {share.count}, and {share.most} are judged at once",
                check="case.burden",
                hint="collect fewer releases into a file: custody auditor collect --request DIGEST",
            )


def burden_of(documents: Documents) -> tuple[Share, ...]:
    """Count the work by which a case is bounded."""
    requests = len(documents.asked)
    return (
        Share("policies", len(documents.policies), 128),
        Share("requests", requests, 1024),
        *_signed(documents, requests),
        *_answered(documents, requests),
        *_logged(documents, requests),
        Share("timestamps", len(documents.tokens), 1024),
    )


def _signed(documents: Documents, requests: int) -> Iterator[Share]:
    """Count signatures: whoever signs nothing well can still put many into an envelope."""
    most = max(
        (len(statement.envelope.signatures) for statement in statements_of(documents)), default=0
    )
    yield Share("signatures of one statement", most, 32)
    vouching = [
        *(len(record.envelope.signatures) for record in documents.enrolments),
        *(len(retirement.envelope.signatures) for retirement in documents.retirements),
        *(len(golden.envelope.signatures) for golden in documents.golden_sets),
    ]
    yield Share("signatures that vouch for hosts, by requests", sum(vouching) * requests, 300_000)
    named = Counter(request.predicate.terms.manifest for request in documents.asked)
    sizes = (len(m.envelope.payload) * named[m.digest] for m in documents.manifests)
    yield Share("bytes of manifests, by requests", sum(sizes), 1 << 30)


def _answered(documents: Documents, requests: int) -> Iterator[Share]:
    """Count answers, and what each is held against."""
    by_request = Counter(a.predicate.request for a in documents.approvals)
    by_request.update(d.predicate.request for d in documents.denials)
    by_request.update(c.predicate.request for c in documents.consents)
    by_terms = Counter(d.predicate.terms for d in documents.denials)
    each = [
        by_request[r.digest] + by_terms[r.predicate.terms.digest().hex()] for r in documents.asked
    ]
    yield Share("answers to one request", max(each, default=0), 1024)
    listed = sum(1 + len(crl) // _LIST_BYTES for crl in documents.crls)
    looked = (sum(each) + 2 * requests) * (len(documents.certificates) + listed)
    yield Share("certificates and lists, by answers", looked, 1_000_000)
    ends = Counter(r.predicate.request for r in documents.endings)
    ends.update(b.predicate.request for b in documents.burns)
    ends.update(f.predicate.request for f in documents.forgotten)
    yield Share("ends of one request", max(ends.values(), default=0), 64)


def _logged(documents: Documents, requests: int) -> Iterator[Share]:
    """Count what logs say, and what shows that their heads are of one history."""
    words = Counter(word.predicate.request for word in documents.logged)
    yield Share("words of logs on one request", max(words.values(), default=0), 16)
    entries: Counter[str] = Counter()
    for word in documents.logged:
        entries[word.predicate.request] += len(word.predicate.entries)
    judged = sum(entries[request.digest] for request in documents.asked)
    yield Share("entries of logs' words", max(judged, entries.total()), 1 << 16)
    yield Share("proofs of logs", len(documents.proofs), 4096)
    of_one = Counter((given.entry.digest, given.entry.kind) for given in documents.proofs)
    yield Share("proofs of one entry", max(of_one.values(), default=0), 8)
    links = len(documents.consistencies) + len(documents.logged)
    yield Share("heads of logs, by requests", links * requests, 250_000)
    yield Share("proofs of consistency", len(documents.consistencies), 1024)
