"""Shares of a recovery key that are on no paper: each sealed to a key in its holder's token.

The words are in this process while they are sealed, and again while they are used.  What comes out
of a token is held against the record like words that were typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from custody.crypto.keyslots import open as open_slot
from custody.crypto.keyslots import seal
from custody.crypto.secret import wipe
from custody.encoding import encode, key_id
from custody.errors import Malformed, Refused
from custody.formats.envelope import Statement
from custody.formats.policy import Principal, ShareKey
from custody.formats.recovery import RecoveryRecord, SealedShare, share_info
from custody.keys.api import KeyRole, Token
from custody.ops.recovery import HandedShare, MadeRecovery, check_share


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One holder's share, as it is written."""

    holder: str
    data: bytes = field(repr=False)


def recipient_of(person: Principal) -> ShareKey:
    """Return the key that a person's share is sealed to: the one that his token alone opens by.

    The ML-KEM half of a hybrid lies on his machine, and a share is used on another.
    """
    keys = [
        key for key in person.keys if isinstance(key, ShareKey) and key.suite in ("P256", "P384")
    ]
    if not keys:
        raise Refused(
            f"{person.id} offers no key in his token that a share can be sealed to",
            check="recovery.seal-to",
            hint="he enrols with --share-key",
        )
    return keys[0]


def seal_shares(
    made: MadeRecovery, recipients: Mapping[str, ShareKey]
) -> tuple[tuple[SealedFile, ...], tuple[HandedShare, ...]]:
    """Seal the shares of those who have a key for it; return these, and who is handed paper.

    A recipient who holds no share is `Refused` (``recovery.seal-to``).
    """
    holders = {handed.share.holder for handed in made.shares}
    strangers = sorted(set(recipients) - holders)
    if strangers:
        raise Refused(f"{strangers[0]} holds no share", check="recovery.seal-to")
    sealed = tuple(
        SealedFile(handed.share.holder, _seal(made.record, handed, recipients[handed.share.holder]))
        for handed in made.shares
        if handed.share.holder in recipients
    )
    paper = tuple(handed for handed in made.shares if handed.share.holder not in recipients)
    return sealed, paper


def _seal(record: Statement[RecoveryRecord], handed: HandedShare, key: ShareKey) -> bytes:
    share, recipient = handed.share, key_id(key.spki)
    suite = key.suite
    if suite not in ("P256", "P384"):
        raise Malformed("a share is sealed to an EC key that is wholly in a token")
    words = bytearray(" ".join(handed.words.split()).encode("ascii"))
    info = share_info(record.digest, share.group, share.member, recipient)
    try:
        sealed = seal(suite, key.spki, None, words, info=info)
    finally:
        wipe(words)
    return encode(
        SealedShare(
            kind="custody/sealed-share/v1",
            record=record.digest,
            group=share.group,
            member=share.member,
            holder=share.holder,
            suite=suite,
            recipient=recipient,
            sealed=sealed,
        )
    )


def open_share(token: Token, sealed: SealedShare, record: Statement[RecoveryRecord]) -> str:
    """Open a share by its holder's token; return its words, checked against the record.

    `Refused`: ``recovery.set`` for a share of another record, ``slot.open`` for one that was
    changed, and what `check_share` says of its words.  A token without the key: `Unavailable`.
    """
    if sealed.record != record.digest:
        raise Refused(
            "is a share of another recovery key", check="recovery.set", where=sealed.holder
        )
    key = token.find(KeyRole.SHARE, key_id=sealed.recipient)
    info = share_info(sealed.record, sealed.group, sealed.member, sealed.recipient)
    words = bytearray(open_slot(sealed.suite, key, None, sealed.sealed, info=info))
    try:
        text = words.decode("ascii", "replace")
    finally:
        wipe(words)
    share, _ = check_share(record, text)
    if (share.group, share.member) != (sealed.group, sealed.member):
        raise Refused("holds the words of another share", check="recovery.share")
    return text
