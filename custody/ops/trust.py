"""Pinning a policy, and standing on what follows from it.

The pin comes from a person, once; from then on the newest of everything seen is remembered, so
that nobody can offer yesterday's policy or revocation list today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from custody.crypto.certificates import crl_issued_by, crl_signed_by
from custody.encoding import Digest
from custody.errors import Refused
from custody.formats.case import Documents
from custody.formats.checkpoint import SignedCheckpoint
from custody.formats.state import CrlMemory, GoldenMemory, Memory
from custody.ops.home import Home
from custody.rules.certificates import SignedBy, read_revocation_lists
from custody.rules.enrolment import enrolments_seen
from custody.rules.memory import oldest_epochs
from custody.rules.situation import Situation
from custody.rules.trust import TrustedPolicy, trust_chain

#: RFC 5280 allows numbers of 20 bytes; memory holds what every JSON reader reads alike.
MAX_CRL_NUMBER = 2**53 - 1


def pin(home: Home, *, documents: Documents, digest: Digest, now: datetime) -> Situation:
    """Trust the policy with that statement digest, and what follows from it.

    The policy must be among ``documents`` and sound; what was remembered of the same environment
    stays remembered.  Raises `Refused` with the check that fails, or ``trust.environment`` if this
    home already belongs to another environment.
    """
    if home.is_fresh():
        # One that is refused leaves no home behind.
        _pinned(home, documents=documents, digest=digest, now=now)
    with home.lock():
        trusted, memory = _pinned(home, documents=documents, digest=digest, now=now)
        home.save_memory(memory)
        seen = _seen(home, trusted, documents)
    return Situation(trusted=trusted, documents=documents, memory=memory, now=now, seen=seen)


def _pinned(
    home: Home, *, documents: Documents, digest: Digest, now: datetime
) -> tuple[TrustedPolicy, Memory]:
    known = home.memory() if home.has_memory() else None
    floor = known.policy_version if known else 0
    trusted = trust_chain(documents.policies, pin=digest, floor=floor, now=now)
    if known is not None and known.environment != trusted.genesis:
        raise Refused(
            "this home trusts another environment",
            check="trust.environment",
            where=str(home.path),
            hint="take another --home for another environment",
        )
    if known is None:
        known = Memory(
            kind="custody/memory/v1",
            pin=digest,
            environment=trusted.genesis,
            policy=trusted.digest,
            policy_version=trusted.policy.version,
            crls=(),
            golden_sets=(),
            hosts=(),
            enrolments=(),
        )
    known = msgspec.structs.replace(known, pin=digest)
    return trusted, _advance(known, trusted, documents, now=now)


def current(home: Home, *, documents: Documents, now: datetime) -> Situation:
    """Return the newest policy that follows from the pin, with everything else to judge by.

    Remembers the policy version, list numbers, golden epochs, enrolments and retirements, and the
    head of the policy's log.  Nothing pinned: `Incomplete`; an older policy than remembered, a
    fork, an expired one, two heads of the log that contradict each other: `Refused`.
    """
    # Whoever trusts nothing yet is told so, and no home is made for him.
    home.memory()
    with home.lock():
        known = home.memory()
        trusted = trust_chain(
            documents.policies, pin=known.pin, floor=known.policy_version, now=now
        )
        memory = _advance(known, trusted, documents, now=now)
        if memory != known:
            home.save_memory(memory)
        seen = _seen(home, trusted, documents)
    return Situation(trusted=trusted, documents=documents, memory=memory, now=now, seen=seen)


def later(home: Home, situation: Situation, *, now: datetime) -> Situation:
    """Return a situation as it is at a later moment, with what the home has learnt since.

    The documents stay those that it has.  Raises as `current`.
    """
    found = current(home, documents=situation.documents, now=now)
    return replace(
        situation, trusted=found.trusted, memory=found.memory, now=found.now, seen=found.seen
    )


def _seen(home: Home, trusted: TrustedPolicy, documents: Documents) -> SignedCheckpoint | None:
    log = trusted.policy.log_policy()
    if log is None:
        return None
    # Imported here because most policies name no log.
    from custody.ops.heads import advance_seen  # noqa: PLC0415

    return advance_seen(home, log, documents)


def remember_retired(home: Home, *, documents: Documents, now: datetime) -> None:
    """Remember the retirements of a case, where its policies follow from the pin.

    An auditor judges old cases too: policies that do not lead up to now teach nothing, and are no
    reason to stop.
    """
    with home.lock():
        known = home.memory()
        try:
            trusted = trust_chain(
                documents.policies, pin=known.pin, floor=known.policy_version, now=now
            )
        except Refused:
            return
        seen = enrolments_seen(known.enrolments, documents, trusted=trusted, now=now)
        if seen != known.enrolments:
            home.save_memory(msgspec.structs.replace(known, enrolments=seen))


def remember_vendor_lists(
    home: Home, *, authorities: Sequence[bytes], crls: Sequence[bytes]
) -> None:
    """Remember the newest list of each of a TPM vendor's ``authorities`` (DER certificates)."""
    with home.lock():
        known = home.memory()
        newest = _newest_crls(known.crls, authorities, crls, crl_issued_by)
        if newest != known.crls:
            home.save_memory(msgspec.structs.replace(known, crls=newest))


def _advance(
    known: Memory, trusted: TrustedPolicy, documents: Documents, *, now: datetime
) -> Memory:
    policy = trusted.policy
    digests = {statement.predicate.version: statement.digest for statement in trusted.previous}
    digests[policy.version] = trusted.digest
    # Another policy under a number already seen means that the root threshold signed two, and
    # that somebody chose which of them to show us.
    if digests.get(known.policy_version, known.policy) != known.policy:
        raise Refused(
            f"another version {known.policy_version} of this policy was seen before",
            check="policy.fork",
        )
    return msgspec.structs.replace(
        known,
        policy=trusted.digest,
        policy_version=policy.version,
        crls=_newest_crls(known.crls, policy.authorities, documents.crls),
        golden_sets=_oldest_golden(
            known.golden_sets, oldest_epochs(documents.golden_sets, trusted=trusted, now=now)
        ),
        enrolments=enrolments_seen(known.enrolments, documents, trusted=trusted, now=now),
    )


def _newest_crls(
    known: Iterable[CrlMemory],
    authorities: Sequence[bytes],
    crls: Sequence[bytes],
    signed_by: SignedBy = crl_signed_by,
) -> tuple[CrlMemory, ...]:
    """Raise the remembered number of every authority to the newest list it signed."""
    numbers = {memory.authority: memory.number for memory in known}
    for crl in read_revocation_lists(crls, authorities=authorities, signed_by=signed_by):
        number = min(crl.number, MAX_CRL_NUMBER)
        numbers[crl.issuer] = max(numbers.get(crl.issuer, 0), number)
    return tuple(CrlMemory(authority=key, number=numbers[key]) for key in sorted(numbers))


def _oldest_golden(
    known: Iterable[GoldenMemory], seen: Mapping[str, int]
) -> tuple[GoldenMemory, ...]:
    """Raise the remembered epochs of golden sets; a boot state that was retired stays so."""
    epochs = {memory.name: memory.oldest for memory in known}
    for name, oldest in seen.items():
        epochs[name] = max(epochs.get(name, 1), oldest)
    return tuple(GoldenMemory(name=name, oldest=epochs[name]) for name in sorted(epochs))
