"""The steps of a ceremony that see to recovery: shares, a key that others leave under, backups."""

from __future__ import annotations

from collections.abc import Sequence

from custody.crypto.certificates import spki_of
from custody.encoding import decode
from custody.errors import Refused
from custody.formats.ceremony import (
    AUTHORITY,
    BackUp,
    MakeWrapping,
    SplitRecovery,
    TrustKey,
    admission_name,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keybackup import KeyBackup, WrappingKey
from custody.formats.policy import ShareKey
from custody.formats.recovery import RecoveryRecord, SealedShare
from custody.formats.transcript import Told
from custody.keys.api import Token
from custody.keys.wrapapi import WrappedKey, wrapping_of
from custody.ops import admit as people
from custody.ops import backup
from custody.ops.actor import signer_of
from custody.ops.ceremony_place import NewKey, Outcome, Place
from custody.ops.folders import read_file, read_folder, read_statement_file
from custody.ops.recovery import check_share
from custody.ops.sealed_share import open_share, recipient_of
from custody.ops.transcript import MAX_FILE_BYTES
from custody.ops.trust import pin
from custody.rules.situation import Situation


def split(place: Place, step: SplitRecovery) -> Outcome:
    """Make a recovery key and hand its shares out, on paper and to tokens."""
    outcome = Outcome()
    recipients = {name: _recipient(place, outcome, name) for name in step.seal_to}
    token = place.hands.take(step.by)
    handed = place.table.split(
        step,
        environment=place.script.environment,
        token=token,
        signer=signer_of(place.home(step.by).identity(), token),
        recipients=recipients,
    )
    record = decode_statement(RecoveryRecord, handed.statement)
    for sealed in handed.sealed:
        place.put(outcome, share_name(step.epoch, sealed.holder), sealed.data)
    place.put(outcome, recovery_name(step.epoch), handed.statement)
    outcome.told.append(Told(what="the recovery record", digest=record.digest))
    outcome.said += [
        f"group {share.group + 1}, share {share.member + 1} to {share.holder}"
        f"{', sealed to his token' if share.holder in recipients else ''}"
        for share in record.predicate.shares
    ]
    return outcome


def make_wrapping(place: Place, step: MakeWrapping) -> Outcome:
    """Make the key that others leave tokens under, by shares that tokens open and people type."""
    outcome = Outcome()
    record = read_statement_file(RecoveryRecord, place.read(outcome, recovery_name(step.epoch)))
    words = []
    for name in step.opened:
        path = place.read(outcome, share_name(step.epoch, name))
        sealed = decode(SealedShare, read_file(path, max_bytes=MAX_FILE_BYTES))
        token = place.hands.take(name)
        with token.session():
            words.append(open_share(token, sealed, record))
    shares, passphrase = place.table.gather(record, words)
    token = place.hands.take(step.by)
    data = backup.make_wrapping(
        record,
        shares,
        passphrase,
        signer=signer_of(place.home(step.by).identity(), token),
        now=place.table.now(),
    )
    place.put(outcome, wrapping_name(step.epoch), data)
    made = decode_statement(WrappingKey, data)
    outcome.told.append(Told(what="the wrapping key", digest=made.digest))
    outcome.said.append(f"by the shares of {', '.join(_holders(record, shares, step))}")
    return outcome


def _holders(
    record: Statement[RecoveryRecord], shares: Sequence[str], step: MakeWrapping
) -> list[str]:
    """Say whose shares were used, and how they came."""
    names = [check_share(record, words)[0].holder for words in shares]
    return [f"{name}, {'by his token' if name in step.opened else 'typed'}" for name in names]


def trust_key(place: Place, step: TrustKey) -> Outcome:
    """Have a token's security officer trust the wrapping key."""
    outcome = Outcome()
    situation, said = _trusting(place, outcome, step.who, step.epoch)
    place.table.speak("the wrapping key", said.digest)
    place.table.confirm(f"have the token of {step.who} trust it?")
    token = place.hands.take(step.who)
    both = backup.trust_wrapping(
        token,
        said,
        situation=situation,
        so_pin=place.table.officer_pin(place.script.seat(step.who)),
    )
    outcome.keys.append(NewKey(step.who, "wrapping", said.predicate.key.spki))
    outcome.told.append(Told(what="the wrapping key", digest=said.digest))
    outcome.said.append(
        "keys of every kind can leave under it"
        if both
        else "authorities' keys cannot leave: the token makes no trusted AES keys"
    )
    return outcome


def back_up(place: Place, step: BackUp) -> Outcome:
    """Back a key up: its owner's token wraps it, a custodian signs."""
    outcome = Outcome()
    situation, said = _trusting(place, outcome, step.by, step.epoch)
    token = place.hands.take(step.who)
    with token.session():
        wrapped = _wrapped(place, outcome, step, token, said, situation)
    signing = place.hands.take(step.by)
    data = backup.state_backup(
        wrapped,
        said,
        situation=situation,
        signer=signer_of(place.home(step.by).identity(), signing),
    )
    place.put(outcome, step.file, data)
    made = decode_statement(KeyBackup, data)
    outcome.told.append(Told(what=f"the backup {step.file}", digest=made.digest))
    outcome.said.append(f"{wrapped.label}, check value {wrapped.check}")
    return outcome


def _wrapped(
    place: Place,
    outcome: Outcome,
    step: BackUp,
    token: Token,
    wrapping: Statement[WrappingKey],
    situation: Situation,
) -> WrappedKey:
    """Take the very key out that an earlier step made, by what the transcript says of it."""
    made = [key for key in place.held.progress.keys if key.person == step.who]
    if step.kek is None:
        certificate = read_file(place.read(outcome, AUTHORITY), max_bytes=MAX_FILE_BYTES)
        if not any(key.use == "ca" and key.spki == spki_of(certificate) for key in made):
            raise Refused("is not of a key that was made here", check="ceremony.keys")
        return backup.back_up_authority(
            token, wrapping, certificate=certificate, situation=situation
        )
    checks = [key.check for key in made if (key.use, key.label) == ("kek", step.kek)]
    info = wrapping_of(token).find_kek(check=checks[0] if len(checks) == 1 else None).info
    return backup.back_up_kek(token, info, wrapping, situation=situation)


def _trusting(
    place: Place, outcome: Outcome, name: str, epoch: int
) -> tuple[Situation, Statement[WrappingKey]]:
    """Judge by the policy that this ceremony made, which somebody's home trusts from here on."""
    policy = place.held.progress.policy
    if policy is None:
        raise Refused("there is no policy yet", check="ceremony.policy")
    said = read_statement_file(WrappingKey, place.read(outcome, wrapping_name(epoch)))
    documents = read_folder(place.held.folder)
    situation = pin(place.home(name), documents=documents, digest=policy, now=place.table.now())
    return situation, said


def _recipient(place: Place, outcome: Outcome, name: str) -> ShareKey:
    path = place.read(outcome, admission_name(name))
    return recipient_of(people.check(place.home(place.invited_by), path).principal)
