"""Whose a logged answer is, and when it came: what no file makes an auditor believe of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from custody.encoding import Digest
from custody.formats.approval import Approval, Denial
from custody.formats.case import read_statement
from custody.formats.envelope import decode_statement
from custody.ops.audit import AuditedRelease
from custody.rules.verdicts import passed
from tests.release.cast import person
from tests.release.collected import Collection, faults, judged, logged_release, reason_of, written
from tests.release.conftest import running
from tests.release.logged import Log, LoggedCast, witness


@dataclass(frozen=True)
class Told:
    """A collected release that is logged, with a denial by sec3, and everybody's keys."""

    cast: LoggedCast
    whole: Collection

    def copied(self, name: str, by: str) -> bytes:
        """Sign the text of a member again, as somebody else."""
        said = read_statement(self.whole.members[name]).predicate
        return self.cast.people[by].signer.statement(said)

    def instead(self, name: str, data: bytes) -> bytes:
        """Write the file with one member exchanged, every digest right."""
        return written(*{**self.whole.members, name: data}.items())

    def beside(self, data: bytes) -> bytes:
        """Write the file with one member more."""
        return written(*self.whole.members.items(), ("x.dsse", data))

    def faults(self, data: bytes) -> set[str]:
        """List what a file fails."""
        return faults(data, self.whole.pin, tsa_roots=self.whole.tsa_roots)

    def release(self, data: bytes) -> AuditedRelease:
        """Judge the one release of a file."""
        (found,) = judged(data, self.whole.pin, tsa_roots=self.whole.tsa_roots).releases
        return found

    def digest(self, name: str) -> Digest:
        """Return the statement digest that a member is called by."""
        return name.partition("-")[2].removesuffix(".dsse")


@pytest.fixture(scope="module")
def told(
    manufactured: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """Run one release, which a log and a witness saw, once for all that only change the file."""
    with running(manufactured) as machine:
        cast = LoggedCast(tmp_path_factory.mktemp("denials"), machine, Log(witnesses=[witness()]))
        whole = logged_release(cast)
        cast.people["mallory"] = person("mallory", "officer")
        yield Told(cast, whole)


def deniers(release: AuditedRelease) -> list[str]:
    """Name who denied, by denials that hold."""
    assert release.tally is not None
    return [denial.officer for denial in release.tally.denials if passed(denial.verdicts)]


OTHERS = ["sec1", "lead2", "pub", "cus1", "enr1", "mallory"]


@pytest.mark.parametrize("by", OTHERS)
def test_a_logged_denial_cannot_be_taken_over(told: Told, by: str) -> None:
    """The text of a denial names the key of its author.  Signed again by another officer, a person
    of another role or a stranger, in its place, it is missed; beside it, it is foreign.
    """
    (name,) = told.whole.named("denial")
    assert ["sec3"] == deniers(told.release(told.whole.data))
    copy = told.copied(name, by)
    swapped = told.instead(name, copy)
    assert {"logged.whole", "case.missing", "case.foreign"} <= told.faults(swapped)
    assert [] == deniers(told.release(swapped))
    assert f"denial {told.digest(name)}" in reason_of("case.missing", swapped, told.whole.pin)
    more = told.beside(copy)
    assert {"case.foreign"} == told.faults(more)
    assert ["sec3"] == deniers(told.release(more))


@pytest.mark.parametrize("by", OTHERS)
def test_a_logged_approval_cannot_be_taken_over(told: Told, by: str) -> None:
    """Nor an approval: what its author signed for the TPM is in its text."""
    name = told.whole.named("approval")[0]
    said = decode_statement(Approval, told.whole.members[name])
    author = said.envelope.signatures[0].keyid
    if told.cast.people[by].signer.key_id == author:
        name = told.whole.named("approval")[1]
    copy = told.copied(name, by)
    assert {"logged.whole", "case.missing", "case.foreign"} <= told.faults(told.instead(name, copy))
    assert {"case.foreign"} == told.faults(told.beside(copy))


def test_a_denial_that_names_another_is_nobodys(told: Told) -> None:
    """An officer cannot have another deny: a text that names sec1, signed by sec2, is by neither,
    and keeps sec1's own approval from nothing.
    """
    (name,) = told.whole.named("denial")
    said = decode_statement(Denial, told.whole.members[name]).predicate
    people = told.cast.people
    lie = msgspec.structs.replace(said, author=people["sec1"].signer.key_id)
    data = told.beside(people["sec2"].signer.statement(lie))
    assert {"case.foreign"} == told.faults(data)
    assert ["sec3"] == deniers(told.release(data))
