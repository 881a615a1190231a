"""A drill: a recovery done to the end and forgotten, to learn today what would fail then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from custody.crypto.recoverykey import RecoveryKeyPair
from custody.crypto.slip39 import Mnemonic, missing_shares
from custody.errors import CustodyError, Malformed, Refused, Unavailable
from custody.formats.envelope import Statement
from custody.formats.keybackup import KeyBackup
from custody.formats.manifest import Manifest
from custody.formats.recovery import RecoveryRecord
from custody.keys.api import Token
from custody.ops.backup import check_restorable, restore
from custody.ops.break_glass import check_breakable, rewrap
from custody.ops.recovery import check_record, next_share, rebuilt_key
from custody.rules.keybackup import check_backup
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict

#: Makes an empty token, for the block of a ``with``.
NewToken = Callable[[], AbstractContextManager[Token]]


def drill(
    record: Statement[RecoveryRecord],
    shares: Sequence[str],
    passphrase: bytes,
    bundles: Sequence[Statement[Manifest]],
    *,
    situation: Situation,
    backups: Sequence[Statement[KeyBackup]] = (),
    new_token: NewToken | None = None,
) -> tuple[Verdict, ...]:
    """Judge each share, rebuild the key, and re-wrap each bundle into nothing.

    Each of ``backups`` is brought back into a token that ``new_token`` makes and throws away.  No
    failure ends the drill before everything that can still be tried was tried.
    """
    ledger = Ledger(subject=f"recovery key {record.predicate.epoch}")
    with ledger.failing("drill.policy"):
        check_record(record, situation.trusted.policy.recovery)
        ledger.add("drill.policy", True, "the policy in force names this recovery key")
    _check_shares(record, shares, ledger)
    try:
        with rebuilt_key(record, shares, passphrase) as key:
            ledger.add(
                "drill.key", True, "the shares rebuild the key whose public half is recorded"
            )
            for manifest in bundles:
                _check_bundle(manifest, key, record, situation, ledger)
    except CustodyError as error:
        ledger.add("drill.key", False, _said(error))
        for _ in bundles:
            ledger.skip("drill.bundle", "there is no key to open it by")
    for backup in backups:
        _check_backup(backup, record, shares, passphrase, situation, new_token, ledger)
    return ledger.done()


def foresee(
    record: Statement[RecoveryRecord],
    bundles: Sequence[Statement[Manifest]],
    *,
    situation: Situation,
    backups: Sequence[Statement[KeyBackup]] = (),
    new_token: NewToken | None = None,
) -> tuple[Verdict, ...]:
    """Return what is known to fail before anybody types a word; empty where nothing is."""
    ledger = Ledger(subject=f"recovery key {record.predicate.epoch}")
    with ledger.failing("drill.policy"):
        check_record(record, situation.trusted.policy.recovery)
    for manifest in bundles:
        try:
            check_breakable(manifest, record, situation, site=_any_site(situation))
        except CustodyError as error:
            ledger.add("drill.bundle", False, _of_bundle(manifest, error))
    for backup in backups:
        try:
            check_backup(backup, record, situation)
            with _thrown_away(new_token) as token, token.session():
                check_restorable(token, backup)
        except CustodyError as error:
            ledger.add("drill.backup", False, f"{_name(backup)}: {_said(error)}")
    return ledger.failed


def _any_site(situation: Situation) -> str | None:
    """Return some site of the policy: for which makes no difference to what could fail."""
    return next((site.id for site in situation.trusted.policy.sites), None)


def _thrown_away(new_token: NewToken | None) -> AbstractContextManager[Token]:
    if new_token is None:
        raise Unavailable("there is no throw-away token to bring it into")
    return new_token()


def _name(backup: Statement[KeyBackup]) -> str:
    return f"{backup.predicate.role} {backup.predicate.label!r}"


def _of_bundle(manifest: Statement[Manifest], error: CustodyError) -> str:
    return f"manifest {manifest.digest[:16]}…: {_said(error)}"


def _check_backup(
    backup: Statement[KeyBackup],
    record: Statement[RecoveryRecord],
    shares: Sequence[str],
    passphrase: bytes,
    situation: Situation,
    new_token: NewToken | None,
    ledger: Ledger,
) -> None:
    said = backup.predicate
    name = _name(backup)
    try:
        check_backup(backup, record, situation)
        with _thrown_away(new_token) as token, token.session():
            restore(token, backup, record, shares, passphrase, situation=situation)
        ledger.add(
            "drill.backup",
            True,
            f"{name} comes back into another token, with check value "
            f"{said.check[:16]}… and the attributes it had",
        )
    except CustodyError as error:
        ledger.add("drill.backup", False, f"{name}: {_said(error)}")


def _check_shares(record: Statement[RecoveryRecord], shares: Sequence[str], ledger: Ledger) -> None:
    have: list[Mnemonic] = []
    for number, text in enumerate(shares, 1):
        try:
            share, mnemonic = next_share(record, have, text)
        except CustodyError as error:
            ledger.add("drill.share", False, f"share {number}: {error.reason}")
            continue
        have.append(mnemonic)
        ledger.add("drill.share", True, f"{mnemonic.place} is what {share.holder} was handed")
    missing = missing_shares(have)
    ledger.add(
        "drill.enough",
        not missing,
        "the good shares are enough",
        otherwise=f"missing: {', '.join(missing)}",
    )


def _check_bundle(
    manifest: Statement[Manifest],
    key: RecoveryKeyPair,
    record: Statement[RecoveryRecord],
    situation: Situation,
    ledger: Ledger,
) -> None:
    site = _any_site(situation)
    try:
        check_breakable(manifest, record, situation, site=site)
        made = rewrap(manifest, key, situation=situation, token_random=None, site=site)
        people = {slot.recipient for slot in made.envelope.slots if slot.purpose == "share"}
        ledger.add(
            "drill.bundle",
            bool(people),
            f"manifest {manifest.digest[:16]}… opens, and can be sealed to {len(people)} keys of "
            "officers in force",
            otherwise="nobody can be sealed to",
        )
    except (Refused, Malformed) as error:
        ledger.add("drill.bundle", False, _of_bundle(manifest, error))


def _said(error: CustodyError) -> str:
    missing = getattr(error, "missing", ())
    hint = f" ({error.hint})" if error.hint else ""
    return f"{error}{': ' if missing else ''}{', '.join(missing)}{hint}"
