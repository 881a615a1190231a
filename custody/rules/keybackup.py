"""Whose word it is that a key was backed up, and that keys may leave under another.  keybackup.md.

Anybody can wrap a key of his own under a public key, and have it restored: what vouches for a
backup is a custodian's signature, and nothing that the wrapping itself could show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from custody.crypto.certificates import spki_of
from custody.crypto.signature import verify
from custody.crypto.wrappingkey import load_wrapping_public, wrapping_proof
from custody.errors import Malformed, Refused
from custody.formats.envelope import Statement
from custody.formats.keybackup import BackedUpRole, KeyBackup, WrappingKey
from custody.formats.policy import Policy
from custody.formats.recovery import RecoveryRecord
from custody.rules.certificates import check_certificate
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import check_author, signatory
from custody.rules.verdicts import Verdict, passed, require


def check_wrapping(wrapping: Statement[WrappingKey], situation: Situation) -> None:
    """Refuse a wrapping key that no custodian stated for the recovery key of the policy in force.

    Whoever could bring one of his own would be handed the next backup, so the custodian's
    certificate must hold today as well; and the recovery key itself must have signed it, for
    which it takes enough shares: one custodian could state a key that he keeps.
    """
    policy, said = situation.trusted.policy, wrapping.predicate
    keyid, _, verdicts = check_author(
        wrapping, policy, role="custodian", check="backup", subject="wrapping key"
    )
    require(verdicts)
    found = signatory(policy, keyid, "custodian")
    if found is not None:
        require(check_key(*found, situation))
    if policy.recovery is None or policy.recovery.record != said.record:
        raise Refused(
            "is not of the recovery key that the policy names",
            check="recovery.record",
            hint="custody custodian recovery wrapping-key makes one",
        )
    if said.environment != policy.environment:
        raise Refused("is of another environment", check="backup.environment")
    load_wrapping_public(said.key.spki)
    try:
        verify(
            policy.recovery.spki,
            wrapping_proof(bytes.fromhex(said.record), said.key.spki),
            said.proof,
        )
    except (Malformed, Refused) as error:
        raise Refused(
            "was not made with the shares of the recovery key: a custodian alone states it",
            check="backup.proof",
        ) from error


#: What every key that can be backed up is; `restore` compares the whole template besides.
_OF_ALL: Mapping[str, str] = {
    **dict.fromkeys(("TOKEN", "PRIVATE", "SENSITIVE", "EXTRACTABLE", "WRAP_WITH_TRUSTED"), "true"),
    **dict.fromkeys(("COPYABLE", "DECRYPT", "DERIVE"), "false"),
}
_OF_ROLE: Mapping[BackedUpRole, Mapping[str, str]] = {
    "kek": {
        "CLASS": "SECRET_KEY",
        "KEY_TYPE": "AES",
        **dict.fromkeys(("WRAP", "UNWRAP"), "true"),
        **dict.fromkeys(("ENCRYPT", "SIGN", "VERIFY"), "false"),
    },
    "ca": {"CLASS": "PRIVATE_KEY", "KEY_TYPE": "EC", "SIGN": "true", "UNWRAP": "false"},
}


def attributes_fault(said: KeyBackup) -> str:
    """Say which attributes of a backup are no key's of its role, name and id; or nothing."""
    wanted = {"LABEL": said.label, "ID": said.id.hex(), **_OF_ALL, **_OF_ROLE[said.role]}
    told = {item.name: item.value for item in said.attributes}
    wrong = sorted(name for name, value in wanted.items() if told.get(name) != value)
    return f"attributes of no such key: {', '.join(wrong)}" if wrong else ""


def check_backup(
    backup: Statement[KeyBackup], record: Statement[RecoveryRecord], situation: Situation
) -> str:
    """Refuse a backup that no custodian signed, or of another recovery key; return who signed it.

    A custodian of an earlier version counts: backups outlive who made them.  One whose key was
    revoked by then does not.
    """
    said, versions = backup.predicate, situation.trusted.versions
    who = _author(backup, versions, situation)
    if said.record != record.digest:
        raise Refused(
            "was made for another recovery key than that of the record",
            check="backup.record",
            hint=f"its record has the digest {said.record}",
        )
    if said.environment != situation.trusted.policy.environment:
        raise Refused("is of another environment", check="backup.environment")
    named = {policy.recovery.record for policy in versions if policy.recovery is not None}
    if record.digest not in named:
        raise Refused(
            "is not the record that the policy names",
            check="recovery.record",
            hint="custody custodian policy show names the digest of the right one",
        )
    listed = {spki_of(cert) for policy in versions for cert in policy.authorities}
    if said.role == "ca" and said.spki not in listed:
        raise Refused("is the key of an authority that no policy lists", check="backup.authority")
    load_wrapping_public(said.wrapping.spki)
    return who


def _author(backup: Statement[KeyBackup], versions: Sequence[Policy], situation: Situation) -> str:
    judged: list[tuple[Verdict, ...]] = []
    for policy in reversed(versions):
        keyid, name, verdicts = check_author(
            backup, policy, role="custodian", check="backup", subject="key backup"
        )
        if not passed(verdicts):
            # What a bad signature of somebody known says is worth more than that he is not known.
            judged.insert(0 if name else len(judged), verdicts)
            continue
        found = signatory(policy, keyid, "custodian")
        if found is not None and _revoked(found[1].spki, name, backup, situation):
            raise Refused(
                f"the key of {name} was revoked when this was signed",
                check="backup.revoked",
                hint="a backup that another custodian signed",
            )
        return name
    require(judged[0])
    raise AssertionError("internal: a failed verdict raises")


def _revoked(spki: bytes, name: str, backup: Statement[KeyBackup], situation: Situation) -> bool:
    """Say whether a list proves that a key was revoked at the time a backup claims."""
    versions = situation.trusted.versions
    verdicts = check_certificate(
        spki,
        use="sign",
        principal=name,
        certificates=situation.documents.certificates,
        authorities=tuple({cert: None for policy in versions for cert in policy.authorities}),
        crls=situation.documents.crls,
        crl_floor=situation.crl_floor,
        crl_max_age_seconds=situation.trusted.policy.limits.crl_max_age_seconds,
        moment=backup.predicate.made_at,
    )
    return any((v.check, v.outcome) == ("certificate.revoked", "fail") for v in verdicts)
