"""A heap of files, sorted by what they are.  Format: case.md, version 1.

Everybody judges from the same kinds of files: statements (``*.dsse``), certificates (``*.cer``)
and revocation lists (``*.crl``), both DER, what a log proves (``*.tlog-proof``,
``*.tlog-consistency``) and timestamps (``*.tsr``).  Which folder a file came from says nothing
about it; what it is follows from its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from custody.crypto.der import MAX_CERTIFICATE_BYTES, MAX_CRL_BYTES
from custody.encoding import Digest
from custody.errors import CustodyError, Malformed
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking, Ending
from custody.formats.authorisation import Authorisation
from custody.formats.burn import Burn
from custody.formats.disposal import Disposal
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import (
    Predicate,
    Signature,
    Statement,
    decode_envelope,
    decode_statement,
    predicate_type,
)
from custody.formats.forgotten import Forgotten
from custody.formats.goldenset import GoldenSet
from custody.formats.keybackup import KeyBackup, WrappingKey
from custody.formats.keyrequest import Consent, KeyReceipt, KeyRequest
from custody.formats.logentry import LogEntry, decode_entry
from custody.formats.logged import Logged
from custody.formats.logproof import LogProof, decode_proof
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.formats.receipt import Receipt
from custody.formats.recovery import BreakGlass, RecoveryRecord
from custody.formats.request import Request
from custody.formats.retirement import Retirement
from custody.formats.timestamp import Token, decode_token
from custody.formats.witnessing import CosignRequest, decode_cosign_request

#: The most files one reader takes; a folder with more is not a case.
MAX_FILES = 20_000

P = TypeVar("P", bound=Predicate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that is none of ours, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryProof:
    """A proof, and the entry it says it is of."""

    entry: LogEntry
    proof: LogProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The files of a case by kind.  Nothing here is verified.

    A statement of many signers is here once, with the signatures of all its copies.  One of a
    single signer is here once for each signature it came with: only a rule can tell which is good.
    """

    policies: tuple[Statement[Policy], ...] = ()
    enrolments: tuple[Statement[EnrolmentRecord], ...] = ()
    retirements: tuple[Statement[Retirement], ...] = ()
    golden_sets: tuple[Statement[GoldenSet], ...] = ()
    authorisations: tuple[Statement[Authorisation], ...] = ()
    manifests: tuple[Statement[Manifest], ...] = ()
    requests: tuple[Statement[Request], ...] = ()
    key_requests: tuple[Statement[KeyRequest], ...] = ()
    consents: tuple[Statement[Consent], ...] = ()
    approvals: tuple[Statement[Approval], ...] = ()
    denials: tuple[Statement[Denial], ...] = ()
    receipts: tuple[Statement[Receipt], ...] = ()
    key_receipts: tuple[Statement[KeyReceipt], ...] = ()
    burns: tuple[Statement[Burn], ...] = ()
    logged: tuple[Statement[Logged], ...] = ()
    disposals: tuple[Statement[Disposal], ...] = ()
    recovery_records: tuple[Statement[RecoveryRecord], ...] = ()
    broken: tuple[Statement[BreakGlass], ...] = ()
    wrapping_keys: tuple[Statement[WrappingKey], ...] = ()
    backups: tuple[Statement[KeyBackup], ...] = ()
    forgotten: tuple[Statement[Forgotten], ...] = ()
    proofs: tuple[EntryProof, ...] = ()
    consistencies: tuple[CosignRequest, ...] = ()
    tokens: tuple[Token, ...] = ()
    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    names: tuple[tuple[Digest, str], ...] = field(default=(), repr=False)

    @property
    def asked(self) -> tuple[Statement[Asking], ...]:
        """Requests of every kind."""
        return (*self.requests, *self.key_requests)

    @property
    def endings(self) -> tuple[Statement[Ending], ...]:
        """Receipts of every kind."""
        return (*self.receipts, *self.key_receipts)

    def enrolment(self, digest: Digest) -> Statement[EnrolmentRecord] | None:
        """Return the enrolment record with that statement digest."""
        return find(self.enrolments, digest)

    def golden(self, digest: Digest) -> Statement[GoldenSet] | None:
        """Return the golden set with that statement digest."""
        return find(self.golden_sets, digest)


def documents_of(statements: Iterable[Statement[Predicate]]) -> Documents:
    """Return the heap of the requests among statements."""
    found = list(statements)
    return Documents(requests=_of(Request, found), key_requests=_of(KeyRequest, found))


def find(statements: Iterable[Statement[P]], digest: Digest) -> Statement[P] | None:
    """Return the statement with that digest."""
    return next((statement for statement in statements if statement.digest == digest), None)


_KINDS: tuple[type[Predicate], ...] = (
    Policy,
    EnrolmentRecord,
    Retirement,
    GoldenSet,
    Authorisation,
    Manifest,
    Request,
    KeyRequest,
    Consent,
    Approval,
    Denial,
    Receipt,
    KeyReceipt,
    Burn,
    Disposal,
    Forgotten,
    Logged,
    RecoveryRecord,
    BreakGlass,
    WrappingKey,
    KeyBackup,
)


def read_statement(data: bytes) -> Statement[Predicate]:
    """Read a ``.dsse`` file of whichever kind it says it is."""
    claimed = predicate_type(decode_envelope(data))
    for kind in _KINDS:
        if claimed == kind.PREDICATE_TYPE:
            return decode_statement(kind, data)
    raise Malformed(f"holds a statement of unknown type {claimed[:80]!r}")


