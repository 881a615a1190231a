"""The recovery key of an environment: made and split, shares checked, rebuilt.  Protocol section 7.

Words are handed out and taken back by whoever calls; nothing here writes them anywhere.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from custody.crypto.keyslots import HpkeSuite
from custody.crypto.quorum import Node, leaves, minimal_sets
from custody.crypto.recoverykey import SEED_BYTES, RecoveryKeyPair, derive_key
from custody.crypto.secret import fresh_secret, wipe
from custody.crypto.slip39 import (
    ITERATION_EXPONENT,
    Mnemonic,
    check_together,
    combine_seed,
    read_mnemonic,
    split_seed,
)
from custody.errors import Malformed, Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.policy import RecoveryKey
from custody.formats.recovery import RecoveryRecord, RecoveryShare, share_digest, share_set
from custody.ops.keys import Signer, TokenRandom
from custody.ops.wellformed import check_name, well_formed
from custody.rules.recovery import needed_fault, shares_fault


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOrder:
    """What the custodians decide: whose shares, of which strength, and whether a passphrase."""

    environment: str
    epoch: int
    suite: HpkeSuite
    among: Node
    passphrase: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedShare:
    """One person's words, to be shown to him alone."""

    share: RecoveryShare
    words: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRecovery:
    """A new recovery key: what is published, and what is handed out."""

    statement: bytes
    record: Statement[RecoveryRecord]
    shares: tuple[HandedShare, ...] = field(repr=False)


def check_splits(among: Node) -> None:
    """Refuse what cannot be split, one person could rebuild, or one lost share would end.

    By the ids of the checks that every policy makes of it: ``policy.recovery-shares``,
    ``policy.recovery-living``.
    """
    fault = shares_fault(among)
    if fault:
        raise Refused(f"recovery shares: {fault}", check="policy.recovery-shares")
    fault = needed_fault(among)
    if fault:
        raise Refused(
            fault,
            check="policy.recovery-living",
            hint="no policy takes such a key: a lower threshold, or one more holder",
        )


def make_recovery(
    order: RecoveryOrder, *, signer: Signer, token_random: TokenRandom | None, now: datetime
) -> MadeRecovery:
    """Draw a seed, split it, and state what was made; the seed itself is forgotten.

    The key is rebuilt from every minimal set of shares first.  A set that SLIP-0039 cannot split,
    or that one person could rebuild, is `Refused` (``policy.recovery-shares``).
    """
    check_name(order.environment)
    check_splits(order.among)
    wanted = share_set(order.among)
    seed = fresh_secret(SEED_BYTES, token_random)
    try:
        key = derive_key(seed, order.suite)
        groups = split_seed(
            seed,
            group_threshold=wanted.threshold,
            groups=[(group.threshold, len(group.holders)) for group in wanted.groups],
            passphrase=order.passphrase,
        )
        _check_every_way(order, groups, seed)
    finally:
        wipe(seed)
    shares = tuple(
        _hand(at, member, holder, groups[at][member])
        for at, group in enumerate(wanted.groups)
        for member, holder in enumerate(group.holders)
    )
    record = well_formed(
        RecoveryRecord(
            author=signer.key_id,
            environment=order.environment,
            epoch=order.epoch,
            suite=order.suite,
            spki=key.spki,
            mlkem=key.mlkem,
            set_id=read_mnemonic(groups[0][0]).set_id,
            iteration_exponent=ITERATION_EXPONENT,
            passphrase=bool(order.passphrase),
            among=order.among,
            shares=tuple(handed.share for handed in shares),
            made_at=now,
        )
    )
    key.wipe()
    data = signer.statement(record)
    return MadeRecovery(
        statement=data, record=decode_statement(RecoveryRecord, data), shares=shares
    )


def _hand(group: int, member: int, holder: str, words: str) -> HandedShare:
    salt = os.urandom(32)
    share = RecoveryShare(
        group=group, member=member, holder=holder, salt=salt, digest=share_digest(salt, words)
    )
    return HandedShare(share=share, words=words)


