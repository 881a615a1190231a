"""What the steps of a ceremony made so far, as their files say, and how files are held to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography.x509 import NameOID

from custody.crypto.certificates import read_certificate
from custody.crypto.signature import verify
from custody.encoding import Digest, KeyId, Record, decode, key_id
from custody.errors import Malformed, Refused
from custody.formats.admission import Admission
from custody.formats.ceremony import Script, recovery_name, wrapping_name
from custody.formats.envelope import Predicate, Statement, decode_statement
from custody.formats.keybackup import WrappingKey
from custody.formats.recovery import RecoveryRecord
from custody.formats.transcript import Done, KeyUse, Line, MadeKey
from custody.rules.ceremony import Progress

P = TypeVar("P", bound=Predicate)
R = TypeVar("R", bound=Record)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What the steps so far made, as their files say."""

    script: Script
    contents: Mapping[str, bytes] = field(repr=False)
    progress: Progress = field(default_factory=Progress)
    began: datetime | None = None
    """When the step at hand was begun first."""
    invitation: Digest | None = None
    authority: bytes = b""
    admissions: dict[str, Statement[Admission]] = field(default_factory=dict)
    admitted: list[Statement[Admission]] = field(default_factory=list)
    attested: set[KeyId] = field(default_factory=set)
    """The keys that a vendor attests."""
    records: dict[int, Statement[RecoveryRecord]] = field(default_factory=dict)
    wrappings: dict[int, Statement[WrappingKey]] = field(default_factory=dict)

    def data(self, name: str) -> bytes:
        """Return a file of the ceremony; one that is not here is `Refused`."""
        if name not in self.contents:
            raise Refused(f"{name} is not here", check="ceremony.files")
        return self.contents[name]

    def statement(self, kind: type[P], name: str) -> Statement[P]:
        """Read a signed file."""
        with naming(name):
            return decode_statement(kind, self.data(name))

    def record(self, kind: type[R], name: str) -> R:
        """Read a file that nobody signs."""
        with naming(name):
            return decode(kind, self.data(name))

    def wrapping(self, epoch: int) -> Statement[WrappingKey]:
        """Return a wrapping key that a step before stated."""
        if epoch not in self.wrappings:
            raise Refused(f"no good {wrapping_name(epoch)} was stated", check="ceremony.wrapping")
        return self.wrappings[epoch]

    def recovery(self, epoch: int) -> Statement[RecoveryRecord]:
        """Return the record of a recovery key that a step before split."""
        if epoch not in self.records:
            raise Refused(f"no good {recovery_name(epoch)} was stated", check="ceremony.recovery")
        return self.records[epoch]

    def signing(
        self, statement: Statement[P], name: str, person: str, *, spki: bytes | None = None
    ) -> Iterator[str]:
        """Say if somebody did not sign, by the key that he enrolled, or by the one given."""
        keys = {key.key_id: key for key in self.progress.keys if key.use == "sign"}
        enrolled = self.progress.signing_key(person)
        wanted = spki if spki is not None else enrolled.spki if enrolled is not None else None
        signature = statement.envelope.signatures[0]
        if wanted is None or signature.keyid != key_id(wanted):
            other = keys.get(signature.keyid)
            by = f"by {other.person}" if other else "by a key that was not enrolled here"
            yield f"{name} is signed {by}, not by {person}"
            return
        try:
            verify(wanted, statement.envelope.signed_bytes(), signature.sig)
        except (Malformed, Refused):
            yield f"{name}: the signature of {person} does not hold"

    def timely(self, name: str, moment: datetime, line: Line) -> Iterator[str]:
        """Say if something was made at another time than its step was done."""
        if not (self.began or moment) <= moment <= line.record.at:
            yield f"{name} was made at another time than its step"


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the file of which something is wrong."""
    try:
        yield
    except (Malformed, Refused) as error:
        if not error.reason.startswith(name):
            error.reason = f"{name}: {error.reason}"
        raise


def differing(name: str, *facts: tuple[str, object, object]) -> Iterator[str]:
    """Name what a file says otherwise than the record, the script or an earlier file."""
    wrong = [what for what, said, wanted in facts if said != wanted]
    if wrong:
        yield f"{name} is of another {', '.join(wrong)}"


def telling(event: Done, *digests: Digest) -> Iterator[str]:
    """Say if other digests were read aloud than those of what was made."""
    if tuple(told.digest for told in event.told) != digests:
        yield "what was read aloud is another digest"


def made_of(event: Done, use: KeyUse) -> list[MadeKey]:
    """Return the one key of this use that a step made, in a list."""
    made = [key for key in event.keys if key.use == use]
    if len(made) != 1:
        raise Refused(f"made {len(made)} keys of use {use}, not one", check="ceremony.keys")
    return made


def common_name(der: bytes) -> str:
    """Return whose name a certificate is for; "" where it is not one name."""
    names = read_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""