def read_entry_proof(data: bytes) -> EntryProof:
    """Read a ``.tlog-proof`` file that says which entry it is of, as ``extra``."""
    proof = decode_proof(data)
    if proof.extra is None:
        raise Malformed("does not say which entry it is of")
    return EntryProof(entry=decode_entry(proof.extra), proof=proof)


def sort_documents(files: Iterable[tuple[str, bytes]]) -> Documents:
    """Sort ``(name, bytes)`` pairs by kind.

    A file that does not parse is listed as unreadable instead of stopping the reader: whoever can
    write to a folder could otherwise hide everything in it behind one bad file.  Whether an
    unreadable file may be there is for the rules to say.
    """
    statements: list[Statement[Predicate]] = []
    names: dict[Digest, str] = {}
    certificates: list[bytes] = []
    crls: list[bytes] = []
    proofs: list[EntryProof] = []
    consistencies: list[CosignRequest] = []
    tokens: list[Token] = []
    unreadable: list[Unreadable] = []
    for count, (name, data) in enumerate(sorted(files, key=lambda pair: pair[0])):
        if count >= MAX_FILES:
            raise Malformed(f"more than {MAX_FILES} files")
        try:
            if name.endswith(".dsse"):
                statement = read_statement(data)
                statements.append(statement)
                names.setdefault(statement.digest, name)
            elif name.endswith(".cer") and len(data) <= MAX_CERTIFICATE_BYTES:
                certificates.append(data)
            elif name.endswith(".crl") and len(data) <= MAX_CRL_BYTES:
                crls.append(data)
            elif name.endswith(".tlog-proof"):
                proofs.append(read_entry_proof(data))
            elif name.endswith(".tlog-consistency"):
                consistencies.append(decode_cosign_request(data))
            elif name.endswith(".tsr"):
                tokens.append(decode_token(data))
            else:
                unreadable.append(Unreadable(name=name, reason="not a file custody reads"))
        except CustodyError as error:
            unreadable.append(Unreadable(name=name, reason=error.reason))
    found = _gather(statements)
    return Documents(
        policies=_of(Policy, found),
        enrolments=_of(EnrolmentRecord, found),
        retirements=_of(Retirement, found),
        golden_sets=_of(GoldenSet, found),
        authorisations=_of(Authorisation, found),
        manifests=_of(Manifest, found),
        requests=_of(Request, found),
        key_requests=_of(KeyRequest, found),
        consents=_of(Consent, found),
        approvals=_of(Approval, found),
        denials=_of(Denial, found),
        receipts=_of(Receipt, found),
        key_receipts=_of(KeyReceipt, found),
        burns=_of(Burn, found),
        logged=_of(Logged, found),
        disposals=_of(Disposal, found),
        recovery_records=_of(RecoveryRecord, found),
        broken=_of(BreakGlass, found),
        wrapping_keys=_of(WrappingKey, found),
        backups=_of(KeyBackup, found),
        forgotten=_of(Forgotten, found),
        proofs=tuple(dict.fromkeys(proofs)),
        consistencies=tuple(dict.fromkeys(consistencies)),
        tokens=tuple(dict.fromkeys(tokens)),
        certificates=tuple(certificates),
        crls=tuple(crls),
        unreadable=tuple(unreadable),
        names=tuple(names.items()),
    )


def _gather(statements: Iterable[Statement[P]]) -> list[Statement[P]]:
    """Put the copies of each statement together.

    Choosing one copy would let whoever can add a file hide a good statement behind a copy of it
    with spoilt signatures, or one signature more.
    """
    found: dict[tuple[Digest, tuple[Signature, ...]], Statement[P]] = {}
    for statement in statements:
        signatures = statement.envelope.signatures
        key = (statement.digest, () if statement.predicate.MANY_SIGNERS else signatures)
        known = found.get(key)
        if known is None:
            found[key] = statement
        elif not set(signatures) <= set(known.envelope.signatures):
            found[key] = _with_signatures(known, {*known.envelope.signatures, *signatures})
    return list(found.values())


def _with_signatures(statement: Statement[P], signatures: Iterable[Signature]) -> Statement[P]:
    ordered = tuple(sorted(signatures, key=lambda s: (s.keyid, s.sig)))
    envelope = msgspec.structs.replace(statement.envelope, signatures=ordered)
    return msgspec.structs.replace(statement, envelope=envelope)


def _of(kind: type[P], statements: Iterable[Statement[Predicate]]) -> tuple[Statement[P], ...]:
    # The test tells what each predicate is, and so each statement; mypy does not follow that far.
    return tuple(s for s in statements if isinstance(s.predicate, kind))  # type: ignore[misc]


#: What is here once by its bytes; statements are, by their digests and signatures.
_PLAIN = frozenset({"certificates", "crls", "unreadable", "proofs", "consistencies", "tokens"})


def merge(*heaps: Documents) -> Documents:
    """Put several heaps together, as if their files had lain in one."""
    joined: dict[str, object] = {}
    for name in (f for f in Documents.__slots__ if f != "names"):
        items = [item for heap in heaps for item in getattr(heap, name)]
        plain = name in _PLAIN
        joined[name] = tuple(dict.fromkeys(items)) if plain else tuple(_gather(items))
    names = dict(pair for heap in reversed(heaps) for pair in heap.names)
    # Each field is joined from fields of its own name, which getattr keeps from mypy.
    return Documents(**joined, names=tuple(names.items()))  # type: ignore[arg-type]