def _check_every_way(
    order: RecoveryOrder, groups: Sequence[Sequence[str]], seed: bytearray
) -> None:
    """Rebuild the seed from every minimal set: shares that do not fit would be found too late."""
    words = [words for group in groups for words in group]
    by_path = dict(zip((leaf.path for leaf in leaves(order.among)), words, strict=True))
    for way in minimal_sets(order.among):
        again = combine_seed([read_mnemonic(by_path[path]) for path in way], order.passphrase)
        try:
            if not hmac.compare_digest(again, seed):
                raise AssertionError("internal: a set of shares rebuilds another seed")
        finally:
            wipe(again)


def check_share(record: Statement[RecoveryRecord], text: str) -> tuple[RecoveryShare, Mnemonic]:
    """Check one share by itself, against what was recorded of it.

    `Refused`: what `read_mnemonic` says of the words; ``recovery.set`` of another set;
    ``recovery.share`` for words that were never handed out.
    """
    mnemonic = read_mnemonic(text)
    known = record.predicate
    groups = share_set(known.among)
    if (mnemonic.set_id, mnemonic.extendable, mnemonic.iteration_exponent) != (
        known.set_id,
        True,
        known.iteration_exponent,
    ):
        raise Refused(
            f"is a share of set {mnemonic.set_id}, not of set {known.set_id}",
            check="recovery.set",
            hint="it may be of an earlier recovery key: look at the paper's date",
        )
    share = known.share(mnemonic.group, mnemonic.member)
    fits = (
        share is not None
        and mnemonic.group_threshold == groups.threshold
        and mnemonic.group_count == len(groups.groups)
        and mnemonic.member_threshold == groups.groups[mnemonic.group].threshold
        and share.matches(mnemonic.words)
    )
    if share is None or not fits:
        raise Refused(
            f"says that it is {mnemonic.place}, but is not what was handed out as that",
            check="recovery.share",
        )
    return share, mnemonic


def check_record(record: Statement[RecoveryRecord], key: RecoveryKey | None) -> None:
    """Refuse a record that is not the one a policy names."""
    if key is None or key.record != record.digest:
        raise Refused(
            "is not the record that the policy names",
            check="recovery.record",
            hint="custody custodian policy show names the digest of the right one",
        )


def next_share(
    record: Statement[RecoveryRecord], have: Sequence[Mnemonic], text: str
) -> tuple[RecoveryShare, Mnemonic]:
    """Check one more share beside those that are here; `Refused` as `check_share`, or a second."""
    share, mnemonic = check_share(record, text)
    check_together((*have, mnemonic))
    return share, mnemonic


@contextmanager
def rebuilt_seed(
    record: Statement[RecoveryRecord], shares: Sequence[str], passphrase: bytes
) -> Iterator[bytearray]:
    """Give the seed for the block, rebuilt from words; it is wiped when the block ends.

    Every share is checked by itself first, so that a bad one is named.  A seed whose public key is
    not the recorded one is `Refused` (``recovery.key``): with good shares it is the passphrase.
    """
    known = record.predicate
    if bool(passphrase) != known.passphrase:
        raise Malformed(
            "this recovery key has a passphrase" if known.passphrase else "there is no passphrase"
        )
    have: list[Mnemonic] = []
    for number, text in enumerate(shares, 1):
        try:
            have.append(next_share(record, have, text)[1])
        except (Refused, Malformed) as error:
            error.where = f"share {number}"
            raise
    seed = combine_seed(have, passphrase)
    try:
        key = derive_key(seed, known.suite)
        # Before it is wiped: the public half of ML-KEM is made of the seed anew.
        same = key.key_id == known.key_id
        key.wipe()
        if not same:
            raise Refused(
                "the passphrase is wrong"
                if known.passphrase
                else "these shares rebuild another key",
                check="recovery.key",
                hint="the public key made of it is not the recorded one",
            )
        yield seed
    finally:
        wipe(seed)


@contextmanager
def rebuilt_key(
    record: Statement[RecoveryRecord], shares: Sequence[str], passphrase: bytes
) -> Iterator[RecoveryKeyPair]:
    """Give the recovery key for the block, as `rebuilt_seed` does its seed."""
    with rebuilt_seed(record, shares, passphrase) as seed:
        key = derive_key(seed, record.predicate.suite)
        try:
            yield key
        finally:
            key.wipe()
