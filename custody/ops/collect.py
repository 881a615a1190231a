"""Put a release into one file, and judge such a file as a whole.  Format: casefile.md."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from custody.encoding import Digest, sha256
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, merge, sort_documents
from custody.formats.casefile import (
    MAX_BYTES,
    SUFFIX,
    decode_case_file,
    encode_case_file,
    member_name,
)
from custody.formats.envelope import Predicate, Statement
from custody.formats.logstate import SeenLogs
from custody.formats.state import EnrolmentMemory
from custody.ops.audit import AuditReport, audit_case
from custody.ops.audit_contents import OpenedContents
from custody.ops.folders import read_file, read_folder, reading
from custody.rules.gathering import Gathered, Missing, gather
from custody.rules.history import histories_of, logs_of
from custody.rules.times import statements_of
from custody.rules.verdicts import Ledger, Verdict

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A collected file: its bytes, its members' names, what was left out, what is missing."""

    data: bytes = field(repr=False)
    members: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[Missing, ...]

    @property
    def digest(self) -> Digest:
        """SHA-256 of the file, to be told to whom it is sent."""
        return sha256(self.data).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """A case file that was read: where it was, its members' names and digests, and the case."""

    name: str
    members: tuple[tuple[str, Digest], ...]
    documents: Documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What an auditor was given: one heap, and those of its files that are collected ones."""

    documents: Documents
    files: tuple[CaseFile, ...]


def read_case(*paths: Path) -> Case:
    """Read folders, single files and case files into one case."""
    files = tuple(read_case_file(path) for path in paths if path.suffix == SUFFIX)
    plain = [path for path in paths if path.suffix != SUFFIX]
    heap = read_folder(*plain) if plain else Documents()
    return Case(documents=merge(heap, *(file.documents for file in files)), files=files)


def read_case_file(path: Path) -> CaseFile:
    """Read one collected file."""
    with reading(path):
        return open_case_file(path.name, read_file(path, max_bytes=MAX_BYTES))


def open_case_file(name: str, data: bytes) -> CaseFile:
    """Read the bytes of a collected file."""
    found = decode_case_file(data)
    return CaseFile(
        name=name,
        members=tuple((member, sha256(held).hex()) for member, held in found),
        documents=sort_documents(found),
    )


def audit_files(
    case: Case,
    *,
    pin: Digest,
    at: datetime | None = None,
    contents: Sequence[OpenedContents] = (),
    retired: Sequence[EnrolmentMemory] = (),
    seen: SeenLogs | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> AuditReport:
    """Judge a case as `audit_case` does, and each collected file of it as a whole."""
    report = audit_case(
        case.documents,
        pin=pin,
        at=at,
        contents=contents,
        retired=retired,
        seen=seen,
        tsa_roots=tsa_roots,
    )
    judged = (judge_file(file, pin=pin, tsa_roots=tsa_roots) for file in case.files)
    whole = tuple(verdict for verdicts in judged for verdict in verdicts)
    return replace(report, verdicts=(*report.verdicts, *whole))


def collect(
    documents: Documents,
    *,
    pin: Digest,
    requests: Collection[Digest] | None = None,
    tsa_roots: Sequence[bytes] = (),
) -> Collected:
    """Collect ``requests``, or every request of a case, with all that belongs to them.

    Raises `Refused` (``policy.pin``) where no policy of the case follows from the pin, and
    `Incomplete` where a request is not there.
    """
    here = {request.digest for request in documents.asked}
    lacking = sorted(set(requests or ()) - here)
    if lacking or not here:
        raise Incomplete("there is no such request in the case", missing=lacking or ("a request",))
    found = gather(documents, pin=pin, requests=requests, tsa_roots=tsa_roots)
    if not found.chain:
        raise Refused(
            f"no policy here has the pinned digest {pin[:16]}…",
            check="policy.pin",
            hint="the environment's public files belong to the case, from the pinned policy on",
        )
    data = encode_case_file(found.files)
    members = decode_case_file(data)
    kept = {name for name, _ in members}
    every = {f"{kind_of(s)}-{s.digest}.dsse" for s in statements_of(documents)}
    every |= {member_name(suffix, held) for suffix, held in others_of(documents)}
    unread = [f"{file.name}: {file.reason}" for file in documents.unreadable]
    return Collected(
        data=data,
        members=tuple(sorted(kept)),
        left_out=(*sorted(every - kept), *unread),
        missing=(*found.missing, *_untied(sort_documents(members), pin)),
    )


def _untied(documents: Documents, pin: Digest) -> Iterator[Missing]:
    """Miss proofs that the heads of a log are of one history, or the honesty of the log."""
    for history in histories_of(documents, logs_of(documents, pin=pin)):
        apart = history.conflict or history.loose
        if apart:
            kind = "one history with" if history.conflict else "consistency with"
            first, *others = [head.checkpoint for head in apart]
            sizes = ", ".join(str(other.size) for other in others)
            where = f"heads of {first.size}, {sizes} entries of {history.origin}"
            yield Missing(kind, first.root.hex(), where)


def kind_of(statement: Statement[Predicate]) -> str:
    """Return the word in a statement's predicate type: ``urn:custody:KIND:v1``."""
    return statement.predicate.PREDICATE_TYPE.split(":")[2]


def others_of(documents: Documents) -> Iterator[tuple[str, bytes]]:
    """Give everything else in a case, as ``(suffix, bytes)``."""
    yield from ((".cer", der) for der in documents.certificates)
    yield from ((".crl", der) for der in documents.crls)
    yield from ((".tlog-proof", given.proof.encode()) for given in documents.proofs)
    yield from ((".tlog-consistency", link.encode()) for link in documents.consistencies)
    yield from ((".tsr", token.data) for token in documents.tokens)


def judge_file(
    file: CaseFile, *, pin: Digest, tsa_roots: Sequence[bytes] = ()
) -> tuple[Verdict, ...]:
    """Judge whether a collected file is whole: nothing foreign in it, nothing missing."""
    ledger = Ledger(subject=file.name)
    found = gather(file.documents, pin=pin, tsa_roots=tsa_roots)
    if not found.chain:
        ledger.add("case.foreign", False, "no policy in it has the pinned digest")
        return ledger.done()
    foreign = _foreign(file, found)
    ledger.add(
        "case.foreign",
        not foreign,
        f"every one of its {len(file.members)} members belongs to it",
        otherwise=f"members that do not belong to it, or are not good: {_listed(foreign)}",
    )
    missing = [f"{gap.kind} {gap.digest}, named by {gap.named_by}" for gap in found.missing]
    ledger.add(
        "case.missing",
        not missing,
        "everything that its members name is there",
        otherwise=f"named by its members and not there: {_listed(missing)}",
    )
    return ledger.done()


def _foreign(file: CaseFile, found: Gathered) -> list[str]:
    """Name the members that collecting from this file's members would not give again."""
    again = {(member_name(suffix, data), sha256(data).hex()) for suffix, data in found.files}
    return sorted(name for name, digest in file.members if (name, digest) not in again)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more
