"""Which policy to believe: from a pinned digest, by signed steps, to the newest version.

The rule is TUF's for root metadata: version n+1 counts when the root thresholds of *both* n and
n+1 have signed it.  Nothing is trusted because the files being judged contain it; the pin comes
from a person, once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from custody.crypto.signature import verify
from custody.encoding import Digest, KeyId, format_time
from custody.errors import Refused
from custody.formats.envelope import Authored, Envelope, Predicate, Statement
from custody.formats.policy import Policy, Principal, Role, SigningKey
from custody.rules.policy import check_policy
from custody.rules.tokenkey import token_key
from custody.rules.verdicts import Ledger, Verdict, passed, require

_TOKEN = object()
P = TypeVar("P", bound=Predicate)


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed, and how many more the threshold wants."""

    needed: int
    signers: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many more distinct principals must sign."""
        return max(0, self.needed - len(self.signers))


class TrustedPolicy:
    """A policy that follows from a pin.  Only `trust_chain` makes one."""

    __slots__ = ("digest", "genesis", "policy", "previous", "verdicts")

    def __init__(
        self, token: object, statements: Sequence[Statement[Policy]], verdicts: tuple[Verdict, ...]
    ) -> None:
        if token is not _TOKEN:
            raise AssertionError("internal: a trusted policy comes from trust_chain only")
        newest = statements[-1]
        self.policy: Policy = newest.predicate
        self.digest: Digest = newest.digest
        self.genesis: Digest = newest.predicate.genesis or newest.digest
        self.previous: tuple[Statement[Policy], ...] = tuple(statements[:-1])
        self.verdicts = verdicts

    @property
    def versions(self) -> tuple[Policy, ...]:
        """Every version from the pinned one to this."""
        return (*(statement.predicate for statement in self.previous), self.policy)

    def version(self, number: int) -> Policy | None:
        """Return an earlier or this version, as far back as the pin."""
        return next((policy for policy in self.versions if policy.version == number), None)


def signatory(policy: Policy, key: KeyId, role: Role) -> tuple[Principal, SigningKey] | None:
    """Return whose signing key that is, and the key; None if of nobody in ``role``."""
    person, listed = policy.holder(key), policy.signing_key(key)
    if person is None or listed is None or role not in person.roles:
        return None
    return person, listed


def require_signatory(
    policy: Policy, key: KeyId, *, role: Role, check: str
) -> tuple[Principal, SigningKey]:
    """Return what `signatory` does; of nobody in ``role``: `Refused` (``check``)."""
    found = signatory(policy, key, role)
    if found is None:
        raise Refused(f"the signing key is no {role}'s in this policy", check=check)
    return found


def count_signers(envelope: Envelope, policy: Policy, *, role: Role, needed: int) -> Signed:
    """Count the distinct principals in ``role`` whose signature on ``envelope`` is good.

    A principal counts once however many of his keys signed.  Signatures by keys the policy does
    not list, or that do not verify, are not counted; they never block what others signed.
    """
    message = envelope.signed_bytes()
    signers = set()
    for signature in envelope.signatures:
        found = signatory(policy, signature.keyid, role)
        if found is None:
            continue
        person, key = found
        try:
            verify(key.spki, message, signature.sig)
        except Refused:
            continue
        signers.add(person.id)
    return Signed(needed=needed, signers=tuple(sorted(signers)))


def check_threshold(
    statement: Statement[P], policy: Policy, *, role: Role, needed: int, check: str, subject: str
) -> Verdict:
    """Judge whether ``needed`` principals in ``role`` signed ``statement``."""
    signed = count_signers(statement.envelope, policy, role=role, needed=needed)
    ledger = Ledger(subject=subject)
    ledger.add(
        check,
        not signed.missing,
        f"signed by {', '.join(signed.signers)}",
        otherwise=f"signed by {len(signed.signers)} of the {needed} {role}s it needs",
    )
    return ledger.verdicts[0]


def author_of(statement: Statement[P]) -> KeyId | None:
    """Return the one key that a statement itself says it is signed by, where it says so."""
    said = statement.predicate
    return said.author if isinstance(said, Authored) else None


def check_author(
    statement: Statement[P], policy: Policy, *, role: Role, check: str, subject: str
) -> tuple[KeyId, str, tuple[Verdict, ...]]:
    """Judge a one-signer statement: a listed key of a principal in ``role``, and a good signature.
    What says by which key it is must be by that one.

    Returns the key id, the principal's id (empty when unknown) and the verdicts.
    """
    ledger = Ledger(subject=subject)
    signature = statement.envelope.signatures[0]
    found = signatory(policy, signature.keyid, role)
    if found is None:
        ledger.add(f"{check}.author", False, f"signed by a key that is no {role}'s in this policy")
        return signature.keyid, "", ledger.done()
    person, key = found
    if author_of(statement) not in (None, signature.keyid):
        # The copy of another: what he signed is not his to say, nor to be taken for the author's.
        ledger.add(f"{check}.author", False, "signed by another key than the one that it names")
        return signature.keyid, "", ledger.done()
    ledger.add(
        f"{check}.author", True, f"{person.id} is a {role}, by a key in a {key.token_class} token"
    )
    with ledger.failing(f"{check}.signature"):
        verify(key.spki, statement.envelope.signed_bytes(), signature.sig)
        ledger.add(f"{check}.signature", True, f"signature of {person.id} is good")
    return signature.keyid, person.id, ledger.done()


def trust_chain(
    statements: Collection[Statement[Policy]],
    *,
    pin: Digest,
    floor: int,
    now: datetime,
) -> TrustedPolicy:
    """Follow the chain of policy versions from the pinned one to the newest given.

    ``floor`` is the newest version remembered; ``now`` decides expiry of the newest version.
    Raises `Refused` with the first check that fails.
    """
    judged = judge_chain(statements, pin=pin, floor=floor, now=now)
    require(judged.verdicts)
    return judged.trusted()


class JudgedChain(msgspec.Struct, frozen=True, kw_only=True):
    """Every verdict on a chain; `trusted` gives the policy when nothing failed."""

    statements: tuple[Statement[Policy], ...]
    verdicts: tuple[Verdict, ...]

    def trusted(self) -> TrustedPolicy:
        """Return the newest policy; a failed chain has none."""
        require(self.verdicts)
        return TrustedPolicy(_TOKEN, self.statements, self.verdicts)

    def at(self, now: datetime) -> JudgedChain:
        """Judge the chain at another moment; only whether its end is in force depends on one."""
        if not self.statements:
            return self
        ledger = Ledger(subject="policy")
        _judge_expiry(self.statements[-1].predicate, ledger, now=now)
        (ended,) = ledger.done()
        verdicts = tuple(ended if v.check == ended.check else v for v in self.verdicts)
        return JudgedChain(statements=self.statements, verdicts=verdicts)


def judge_chain(
    statements: Collection[Statement[Policy]], *, pin: Digest, floor: int, now: datetime
) -> JudgedChain:
    """Judge what `trust_chain` demands, writing every check down."""
    ledger = Ledger(subject="policy")
    start = next((s for s in statements if s.digest == pin), None)
    if start is None:
        ledger.add("policy.pin", False, f"no policy here has the pinned digest {pin[:16]}…")
        return JudgedChain(statements=(), verdicts=ledger.done())
    ledger.add("policy.pin", True, f"version {start.predicate.version} is the pinned one")
    # Two environments' policies may lie in one folder; they say nothing about each other.
    genesis = start.predicate.genesis or start.digest
    statements = [s for s in statements if (s.predicate.genesis or s.digest) == genesis]
    ledger.extend(check_policy(start.predicate))
    ledger.extend([_root_verdict(start, start.predicate)])
    chain = [start]
    while candidates := [
        s for s in statements if s.predicate.version == chain[-1].predicate.version + 1
    ]:
        verdicts = [_judge_step(chain[-1], candidate, start) for candidate in candidates]
        good = {c.digest: c for c, v in zip(candidates, verdicts, strict=True) if passed(v)}
        # Two sound versions of one number mean that the root threshold signed twice: nobody
        # can tell which half of the fleet holds which, so neither is believed.
        ledger.add("policy.fork", len(good) < 2, "one policy per version")
        if len(good) != 1:
            ledger.extend(verdicts[0])
            break
        following = next(iter(good.values()))
        ledger.extend(verdicts[candidates.index(following)])
        chain.append(following)
    _judge_newest(chain[-1].predicate, statements, ledger, floor=floor, now=now)
    return JudgedChain(statements=tuple(chain), verdicts=ledger.done())


def _root_verdict(statement: Statement[Policy], by: Policy) -> Verdict:
    return check_threshold(
        statement,
        by,
        role="custodian",
        needed=by.thresholds.root,
        check="policy.threshold",
        subject=f"policy {statement.predicate.environment}/{statement.predicate.version}"
        f" by version {by.version}",
    )


def _judge_step(
    old: Statement[Policy], new: Statement[Policy], start: Statement[Policy]
) -> tuple[Verdict, ...]:
    """Judge one step of the chain: same environment, sound, signed by both root thresholds."""
    ledger = Ledger(subject=f"policy {new.predicate.environment}/{new.predicate.version}")
    genesis = start.predicate.genesis or start.digest
    ledger.add(
        "policy.environment",
        new.predicate.genesis == genesis and new.predicate.environment == old.predicate.environment,
        "continues this environment",
        otherwise="belongs to another environment",
    )
    ledger.extend(check_policy(new.predicate))
    ledger.extend(check_step(old.predicate, new.predicate))
    ledger.extend([_root_verdict(new, old.predicate), _root_verdict(new, new.predicate)])
    return ledger.done()


def check_step(old: Policy, new: Policy) -> tuple[Verdict, ...]:
    """Judge what no next version may do, whoever signed it."""
    ledger = Ledger(subject=f"policy {new.environment}/{new.version}")
    back = sorted(set(old.withdrawn) - set(new.withdrawn))
    ledger.add(
        "policy.withdrawn-kept",
        not back,
        "what was withdrawn stays withdrawn",
        otherwise=f"would bring manifest {back[0][:16] if back else ''}… back, which was withdrawn",
    )
    # One token under two names, one after the other, would in time hold two leaves' shares.
    owners = {token_key(key.spki): person.id for person in old.principals for key in person.keys}
    moved = [
        f"key {key.key_id[:16]}… of {owners[token_key(key.spki)]} would be {person.id}'s"
        for person in new.principals
        for key in person.keys
        if owners.get(token_key(key.spki), person.id) != person.id
    ]
    ledger.add(
        "policy.keys-stay",
        not moved,
        "no key changes hands",
        otherwise=moved[0] if moved else "",
    )
    return ledger.done()


def _judge_newest(
    newest: Policy,
    statements: Collection[Statement[Policy]],
    ledger: Ledger,
    *,
    floor: int,
    now: datetime,
) -> None:
    highest = max(statement.predicate.version for statement in statements)
    ledger.add(
        "policy.gap",
        highest == newest.version,
        "no version is missing",
        otherwise=f"version {newest.version + 1} is missing or does not follow",
    )
    ledger.add(
        "policy.rollback",
        newest.version >= floor,
        f"version {newest.version} is not older than remembered",
        otherwise=f"version {newest.version} is older than version {floor}, seen before",
    )
    _judge_expiry(newest, ledger, now=now)


def _judge_expiry(newest: Policy, ledger: Ledger, *, now: datetime) -> None:
    ledger.add(
        "policy.expired",
        newest.issued_at <= now < newest.expires_at,
        f"in force until {newest.expires_at:%Y-%m-%d}",
        otherwise=f"not in force at {format_time(now)}: it runs from "
        f"{newest.issued_at:%Y-%m-%d} to {newest.expires_at:%Y-%m-%d}",
    )
