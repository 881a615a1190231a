"""What policies change: who came, who went, which keys are listed, and what else is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import msgspec

from custody.encoding import Digest
from custody.formats.envelope import Predicate, Statement
from custody.formats.policy import Policy, Principal, ShareKey, SigningKey
from custody.formats.policy_text import format_quorum
from custody.ops.policy_words import describe_changes
from custody.rules.trust import count_signers

#: What a deed is about, in the order in which deeds of one moment are told.
Matter = Literal["ceremony", "recovery", "policy", "person", "token", "host", "bundle", "backup"]
MATTERS: tuple[Matter, ...] = (
    *("ceremony", "recovery", "policy", "person", "token", "host", "bundle", "backup"),
)
#: What a deed does: how it is drawn.
Sign = Literal["vouch", "plus", "minus", "lost", "seal", "gone", "key"]
#: What was done, by a stable id; where a release has the same act, by that one's (`ops.account`).
DeedId = Literal[
    "ceremony.held",
    "policy.issued",
    "policy.stray",
    "person.joined",
    "person.changed",
    "person.left",
    "token.added",
    "token.removed",
    "token.revoked",
    "host.enrolled",
    "host.retired",
    "state.approved",
    "bundle.sealed",
    "bundle.withdrawn",
    "bundle.destroyed",
    "recovery.made",
    "recovery.used",
    "backup.key-made",
    "backup.made",
]
_KINDS: Mapping[DeedId, tuple[Matter, Sign]] = {
    "ceremony.held": ("ceremony", "vouch"),
    "policy.issued": ("policy", "vouch"),
    "policy.stray": ("policy", "vouch"),
    "person.joined": ("person", "plus"),
    "person.changed": ("person", "plus"),
    "person.left": ("person", "minus"),
    "token.added": ("token", "plus"),
    "token.removed": ("token", "minus"),
    "token.revoked": ("token", "lost"),
    "host.enrolled": ("host", "plus"),
    "host.retired": ("host", "minus"),
    "state.approved": ("host", "vouch"),
    "bundle.sealed": ("bundle", "seal"),
    "bundle.withdrawn": ("bundle", "gone"),
    "bundle.destroyed": ("bundle", "gone"),
    "recovery.made": ("recovery", "key"),
    "recovery.used": ("recovery", "lost"),
    "backup.key-made": ("backup", "key"),
    "backup.made": ("backup", "key"),
}
SHORT = 16
#: How facts of a policy begin that every version changes.
_TOLD_ELSEWHERE = ("environment ", "in force ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which entry of which log something is."""

    log: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One thing that was stated.  ``at`` is its author's claim.

    ``matter`` and ``sign`` follow from what was ``done``; ``shown`` is the statement that tells it.
    ``who`` are those whose signatures hold.  ``fault`` says why it is not believed, else it is "".
    ``place`` is where in a log it is shown to be; ``there_by`` is a moment that somebody vouches
    for, and ``vouched`` says who.
    """

    done: DeedId
    at: datetime
    who: tuple[str, ...]
    words: str
    details: tuple[str, ...] = ()
    shown: Statement[Predicate] | None = None
    fault: str = ""
    place: Place | None = None
    there_by: datetime | None = None
    vouched: str = ""

    @property
    def statement(self) -> Digest | None:
        """The digest of the statement that tells it; a revocation list and a ceremony have none."""
        return None if self.shown is None else self.shown.digest

    @property
    def matter(self) -> Matter:
        """What it is about."""
        return _KINDS[self.done][0]

    @property
    def sign(self) -> Sign:
        """How it is drawn."""
        return _KINDS[self.done][1]


def deeds_of_policies(chain: Sequence[Statement[Policy]]) -> Iterator[Deed]:
    """Tell every version of a chain that holds, and what it changes."""
    before: Policy | None = None
    for statement in chain:
        policy = statement.predicate
        signed = {
            name
            for by in filter(None, (before, policy))
            for name in count_signers(statement.envelope, by, role="custodian", needed=1).signers
        }
        yield Deed(
            done="policy.issued",
            at=policy.issued_at,
            who=tuple(sorted(signed)),
            words=f"policy version {policy.version}, until {policy.expires_at:%Y-%m-%d}",
            details=tuple(_rule_words(before, policy)),
            shown=statement,
        )
        if before is not None:
            for deed in _people(before, policy):
                yield replace(deed, shown=statement, who=tuple(sorted(signed)))
        before = policy


def _rule_words(before: Policy | None, policy: Policy) -> Iterator[str]:
    """Say what a version says, or changes; who came and went is told of each by himself."""
    if before is None:
        yield f"a release needs {format_quorum(policy.quorum)}"
        for role in ("custodian", "enroller", "publisher"):
            names = [person.id for person in policy.principals if role in person.roles]
            if names:
                yield f"{role}s: {', '.join(names)}"
        yield "a release needs the log's signature" if policy.logged else "a release needs no log"
        if policy.recovery is not None:
            among = format_quorum(policy.recovery.among)
            yield f"recovery key {policy.recovery.epoch}: {among} together open every bundle"
        return
    alike = msgspec.structs.replace(before, principals=policy.principals)
    lines = describe_changes(alike, policy)
    told = [line for line in lines if not line[2:].startswith(_TOLD_ELSEWHERE)]
    if not told:
        yield "who is listed, and nothing else"
    for line in told:
        if not line.startswith("+ withdrawn: "):
            yield f"{'no longer' if line[0] == '-' else 'now'}: {line[2:].strip()}"


def _people(before: Policy, policy: Policy) -> Iterator[Deed]:
    """Tell who and which keys are listed in a version and were not before, and the other way."""
    old = {person.id: person for person in before.principals}
    new = {person.id: person for person in policy.principals}
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        had = {} if was is None else _by_id(was)
        has = {} if now is None else _by_id(now)
        come = tuple(key_words(has[key]) for key in has if key not in had)
        gone = tuple(key_words(had[key]) for key in had if key not in has)
        if was is None and now is not None:
            yield _deed("person.joined", policy, f"{name} joins as {', '.join(now.roles)}", come)
        elif now is None and was is not None:
            left = f"{name} leaves; was {', '.join(was.roles)}"
            kept = ("shares that were sealed to him stay his",) if "officer" in was.roles else ()
            yield _deed("person.left", policy, left, (*gone, *kept))
        else:
            if was is not None and now is not None and was.roles != now.roles:
                roles = f"{name} is {', '.join(now.roles)} now, and was {', '.join(was.roles)}"
                yield _deed("person.changed", policy, roles, ())
            if come:
                yield _deed("token.added", policy, f"{name} has further keys", come)
            if gone:
                yield _deed("token.removed", policy, f"keys of {name} listed no more", gone)


def _deed(done: DeedId, policy: Policy, words: str, details: tuple[str, ...]) -> Deed:
    return Deed(done=done, at=policy.issued_at, who=(), words=words, details=details)


def _by_id(person: Principal) -> dict[str, SigningKey | ShareKey]:
    return {key.key_id: key for key in person.keys}


def key_words(key: SigningKey | ShareKey) -> str:
    """Say what a listed key is for, which it is and where it is said to be."""
    use = "signing key" if isinstance(key, SigningKey) else f"share key, {key.suite},"
    return f"{use} {key.key_id[:SHORT]}…, {key.token_class} token"
