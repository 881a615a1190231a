"""Backups of keys in tokens: made under a recovery key, and brought back by it.  Protocol 7.

Nothing here sees a key-encryption key or an authority's key: they pass from token to token.  The
RSA key that they are wrapped under is in this process while a key comes back, and no longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import rsa

from custody.crypto.certificates import spki_of
from custody.crypto.recoverykey import derive_key
from custody.crypto.signature import sign
from custody.crypto.wrappingkey import Sealed, make_wrapping_key, opened, wrapping_proof
from custody.encoding import key_id
from custody.formats.envelope import Statement
from custody.formats.keybackup import KeyBackup, SealedWrappingKey, WrappingKey
from custody.formats.recovery import RecoveryRecord
from custody.keys.api import KeyInfo, KeyRole, PinReader, Token
from custody.keys.wrapapi import KekInfo, WrappedKey, backups_of, wrapping_of
from custody.ops.keys import Signer
from custody.ops.recovery import rebuilt_seed
from custody.ops.rewrap import check_signer
from custody.rules.keybackup import check_backup, check_wrapping
from custody.rules.situation import Situation


def make_wrapping(
    record: Statement[RecoveryRecord],
    shares: Sequence[str],
    passphrase: bytes,
    *,
    signer: Signer,
    now: datetime,
) -> bytes:
    """Make the key that others leave tokens under, by the shares of a recovery key.

    Returns the statement (``.dsse``).  One seed may seal several.
    """
    digest = bytes.fromhex(record.digest)
    with rebuilt_seed(record, shares, passphrase) as seed:
        sealed = make_wrapping_key(seed, digest)
        recovery = derive_key(seed, record.predicate.suite)
        try:
            proof = sign(recovery.key, wrapping_proof(digest, sealed.spki))
        finally:
            recovery.wipe()
    stated = WrappingKey(
        environment=record.predicate.environment,
        record=record.digest,
        key=SealedWrappingKey(spki=sealed.spki, salt=sealed.salt, sealed=sealed.sealed),
        proof=proof,
        made_at=now,
    )
    return signer.statement(stated)


def trust_wrapping(
    token: Token, wrapping: Statement[WrappingKey], *, situation: Situation, so_pin: PinReader
) -> bool:
    """Have a token's security officer trust it; say whether authorities' keys can leave too."""
    check_wrapping(wrapping, situation)
    return backups_of(token).trust(wrapping.predicate.key.spki, so_pin=so_pin)


def back_up_kek(
    token: Token, kek: KekInfo, wrapping: Statement[WrappingKey], *, situation: Situation
) -> WrappedKey:
    """Take a KEK out of its token under a wrapping key that was checked."""
    check_wrapping(wrapping, situation)
    return backups_of(token).wrap_kek(kek, wrapping.predicate.key.spki)


def back_up_authority(
    token: Token, wrapping: Statement[WrappingKey], *, certificate: bytes, situation: Situation
) -> WrappedKey:
    """Take an authority's key out of its token under a wrapping key that was checked."""
    check_wrapping(wrapping, situation)
    return backups_of(token).wrap_authority(
        _authority_key(token, certificate), wrapping.predicate.key.spki
    )


def _authority_key(token: Token, certificate: bytes) -> KeyInfo:
    wanted = key_id(spki_of(certificate))
    # `find` says what is wrong with it, where something is.
    token.find(KeyRole.CA, key_id=wanted)
    held = token.keys()
    return next(info for info in held if info.key_id == wanted)


def state_backup(
    wrapped: WrappedKey,
    wrapping: Statement[WrappingKey],
    *,
    situation: Situation,
    signer: Signer,
) -> bytes:
    """Sign blob, attributes and check value together, as a custodian: wrapping binds none."""
    check_signer(signer, situation, role="custodian")
    said = wrapping.predicate
    stated = KeyBackup(
        environment=said.environment,
        record=said.record,
        wrapping=said.key,
        role=wrapped.role,
        label=wrapped.label,
        id=wrapped.id,
        check=wrapped.check,
        spki=wrapped.spki,
        attributes=wrapped.attributes,
        oaep_hash=wrapped.oaep_hash,
        wrapped=wrapped.wrapped,
        carrier=wrapped.carrier,
        carried=wrapped.carried,
        held_in=wrapped.held_in,
        made_at=situation.now,
    )
    return signer.statement(stated)


@contextmanager
def opened_backup(
    backup: Statement[KeyBackup],
    record: Statement[RecoveryRecord],
    shares: Sequence[str],
    passphrase: bytes,
) -> Iterator[rsa.RSAPrivateKey]:
    """Give the wrapping key of a backup for the block, rebuilt from shares."""
    held = backup.predicate.wrapping
    sealed = Sealed(spki=held.spki, salt=held.salt, sealed=held.sealed)
    with (
        rebuilt_seed(record, shares, passphrase) as seed,
        opened(sealed, seed, bytes.fromhex(record.digest)) as private,
    ):
        yield private


def check_restorable(token: Token, backup: Statement[KeyBackup]) -> None:
    """Refuse what `restore` would without a share: nobody types his words to learn it.

    The statement itself is for `check_backup`.
    """
    backups_of(token).check_new(backup.predicate)


def restore(
    token: Token,
    backup: Statement[KeyBackup],
    record: Statement[RecoveryRecord],
    shares: Sequence[str],
    passphrase: bytes,
    *,
    situation: Situation,
) -> str:
    """Bring a key back into a token that has it no more; return where it is, as a URI.

    The signature is verified first, and what came back is found again as everybody else finds it.
    """
    check_backup(backup, record, situation)
    with opened_backup(backup, record, shares, passphrase) as private:
        backups_of(token).restore(backup.predicate, private)
    return found_again(token, backup.predicate)


def found_again(token: Token, said: KeyBackup) -> str:
    """Find a restored key by its check value, judged by its template as every key is."""
    if said.role == "kek":
        return str(wrapping_of(token).find_kek(id=said.id, check=said.check).info.uri)
    token.find(KeyRole.CA, id=said.id, key_id=said.check)
    held = token.keys()
    return str(next(info.uri for info in held if info.key_id == said.check))
