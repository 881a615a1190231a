"""Auditing from a home: what an auditor remembers of logs is held against what a case shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from custody.encoding import Digest
from custody.formats.state import EnrolmentMemory
from custody.log.storage import Source
from custody.ops.audit import AuditReport
from custody.ops.audit_contents import OpenedContents
from custody.ops.collect import Case, audit_files
from custody.ops.heads import advance_seen, link_heads, seen_logs
from custody.ops.home import Home


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
    # By policies that follow from the pin: no case brings its own log's key.
    policies = [release.exhibits.policy for release in report.releases]
    logs = {policy.logged: policy.log_policy() for policy in policies if policy is not None}
    documents = case.documents
    for log in logs.values():
        if log is None:
            continue
        with home.lock():
            advance_seen(home, log, documents)
        if source is not None:
            documents, _ = link_heads(home, log, documents, source)
    if documents is case.documents:
        return report
    return judge(replace(case, documents=documents), seen=seen_logs(home))
