"""Many collected files at once: what an auditor keeps, in a folder or an object store.

Every file is judged by itself, as `custody auditor verify` would, and none is believed for the
sake of another; only questions about the whole (what was replaced, what ends) put them together.
Files that tell of one request are judged as one case: else which of two stories is told would be
a matter of their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from custody.encoding import Digest
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from custody.formats.case import MAX_FILES, Documents, merge
from custody.formats.casefile import MAX_BYTES, SUFFIX
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.state import EnrolmentMemory
from custody.ops.account import Entry, account_of, in_order
from custody.ops.audit import AuditedRelease, AuditReport
from custody.ops.collect import Case, audit_files, open_case_file, read_case
from custody.ops.folders import read_file, reading
from custody.rules.burden import check_burden
from custody.rules.history import History, histories_of, judge_history, logs_of
from custody.rules.verdicts import Ledger, passed

#: How acts begin that are somebody's answer to a request.
ANSWERS = ("consent.", "approval.", "denial.")


class Shelf(Protocol):
    """An object store as an archive is read from it; `transports.api` opens one."""

    def names(self, folder: str) -> Sequence[str]:
        """Return the paths of the objects in a folder, all of them for "", in order."""

    def read(self, path: str, *, max_bytes: int) -> bytes | None:
        """Return an object, None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One case of an archive, and what it shows.  ``name`` names all its files."""

    name: str
    case: Case
    report: AuditReport

    def holds(self, release: AuditedRelease) -> bool:
        """Tell whether a release of this case is sound, and the file that tells of it is whole."""
        return release.sound and passed(self.report.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unopened:
    """A file of an archive that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Every case, judged; and of each log the heads that all of them show."""

    held: tuple[Held, ...]
    unopened: tuple[Unopened, ...]
    histories: tuple[History, ...] = ()

    def releases(self) -> Iterator[tuple[Held, AuditedRelease]]:
        """Give every release, the oldest request first; each once, where its files could be judged
        together.
        """
        found = [(held, release) for held in self.held for release in held.report.releases]
        found.sort(
            key=lambda pair: (
                pair[1].exhibits.request.predicate.requested_at,
                pair[1].request,
                pair[0].name,
            )
        )
        yield from found

    def find(self, beginning: str) -> tuple[Held, AuditedRelease]:
        """Return the release of a request, by its digest or how it begins; `Incomplete`: none.

        Raises `Refused` (``archive.several``), with the files, where several tell of it apart.
        """
        found: dict[Digest, list[tuple[Held, AuditedRelease]]] = {}
        for held, release in self.releases():
            if release.request.startswith(beginning.lower()):
                found.setdefault(release.request, []).append((held, release))
        if len(beginning) < 8 or len(found) != 1:
            known = sorted({release.request for _, release in self.releases()})
            raise Incomplete(
                "not how one request here begins, by 8 digits or more",
                missing=known,
                where=beginning,
            )
        (told,) = found.values()
        if len(told) > 1:
            # Too much to be judged together: whose story would be told?
            names = ", ".join(held.name for held, _ in told)
            raise Refused(
                f"files that cannot be judged together tell of it: {names}",
                check="archive.several",
                where=beginning,
            )
        return told[0]

    def empty(self) -> Iterator[Held]:
        """Give the collected files that tell of no release: nobody collects such a one."""
        for held in self.held:
            if held.case.files and not held.report.releases:
                yield held

    def documents(self) -> Documents:
        """Return everything, as if it lay in one heap."""
        return merge(*(held.case.documents for held in self.held))


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One act of one release of an archive; ``sound`` says whether that release holds."""

    entry: Entry
    held: str
    release: AuditedRelease
    sound: bool


def read_archive(
    paths: Sequence[Path],
    *,
    shelves: Sequence[Shelf],
    pin: Digest,
    at: datetime | None = None,
    tsa_roots: Sequence[bytes] = (),
    remembered: Sequence[SignedCheckpoint] = (),
    retired: Sequence[EnrolmentMemory] = (),
) -> Archive:
    """Read and judge an archive, each case by what its auditor knows to be ``retired`` too.

    Where two of its files, or one and a head that is ``remembered``, prove that a log has two
    histories, no file with a head of that log is sound: which of them lies, nobody can tell.

    A folder with ``.case`` files in it, or one folder deep, holds as many cases; a folder without
    is one case, and so is any other file.  Of a store all ``.case`` objects are read.
    """
    cases: list[tuple[str, Case]] = []
    unopened: list[Unopened] = []
    for given, data in _files(paths, shelves, unopened):
        name = _shown(given)
        try:
            file = open_case_file(name, data)
        except CustodyError as error:
            unopened.append(Unopened(name=name, reason=error.reason))
            continue
        cases.append((name, Case(documents=file.documents, files=(file,))))
    heaps = (path for path in paths if not any(_case_files(path)))
    cases += [(_shown(path.name), read_case(path)) for path in heaps]
    cases = list(_bounded(cases, unopened))
    held = tuple(
        Held(
            name=name,
            case=case,
            report=audit_files(case, pin=pin, at=at, tsa_roots=tsa_roots, retired=retired),
        )
        for name, case in cases
    )
    documents = merge(*(each.case.documents for each in held))
    histories = histories_of(documents, logs_of(documents, pin=pin), remembered=remembered)
    return Archive(
        held=tuple(_with_forks(each, histories) for each in held),
        unopened=tuple(unopened),
        histories=histories,
    )


