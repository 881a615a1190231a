"""Whether a ceremony's authority, log, recovery key and backups are the keys of its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from custody.crypto.certificates import (
    certificate_signed_by,
    crl_signed_by,
    read_certificate,
    read_crl,
    spki_of,
)
from custody.crypto.notekeys import KeyKind, NoteKey
from custody.crypto.signature import verify
from custody.crypto.wrappingkey import load_wrapping_public, wrapping_proof
from custody.encoding import key_id, sha256
from custody.errors import Malformed, Refused
from custody.formats.ceremony import (
    AUTHORITY,
    CRL,
    BackUp,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    MakeWrapping,
    SplitRecovery,
    TrustKey,
    admission_name,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.envelope import Statement
from custody.formats.keybackup import WRAPPING_LABEL, KeyBackup, WrappingKey, wrapping_id
from custody.formats.recovery import RecoveryRecord, SealedShare
from custody.formats.transcript import Done, KeyUse, Line, UsedToken
from custody.rules.ceremony import plain
from custody.rules.ceremony_seen import Seen, common_name, differing, made_of, naming, telling
from custody.rules.keybackup import attributes_fault


def founded(step: MakeAuthority, event: Done, seen: Seen) -> Iterator[str]:
    """Say what is wrong with the authority's certificate and first list."""
    der = seen.data(AUTHORITY)
    with naming(AUTHORITY):
        certificate = read_certificate(der)
    with naming(CRL):
        crl = read_crl(seen.data(CRL))
    seen.authority = der
    (made,) = made_of(event, "ca")
    yield from differing(
        AUTHORITY, ("key", spki_of(der), made.spki), ("name", common_name(der), step.name)
    )
    yield from differing("the key", ("label", made.label, plain(step.name)))
    if not certificate_signed_by(certificate, der):
        yield f"{AUTHORITY} is not signed by its own key"
    if not crl_signed_by(crl, der):
        yield f"{CRL} is not of the authority"
    yield from telling(event, sha256(der).hex())


def log_made(step: MakeLogKey, event: Done) -> Iterator[str]:
    """Say what is wrong with the record of a log's key."""
    (made,) = made_of(event, "log")
    key = NoteKey(name=step.origin, kind=KeyKind.ECDSA, public=made.spki or b"")
    yield from differing("the key", ("label", made.label, plain(step.label)))
    yield from telling(event, sha256(key.vkey.encode()).hex())


def kek_made(step: MakeKek, event: Done) -> Iterator[str]:
    """Say what is wrong with the record of a key-encryption key."""
    (made,) = made_of(event, "kek")
    yield from differing("the key", ("label", made.label, plain(step.label)))
    yield from telling(event, made.key_id)


def split(step: SplitRecovery, event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Say what is wrong with a recovery record and the shares that were sealed."""
    name = recovery_name(step.epoch)
    statement = seen.statement(RecoveryRecord, name)
    said = statement.predicate
    seen.records[step.epoch] = statement
    yield from seen.signing(statement, name, step.by)
    yield from differing(
        name,
        ("environment", said.environment, seen.script.environment),
        ("author", said.author, statement.envelope.signatures[0].keyid),
        ("epoch", said.epoch, step.epoch),
        ("suite", said.suite, step.suite),
        ("passphrase", said.passphrase, step.passphrase),
        ("set of holders", said.among, step.tree),
    )
    yield from seen.timely(name, said.made_at, line)
    yield from telling(event, statement.digest)
    for holder in step.seal_to:
        yield from _sealed(step, holder, statement, seen)


def _sealed(
    step: SplitRecovery, holder: str, record: Statement[RecoveryRecord], seen: Seen
) -> Iterator[str]:
    """Hold a sealed share to the record, and to a key that its holder enrolled here."""
    name = share_name(step.epoch, holder)
    said = seen.record(SealedShare, name)
    place = next(((s.group, s.member) for s in record.predicate.shares if s.holder == holder), None)
    admission = seen.admissions.get(admission_name(holder))
    shares = () if admission is None else admission.predicate.shares
    yield from differing(
        name,
        ("record", said.record, record.digest),
        ("holder", said.holder, holder),
        ("place", (said.group, said.member), place),
        (
            "recipient",
            (said.recipient, said.suite) in {(key_id(s.spki), s.suite) for s in shares},
            True,
        ),
    )


def wrapping_made(step: MakeWrapping, event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Say what is wrong with a wrapping key's statement."""
    name, record = wrapping_name(step.epoch), seen.recovery(step.epoch)
    statement = seen.statement(WrappingKey, name)
    said = statement.predicate
    seen.wrappings[step.epoch] = statement
    yield from seen.signing(statement, name, step.by)
    yield from differing(
        name,
        ("environment", said.environment, seen.script.environment),
        ("recovery record", said.record, record.digest),
    )
    with naming(name):
        load_wrapping_public(said.key.spki)
    proof = wrapping_proof(bytes.fromhex(record.digest), said.key.spki)
    try:
        verify(record.predicate.spki, proof, said.proof)
    except (Malformed, Refused):
        yield f"{name} was not made with the shares of the recovery key"
    yield from seen.timely(name, said.made_at, line)
    yield from telling(event, statement.digest)


def trusted(step: TrustKey, event: Done, seen: Seen) -> Iterator[str]:
    """Hold the key that a token trusts to the wrapping key that was stated."""
    wrapping = seen.wrapping(step.epoch)
    (made,) = made_of(event, "wrapping")
    spki = wrapping.predicate.key.spki
    name = wrapping_name(step.epoch)
    if made.spki != spki:
        yield f"the token of {step.who} trusts another key than that of {name}"
    yield from differing(
        "the trusted key",
        ("person", made.person, step.who),
        ("label", made.label, WRAPPING_LABEL),
        ("id", made.id, wrapping_id(spki).hex()),
    )
    yield from telling(event, wrapping.digest)


def backed_up(step: BackUp, event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Hold a backup to the very key that an earlier step made, and to the token it lies in."""
    statement = seen.statement(KeyBackup, step.file)
    said, wrapping = statement.predicate, seen.wrapping(step.epoch)
    use: KeyUse = "ca" if step.kek is None else "kek"
    of_his = (k for k in seen.progress.keys if (k.person, k.use) == (step.who, use))
    made = [key for key in of_his if step.kek is None or key.label == plain(step.kek)]
    yield from seen.signing(statement, step.file, step.by)
    if len(made) != 1:
        yield f"{step.file} is of no one key that was made here"
        return
    yield from differing(
        step.file,
        ("environment", said.environment, seen.script.environment),
        ("recovery record", said.record, seen.recovery(step.epoch).digest),
        ("wrapping key", said.wrapping, wrapping.predicate.key),
        ("role", said.role, use),
        ("label", plain(said.label), made[0].label),
        ("id", said.id.hex(), made[0].id),
        ("check value", said.check, made[0].key_id),
        ("public key", said.spki, made[0].spki),
        ("token", _held_in(said), _identity(event.tokens, step.who)),
    )
    fault = attributes_fault(said)
    if fault:
        yield f"{step.file}: {fault}"
    yield from seen.timely(step.file, said.made_at, line)
    yield from telling(event, statement.digest)


def _held_in(said: KeyBackup) -> tuple[str, ...]:
    held = said.held_in
    return tuple(map(plain, (held.label, held.manufacturer, held.model, held.serial)))


def _identity(tokens: Sequence[UsedToken], person: str) -> tuple[str, ...] | None:
    return next((token.identity for token in tokens if token.person == person), None)
