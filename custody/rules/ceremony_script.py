"""Whether a script can be held: whatever would stop it half way, or lock all out, is said first.

Keys that were made in tokens are not unmade.  A script is judged before any is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from custody.crypto.keyslots import is_oaep
from custody.crypto.quorum import leaves, satisfied
from custody.formats.ceremony import (
    AUTHORITY,
    CRL,
    INVITATION,
    PAGE,
    POLICY,
    SCRIPT,
    TRANSCRIPT,
    Admit,
    BackUp,
    Enrol,
    Invite,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    MakePolicy,
    MakeWrapping,
    Script,
    Seat,
    SplitRecovery,
    Step,
    TrustKey,
    admission_name,
    attestation_name,
    challenge_names,
    doubled,
    folded,
    looks_like,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.policy import Role, SuiteName
from custody.formats.recovery import share_set
from custody.rules.ceremony import TokenName, kind_of, labels_of
from custody.rules.recovery import needed_fault, shares_fault
from custody.rules.verdicts import Ledger, Verdict

#: Roles that secrets are sealed to: their share keys are made where a script says nothing.
SHARING: tuple[Role, ...] = ("officer", "auditor", "site", "host")
#: By what a share of a recovery key is sealed to a token alone.
_SEALED_BY: tuple[SuiteName, ...] = ("P256", "P384")


def check_script(script: Script, tokens: Mapping[str, TokenName]) -> tuple[Verdict, ...]:
    """Judge whether a script can be held: who is named is there, and nothing comes too early.

    ``tokens`` is how it names each person's.
    """
    ledger = Ledger(subject=f"ceremony of {script.environment}")
    fault = _people_fault(script, tokens)
    ledger.add("ceremony.people", not fault, "everybody is there once", otherwise=fault)
    for number, step in enumerate(script.steps, 1):
        why = _step_fault(script, script.steps[: number - 1], step)
        ledger.add(
            "ceremony.script",
            not why,
            f"step {number} can be done when it comes",
            otherwise=f"step {number}, {kind_of(step)}: {why}",
        )
    names = {seat.name for seat in script.people}
    idle = sorted(names - {step.who for step in script.steps if isinstance(step, Enrol)})
    ledger.add(
        "ceremony.script",
        not idle,
        "everybody enrols",
        otherwise=f"nothing shows that they were there, for they enrol no key: {', '.join(idle)}",
    )
    return ledger.done()


def _people_fault(script: Script, tokens: Mapping[str, TokenName]) -> str:
    """Say who is there twice, or would be taken for somebody else."""
    two = doubled((seat.name for seat in script.people), by=looks_like)
    if two is not None:
        first, second = two
        if first == second:
            return f"there twice: {first}"
        return f"{first} and {second} look the same: call one of them otherwise"
    # A name that people are shown while they admit somebody may be nobody else's.
    shown = [(seat.name, looks_like(word)) for seat in script.people for word in _called(seat)]
    for name, word in shown:
        alike = next((o for o, theirs in shown if theirs == word and o != name), None)
        if alike is not None:
            return f"{name} and {alike} would be shown by one name"
    for at, seat in enumerate(script.people):
        serial = tokens[seat.name].serial
        same = [o.name for o in script.people[:at] if tokens[o.name] == tokens[seat.name]]
        if serial is not None and same:
            return f"{same[0]} and {seat.name} bring one token, serial {serial}"
    return ""


def _called(seat: Seat) -> set[str]:
    return {seat.name, seat.display or seat.name}


def _step_fault(script: Script, before: Sequence[Step], step: Step) -> str | None:
    """Say why a step cannot be done when it comes, if so."""
    roles = {seat.name: seat.role for seat in script.people}
    enrolled = {earlier.who for earlier in before if isinstance(earlier, Enrol)}
    named = _named(step)
    if strangers := sorted(set(named) - roles.keys()):
        return f"nobody there is called {', '.join(strangers)}"
    if not isinstance(step, Invite | Enrol) and (early := sorted(set(named) - enrolled)):
        return f"has enrolled no key yet: {', '.join(early)}"
    broken = next((words for wrong, words in _faults(before, step, roles) if wrong), None)
    return broken or _label_fault(script, before, step) or _file_fault(before, step) or None


def _faults(
    before: Sequence[Step], step: Step, roles: Mapping[str, Role]
) -> list[tuple[bool, str]]:
    """Say what a step needs, and whether it lacks it."""
    invited = next((earlier for earlier in before if isinstance(earlier, Invite)), None)
    founded = next((earlier for earlier in before if isinstance(earlier, MakeAuthority)), None)
    custodian = [name for name in _named(step) if roles[name] != "custodian"]
    admitted = set(admitted_by(before))
    match step:
        case Invite():
            return [
                (invited is not None, "there is an invitation already"),
                (bool(custodian), "a custodian invites"),
            ]
        case Enrol():
            enrolled = any(isinstance(s, Enrol) and s.who == step.who for s in before)
            return [
                (invited is None, "there is no invitation yet"),
                (enrolled, "he has enrolled already"),
                (
                    roles[step.who] == "host" and _only_decrypts(step),
                    "a host opens by a key that agrees, and this one only decrypts",
                ),
            ]
        case MakeAuthority():
            return [
                (founded is not None, "there is an authority already"),
                (bool(custodian), "a custodian keeps the authority"),
                (invited is None or invited.by != step.by, "who invites keeps the authority"),
            ]
        case MakeLogKey():
            taken = [s for s in before if isinstance(s, MakeLogKey) and s.by == step.by]
            return [(bool(taken), "he keeps a log already")]
        case MakeKek():
            return []
        case Admit():
            return [
                (founded is None or founded.by != step.by, "who keeps the authority admits"),
                (not step.who and not step.files, "it admits nobody"),
                (bool(admitted & set(step.who)), "admits somebody a second time"),
                (
                    step.attestation is not None and not step.files,
                    "says what vendors attest of what is brought, and nothing is",
                ),
            ]
        case MakePolicy():
            return _policy_faults(before, step, custodian)
        case SplitRecovery() | MakeWrapping() | TrustKey() | BackUp():
            return _recovery_faults(before, step, roles)


def _only_decrypts(step: Enrol) -> bool:
    return step.suite is not None and step.suite != "strongest" and is_oaep(step.suite)


def admitted_by(steps: Iterable[Step]) -> tuple[str, ...]:
    """Name who of the table was admitted by some steps."""
    return tuple(name for step in steps if isinstance(step, Admit) for name in step.who)


def _policy_faults(
    before: Sequence[Step], step: MakePolicy, custodian: Sequence[str]
) -> list[tuple[bool, str]]:
    admits = [earlier for earlier in before if isinstance(earlier, Admit)]
    strangers = sorted(set(step.signers) - set(admitted_by(before)))
    splits = [earlier for earlier in before if isinstance(earlier, SplitRecovery)]
    return [
        (any(isinstance(s, MakePolicy) for s in before), "there is a policy already"),
        (not admits, "nobody has been admitted"),
        (bool(custodian), "custodians sign a policy"),
        (bool(strangers), f"it will not list who was not admitted: {', '.join(strangers)}"),
        (len(splits) > 1, "there are several recovery keys, and a policy names one"),
    ]


def _recovery_faults(
    before: Sequence[Step],
    step: SplitRecovery | MakeWrapping | TrustKey | BackUp,
    roles: Mapping[str, Role],
) -> list[tuple[bool, str]]:
    """Say what a step of recovery needs, and whether it lacks it."""
    split = [s for s in before if isinstance(s, SplitRecovery) and s.epoch == step.epoch]
    made = [s for s in before if isinstance(s, MakeWrapping) and s.epoch == step.epoch]
    match step:
        case SplitRecovery():
            return _split_faults(before, step, roles)
        case MakeWrapping():
            sealed = {name for s in split for name in s.seal_to}
            return [
                (roles[step.by] != "custodian", "a custodian states a wrapping key"),
                (not split, f"there is no recovery key {step.epoch} yet"),
                (bool(made), f"there is a wrapping key {step.epoch} already"),
                (not sealed >= set(step.opened), "nobody sealed a share to who is to open one"),
                (
                    bool(split) and _too_many(split[0], step.opened),
                    "these shares are more than are needed: with some to spare no bad one shows",
                ),
                (
                    bool(split) and not _rebuilt(split[0], step.opened),
                    "these shares, with all that are on paper, are too few",
                ),
            ]
        case TrustKey():
            at = [number for number, s in enumerate(before) if isinstance(s, MakePolicy)]
            return [
                (not made, f"there is no wrapping key {step.epoch} yet"),
                (not at, "there is no policy yet that names the recovery key"),
                (
                    bool(at and split) and before.index(split[0]) > at[0],
                    "the policy was made before the recovery key that it is to name",
                ),
                (step in before, "the token trusts it already"),
            ]
        case BackUp():
            trusts = TrustKey(who=step.who, epoch=step.epoch) in before
            return [
                (roles[step.by] != "custodian", "a custodian signs for a backup"),
                (not step.file.endswith(".dsse"), "a backup is a .dsse, as all that is signed"),
                (not trusts, f"the token of {step.who} trusts no wrapping key {step.epoch} yet"),
                (not any(_backs_up(step, s) for s in before), "no such key was made recoverable"),
            ]


def _split_faults(
    before: Sequence[Step], step: SplitRecovery, roles: Mapping[str, Role]
) -> list[tuple[bool, str]]:
    split = any(isinstance(s, SplitRecovery) and s.epoch == step.epoch for s in before)
    fault = shares_fault(step.tree)
    needed = "" if fault else needed_fault(step.tree)
    strangers = sorted(set(step.seal_to) - set(_holders(step)))
    without = [
        enrol.who
        for enrol in before
        if isinstance(enrol, Enrol)
        and enrol.who in step.seal_to
        and not _has_token_key(enrol, roles[enrol.who])
    ]
    return [
        (roles[step.by] != "custodian", "a custodian states who holds shares"),
        (split, f"there is a recovery key {step.epoch} already"),
        (bool(fault), fault),
        (bool(strangers), f"seals shares to who holds none: {', '.join(strangers)}"),
        (
            bool(without),
            f"enrols no key that a share could be sealed to (P256 or P384): {', '.join(without)}",
        ),
        (bool(needed), needed),
    ]


def _has_token_key(enrol: Enrol, role: Role) -> bool:
    if enrol.suite is None:
        return role in SHARING
    return enrol.suite == "strongest" or enrol.suite in _SEALED_BY


def _holders(split: SplitRecovery) -> tuple[str, ...]:
    return tuple(leaf.principal for leaf in leaves(split.tree))


def _rebuilt(split: SplitRecovery, opened: Sequence[str]) -> bool:
    """Tell whether what tokens open and what people can type is enough of a recovery key."""
    sealed = set(split.seal_to) - set(opened)
    there = [name for name in _holders(split) if name not in sealed]
    return satisfied(split.tree, _paths(split, there))


def _too_many(split: SplitRecovery, opened: Sequence[str]) -> bool:
    """Tell whether tokens would open more shares than are needed, which is refused then."""
    if shares_fault(split.tree):
        return False
    groups = share_set(split.tree)
    counts = [len(set(group.holders) & set(opened)) for group in groups.groups]
    over = any(n > group.threshold for n, group in zip(counts, groups.groups, strict=True))
    return over or sum(map(bool, counts)) > groups.threshold


def has_words(script: Script) -> bool:
    """Tell whether somebody is shown words at this ceremony, or types them."""
    splits = {step.epoch: step for step in script.steps if isinstance(step, SplitRecovery)}
    written = any(set(_holders(split)) - set(split.seal_to) for split in splits.values())
    typed = any(
        not satisfied(split.tree, _paths(split, step.opened))
        for step in script.steps
        if isinstance(step, MakeWrapping) and (split := splits.get(step.epoch))
    )
    return written or typed


def _paths(split: SplitRecovery, holders: Sequence[str]) -> list[str]:
    return [leaf.path for leaf in leaves(split.tree) if leaf.principal in holders]


def _backs_up(step: BackUp, made: Step) -> bool:
    if isinstance(made, MakeKek):
        return made.recoverable and (made.by, made.label) == (step.who, step.kek)
    if isinstance(made, MakeAuthority):
        return made.recoverable and made.by == step.who and step.kek is None
    return False


def _named(step: Step) -> tuple[str, ...]:
    match step:
        case Admit():
            return (step.by, *step.who)
        case Enrol():
            return (step.who,)
        case MakePolicy():
            return step.signers
        case SplitRecovery():
            return (step.by, *step.seal_to)
        case MakeWrapping() | TrustKey() | BackUp():
            return step.hands
        case _:
            return (step.by,)


# ── labels and files ─────────────────────────────────────────────────────────────────────────────


def _label_fault(script: Script, before: Sequence[Step], step: Step) -> str:
    """Say which object of a step could be taken for another in its token, or nothing."""
    labels = {folded(label): label for label in labels_of(script, step)}
    if not labels:
        return ""
    who = step.hands[0]
    # A label in `holds` is believed: whoever prepared the token would have his key there used.
    for held in script.seat(who).holds:
        if folded(held) in labels:
            return f"holds lets an object called {held!r} lie in the token of {who}, who makes one"
    for earlier in before:
        # Several wrapping keys are told apart by their ids.
        both = isinstance(earlier, TrustKey) and isinstance(step, TrustKey)
        if earlier.hands[:1] != (who,) or both:
            continue
        for label in labels_of(script, earlier):
            if folded(label) in labels:
                return f"there is an object called {label!r} in that token already"
    return ""


def written_by(step: Step) -> tuple[str, ...]:
    """Name what a step may write into the ceremony's folder, but for certificates."""
    match step:
        case Invite():
            return (INVITATION,)
        case Enrol():
            return (admission_name(step.who), *challenge_names(step.who))
        case MakeAuthority():
            return (AUTHORITY, CRL)
        case MakeLogKey():
            return (step.folder,)
        case SplitRecovery():
            shares = (share_name(step.epoch, name) for name in step.seal_to)
            return (recovery_name(step.epoch), *shares)
        case MakePolicy():
            return (POLICY,)
        case MakeWrapping():
            return (wrapping_name(step.epoch),)
        case BackUp():
            return (step.file,)
        case _:
            return ()


def _file_fault(before: Sequence[Step], step: Step) -> str:
    """Say which file two steps would write, or one write and the other have brought."""
    taken = {folded(name) for name in (SCRIPT, TRANSCRIPT, PAGE)}
    taken |= {folded(name) for earlier in before for name in _own(earlier)}
    return next(
        (f"the file {n} is another's already" for n in _own(step) if folded(n) in taken), ""
    )


def _own(step: Step) -> tuple[str, ...]:
    match step:
        case Admit():
            return step.files
        case Enrol() if step.attestation is not None:
            return (*written_by(step), attestation_name(step.who))
        case _:
            return written_by(step)