def _with_forks(held: Held, histories: Sequence[History]) -> Held:
    """Write down in a case's report what only the other cases show of its log."""
    here, ledger = {history.origin for history in held.report.histories}, Ledger(subject="archive")
    for history in histories:
        if history.conflict is not None and history.origin in here:
            judge_history(ledger, history)
    verdicts = (*held.report.verdicts, *ledger.verdicts)
    return replace(held, report=replace(held.report, verdicts=verdicts))


def acts_of(archive: Archive) -> tuple[Act, ...]:
    """Give every act of every release in order; what several releases share, a policy say, once,
    as a sound one has it.  An answer is told for each request that it answers.
    """
    found: dict[tuple[str, Digest, Digest, str], Act] = {}
    for held, release in archive.releases():
        sound = held.holds(release)
        for entry in account_of(release):
            act = Act(entry=entry, held=held.name, release=release, sound=sound)
            own = release.request if entry.act.startswith(ANSWERS) else ""
            # By whom, too: a copy that is nobody's must not stand in an officer's place.
            key = (entry.act, entry.statement, own, entry.who)
            known = found.get(key)
            if known is None or (sound and not known.sound):
                found[key] = act
    return tuple(sorted(found.values(), key=lambda act: in_order(act.entry)))


def _bounded(
    cases: Sequence[tuple[str, Case]], unopened: list[Unopened]
) -> Iterator[tuple[str, Case]]:
    """Give the cases that can be judged, together where they tell of the same request.

    One that was made to take for ever keeps nobody from the others, nor does one that copies the
    requests of so many that all of them at once are too much.
    """
    for group in _groups(cases):
        joined = _joined(group)
        for name, case in (joined, *(group if len(group) > 1 else ())):
            try:
                check_burden(case.documents)
            except Refused as error:
                unopened.append(Unopened(name=name, reason=error.reason))
                continue
            yield name, case
            if name == joined[0]:
                break


def _joined(group: Sequence[tuple[str, Case]]) -> tuple[str, Case]:
    if len(group) == 1:
        return group[0]
    files = tuple(file for _, case in group for file in case.files)
    documents = merge(*(case.documents for _, case in group))
    return ", ".join(sorted(name for name, _ in group)), Case(documents=documents, files=files)


def _groups(cases: Sequence[tuple[str, Case]]) -> Iterator[Sequence[tuple[str, Case]]]:
    """Put cases together that tell of the same request, be it by way of others."""
    group_of: dict[Digest, int] = {}
    groups: dict[int, list[int]] = {}
    for number, (_, case) in enumerate(cases):
        told = {request.digest for request in case.documents.asked}
        joins = {group_of[request] for request in told if request in group_of}
        # The largest keeps its number: only what joins it is told a new one.
        into = max(joins, key=lambda join: (len(groups[join]), join), default=number)
        joining = [*(n for join in sorted(joins - {into}) for n in groups.pop(join)), number]
        groups.setdefault(into, []).extend(joining)
        for member in joining:
            for request in cases[member][1].documents.asked:
                group_of[request.digest] = into
    for members in groups.values():
        yield [cases[member] for member in members]


def _files(
    paths: Sequence[Path], shelves: Sequence[Shelf], unopened: list[Unopened]
) -> Iterator[tuple[str, bytes]]:
    count = 0
    for path in paths:
        for file in sorted(_case_files(path)):
            count += 1
            if count > MAX_FILES:
                raise Malformed(f"more than {MAX_FILES} files", where=str(path))
            try:
                with reading(file):
                    yield _named(file, path), read_file(file, max_bytes=MAX_BYTES)
            except CustodyError as error:
                unopened.append(Unopened(name=_shown(_named(file, path)), reason=error.reason))
    for shelf in shelves:
        for name in shelf.names(""):
            data = shelf.read(name, max_bytes=MAX_BYTES) if name.endswith(SUFFIX) else None
            if data is not None:
                yield name, data


def _named(file: Path, path: Path) -> str:
    return str(file.relative_to(path)) if path.is_dir() else file.name


def _shown(name: str) -> str:
    """Return the name of a file as everybody can be shown it: a stranger may have named it."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)


def _case_files(folder: Path) -> Iterator[Path]:
    """Find the collected files of a folder, and of its folders; or the one that is named."""
    if folder.suffix == SUFFIX:
        yield folder
        return
    for pattern in (f"*{SUFFIX}", f"*/*{SUFFIX}"):
        for found in folder.glob(pattern):
            if not found.name.startswith(".") and found.is_file() and not found.is_symlink():
                yield found
