"""Where one step of a ceremony is done: whose tokens, which files, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, sha256
from custody.errors import Incomplete, Refused
from custody.formats.ceremony import (
    Invite,
    MakePolicy,
    Script,
    SplitRecovery,
    recovery_name,
)
from custody.formats.policy import Policy
from custody.formats.recovery import RecoveryRecord
from custody.formats.transcript import KeyUse, Told
from custody.formats.vendor import KeyAttestation
from custody.keys.api import Token
from custody.ops.folders import read_file, read_statement_file
from custody.ops.home import Home
from custody.ops.landing import replace_file
from custody.ops.table import Table
from custody.ops.transcript import MAX_FILE_BYTES, Transcript
from custody.rules.ceremony import Progress


class Hands(Protocol):
    """The tokens of one step."""

    def take(self, name: str) -> Token:
        """Return somebody's token, which was looked into."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key of somebody's token."""

    person: str
    use: KeyUse
    spki: bytes | None
    check: Digest | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a step: keys, files that were written or read, what is to be said of it."""

    keys: list[NewKey] = field(default_factory=list)
    attested: list[KeyAttestation] = field(default_factory=list)
    files: dict[str, Digest] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one step is done."""

    held: Transcript
    table: Table
    hands: Hands
    beside: Path

    @property
    def script(self) -> Script:
        """What was published."""
        return self.held.held.script

    @property
    def invited_by(self) -> str:
        """Whose invitation all admissions answer."""
        return next(step.by for step in self.script.steps if isinstance(step, Invite))

    def home(self, name: str) -> Home:
        """Return somebody's private state."""
        return self.table.home(self.script.seat(name))

    def put(self, outcome: Outcome, name: str, data: bytes) -> Path:
        """Write a file of this step; what an interrupted one left is written anew."""
        if name in self.held.progress.files:
            raise Refused("a step before this one wrote it", check="ceremony.files", where=name)
        path = self.held.folder / name
        replace_file(path, data, mode=0o644)
        outcome.files[name] = sha256(data).hex()
        return path

    def read(self, outcome: Outcome, name: str) -> Path:
        """Name a file that is read; a step before this one may have written it."""
        path = self.held.folder / name
        if not path.is_file():
            raise Incomplete(
                "is not here yet",
                missing=(f"{name}, in {self.held.folder}",),
                where=name,
                hint="put it there and go on with the same command",
            )
        digest = sha256(read_file(path, max_bytes=MAX_FILE_BYTES)).hex()
        if self.held.progress.files.get(name, digest) != digest:
            raise Refused(
                "is not what an earlier step wrote any more", check="ceremony.files", where=name
            )
        outcome.files[name] = digest
        return path


def check_of_table(policy: Policy, script: Script, progress: Progress, folder: Path) -> None:
    """Refuse a policy without the authority, or with another recovery key, than was made here.

    Its draft names them by files that lie beside the script, where nothing holds them to what was
    made: a stranger's recovery key, laid there in time, would open every bundle.
    """
    listed = {spki_of(der) for der in policy.authorities}
    if any(key.use == "ca" and key.spki not in listed for key in progress.keys):
        raise Refused("does not list the authority that was made here", check="ceremony.policy")
    made = []
    for step in script.steps:
        if isinstance(step, MakePolicy):
            break
        if isinstance(step, SplitRecovery):
            record = read_statement_file(RecoveryRecord, folder / recovery_name(step.epoch))
            made.append(record.predicate.in_policy(record.digest))
    if made and policy.recovery not in made:
        raise Refused("names another recovery key than was made here", check="ceremony.policy")
