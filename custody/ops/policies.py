"""Policies: drafted by one custodian, signed by as many as the root threshold asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path

from custody.crypto.certificates import spki_of
from custody.encoding import Digest, KeyId, key_id
from custody.errors import Incomplete, Refused
from custody.formats.envelope import Signature, Statement, encode_statement, statement_digest
from custody.formats.logpolicy import MAX_POLICY_BYTES, canonical_lines, decode_log_policy
from custody.formats.policy import HostRequirements, Limits, Policy, Principal, RecoveryKey
from custody.formats.policy_draft import MAX_DRAFT_BYTES, Draft, decode_draft
from custody.formats.policy_text import parse_quorum
from custody.formats.recovery import RecoveryRecord
from custody.ops.folders import read_file, read_statement_file, reading
from custody.ops.keys import Signer
from custody.ops.pem import read_certificate_file
from custody.ops.policy_words import describe, describe_changes
from custody.ops.wellformed import well_formed
from custody.rules.policy import check_policy
from custody.rules.trust import Signed, check_step, count_signers, signatory
from custody.rules.verdicts import Verdict, require

_HOUR = 3600
_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyView:
    """A policy in words: what it says, what changed, who signed it."""

    policy: Policy
    digest: Digest
    words: tuple[str, ...]
    changes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    signed: tuple[tuple[str, Signed], ...]
    """By the custodians of each version that has a say: a label, and who of them signed."""

    @property
    def complete(self) -> bool:
        """Whether every root threshold is met."""
        return not any(signed.missing for _, signed in self.signed)


def read_draft(path: Path) -> Draft:
    """Read a draft file."""
    with reading(path):
        return decode_draft(read_file(path, max_bytes=MAX_DRAFT_BYTES))


def build_policy(
    draft: Draft,
    *,
    folder: Path,
    people: Sequence[Principal],
    previous: Statement[Policy] | None,
    now: datetime,
) -> Policy:
    """Make the policy a draft describes.

    ``folder`` holds the files the draft names, ``people`` come from checked admissions and add to
    those of ``previous``.  An unsound policy is `Refused` with the first check that fails.
    """
    old = previous.predicate if previous else None
    if old is not None and old.environment != draft.environment:
        raise Refused("the previous version is of another environment", check="policy.environment")
    principals = _gather(old.principals if old else (), people, draft)
    if not principals:
        raise Incomplete(
            "nobody would be in it",
            missing=("the admissions of its people",),
            hint="name the admissions: *.admission.dsse",
        )
    policy = well_formed(
        Policy(
            environment=draft.environment,
            genesis=None if previous is None else (previous.predicate.genesis or previous.digest),
            version=1 if old is None else old.version + 1,
            issued_at=now,
            expires_at=datetime.combine(draft.expires, time(), UTC),
            principals=principals,
            token_classes=draft.token_classes,
            authorities=_certificates(folder, draft.authorities),
            quorum=parse_quorum(draft.quorum),
            thresholds=draft.thresholds,
            host=HostRequirements(
                bank="sha256",
                pcrs=draft.host.pcrs,
                trust_classes=draft.host.trust_classes,
                vendor_roots=_certificates(folder, draft.host.vendor_roots),
                event_log=draft.host.event_log,
                vendor_crls=_key_ids(_certificates(folder, draft.host.vendor_crls)),
                further=tuple(sorted(set(draft.host.further))),
            ),
            limits=Limits(
                request_window_seconds=draft.limits.request_window_hours * _HOUR,
                approval_seconds=draft.limits.approval_hours * _HOUR,
                crl_max_age_seconds=draft.limits.crl_max_age_days * _DAY,
            ),
            modes=draft.modes,
            part_digest=draft.part_digest,
            weakest_suite=draft.weakest_suite,
            self_approval=draft.self_approval,
            withdrawn=tuple(sorted({*draft.withdrawn, *(old.withdrawn if old else ())})),
            logged=None if draft.logged is None else _log_lines(folder / draft.logged),
            recovery=None if draft.recovery is None else _recovery(folder / draft.recovery),
        )
    )
    require(check_policy(policy))
    return policy


def _key_ids(certificates: Iterable[bytes]) -> tuple[KeyId, ...]:
    return tuple(sorted({key_id(spki_of(der)) for der in certificates}))


def _gather(
    old: Iterable[Principal], new: Iterable[Principal], draft: Draft
) -> tuple[Principal, ...]:
    """Put people together: who leaves goes, who comes again brings another token or role."""
    people: dict[str, Principal] = {}
    for person in (*old, *new):
        if person.id in draft.leaving.principals:
            continue
        known = people.get(person.id)
        people[person.id] = person if known is None else _join(known, person)
    gone = set(draft.leaving.keys)
    kept = (
        Principal(
            id=person.id,
            name=person.name,
            roles=person.roles,
            keys=tuple(k for k in person.keys if not {k.key_id, key_id(k.spki)} & gone),
        )
        for person in people.values()
    )
    return tuple(sorted((p for p in kept if p.keys), key=lambda person: person.id))


def _join(known: Principal, more: Principal) -> Principal:
    ids = {key.key_id for key in known.keys}
    return Principal(
        id=known.id,
        name=more.name,
        roles=known.roles + tuple(role for role in more.roles if role not in known.roles),
        keys=known.keys + tuple(key for key in more.keys if key.key_id not in ids),
    )


def _certificates(folder: Path, names: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(read_certificate_file(folder / name) for name in names)


def _log_lines(path: Path) -> tuple[str, ...]:
    with reading(path):
        data = read_file(path, max_bytes=MAX_POLICY_BYTES)
        decode_log_policy(data)
        return canonical_lines(data)


def _recovery(path: Path) -> RecoveryKey:
    # Who signs the policy signs for this key; what the record is for is checking shares by it.
    statement = read_statement_file(RecoveryRecord, path)
    return statement.predicate.in_policy(statement.digest)


def propose(policy: Policy, *, signer: Signer, previous: Statement[Policy] | None) -> bytes:
    """Sign a new policy as its first custodian; returns the ``.dsse``."""
    _check_sound(policy, previous)
    _check_custodian(signer, policy, previous)
    return signer.statement(policy)


def check_unsigned(statement: Statement[Policy], key: KeyId) -> None:
    """Refuse a policy that a key has signed already."""
    if any(signature.keyid == key for signature in statement.envelope.signatures):
        raise Refused("this key has signed it already", check="policy.signed")


def add_signature(
    statement: Statement[Policy],
    *,
    signer: Signer,
    previous: Statement[Policy] | None,
    now: datetime,
) -> bytes:
    """Add a custodian's signature to a policy; returns the ``.dsse`` with all of them.

    Refused: an unsound policy, one that does not follow ``previous`` (needed after version 1), one
    that has expired, a signer who is no custodian of either, a signature that is there already.
    """
    policy = statement.predicate
    _check_sound(policy, previous)
    if now >= policy.expires_at:
        raise Refused("this policy has expired", check="policy.expired")
    _check_custodian(signer, policy, previous)
    check_unsigned(statement, signer.key_id)
    signatures = statement.envelope.signatures
    if statement_digest(policy) != statement.digest:
        raise AssertionError("internal: a statement re-encodes to other bytes")
    added: list[Signature] = [*signatures, signer.signature(policy)]
    return encode_statement(policy, added)


def view(statement: Statement[Policy], *, previous: Statement[Policy] | None) -> PolicyView:
    """Put a policy into words; nothing is refused."""
    policy, envelope = statement.predicate, statement.envelope
    having_say = [(f"version {policy.version}", policy)]
    if previous is not None:
        having_say.insert(0, (f"version {previous.predicate.version}", previous.predicate))
    return PolicyView(
        policy=policy,
        digest=statement.digest,
        words=describe(policy),
        changes=describe_changes(previous.predicate, policy) if previous else (),
        verdicts=check_policy(policy),
        signed=tuple(
            (
                label,
                count_signers(envelope, judge, role="custodian", needed=judge.thresholds.root),
            )
            for label, judge in having_say
        ),
    )


def _check_sound(policy: Policy, previous: Statement[Policy] | None) -> None:
    require(check_policy(policy))
    if (policy.version == 1) != (previous is None):
        raise Refused(
            "version 1 has no previous version, every later one is signed beside it",
            check="policy.previous",
            hint="name the version before it with --previous",
        )
    if previous is None:
        return
    old = previous.predicate
    if (
        policy.version != old.version + 1
        or policy.environment != old.environment
        or policy.genesis != (old.genesis or previous.digest)
    ):
        raise Refused(
            f"does not follow version {old.version} of {old.environment}", check="policy.previous"
        )
    require(check_step(old, policy))


def _check_custodian(signer: Signer, policy: Policy, previous: Statement[Policy] | None) -> None:
    judges = [policy] if previous is None else [policy, previous.predicate]
    if not any(signatory(judge, signer.key_id, "custodian") for judge in judges):
        raise Refused("the signing key is no custodian's", check="policy.signer")
