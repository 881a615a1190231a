"""Auditing from a home: what an auditor remembers of logs is held against what a case shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from custody.encoding import Digest
from custody.formats.case import Documents, merge
from custody.formats.checkpoint import decode_checkpoint
from custody.formats.logpolicy import LogPolicy
from custody.formats.note import MAX_NOTE_BYTES
from custody.formats.state import EnrolmentMemory
from custody.formats.tiles import CHECKPOINT_PATH
from custody.log.storage import Source
from custody.ops.audit import AuditReport
from custody.ops.audit_contents import OpenedContents
from custody.ops.collect import Case, Collected, audit_files, collect, open_case_file
from custody.ops.heads import advance_seen, chain_heads, check_histories, link_heads, seen_logs
from custody.ops.home import Home
from custody.rules.history import logs_of, of_log
from custody.rules.verdicts import Ledger


def audit_from_home(
    home: Home,
    case: Case,
    *,
    pin: Digest,
    at: datetime | None = None,
    contents: Sequence[OpenedContents] = (),
    retired: Sequence[EnrolmentMemory] = (),
    source: Source | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> AuditReport:
    """Judge a case, and remember the newest head of each log that its policies name.

    ``source`` is where the log is read; without it a case must prove itself that its heads are of
    one history with what was seen.  Raises `Refused` (``log.fork``, ``log.rollback``) with the
    evidence, which this home keeps.
    """
    judge = partial(
        audit_files, pin=pin, at=at, contents=contents, retired=retired, tsa_roots=tsa_roots
    )
    report = judge(case, seen=seen_logs(home))
    check_histories(home, report.histories)
    # By policies that follow from the pin: no case brings its own log's key.
    logs = logs_of(case.documents, pin=pin)
    documents = case.documents
    if source is not None and logs:
        served = served_by(source, logs)
        documents, _ = link_heads(home, served, documents, source)
        report = judge(replace(case, documents=documents), seen=seen_logs(home))
        ledger = Ledger(subject="case")
        for history in report.histories:
            if history.origin != served[-1].logs[0].key.name:
                ledger.skip("log.served", f"{history.origin}: not read; another log is served")
        report = replace(report, verdicts=(*report.verdicts, *ledger.verdicts))
    # What is not shown to be one history is nothing to begin with, nor to go on from.
    loose = {history.origin for history in report.histories if history.loose}
    for policy in logs:
        if policy.logs[0].key.name not in loose:
            with home.lock():
                advance_seen(home, policy, documents)
    return report


def collect_from_home(
    home: Home,
    documents: Documents,
    *,
    pin: Digest,
    source: Source,
    requests: Collection[Digest] | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> Collected:
    """Collect as `collect` does, with what ties the heads of the log at ``source`` together.

    Raises `Refused` (``log.fork``, ``log.rollback``) where they are not of what it shows.
    """
    gathered = partial(collect, pin=pin, requests=requests, tsa_roots=tsa_roots)
    alone = gathered(documents)
    logs = logs_of(documents, pin=pin)
    if not logs:
        return alone
    # By what is collected, so that whoever collects the same ties the same heads.
    inside = open_case_file("", alone.data).documents
    links = chain_heads(home, served_by(source, logs), inside, source)
    return gathered(merge(documents, Documents(consistencies=links)))


def served_by(source: Source, logs: Sequence[LogPolicy]) -> Sequence[LogPolicy]:
    """Choose what policies say of the log that ``source`` serves: of the newest, if of none."""
    data = source.read(CHECKPOINT_PATH, max_bytes=MAX_NOTE_BYTES)
    known = {policy.logs[0].key.name for policy in logs}
    served = None if data is None else decode_checkpoint(data).checkpoint.origin
    origin = served if served in known else logs[-1].logs[0].key.name
    return of_log(logs, origin)
