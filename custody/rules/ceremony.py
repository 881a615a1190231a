"""Whether a script can be held, how far one has come, and what may lie in a token then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from custody.encoding import Digest
from custody.formats.ceremony import (
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
    SplitRecovery,
    Step,
    TrustKey,
)
from custody.formats.keybackup import CARRIER_LABEL, WRAPPING_LABEL, carrier_id
from custody.formats.policy import Role
from custody.formats.transcript import (
    Begun,
    Closed,
    Done,
    FoundObject,
    Line,
    MadeKey,
    Opened,
    UsedToken,
)
from custody.rules.verdicts import Ledger, Verdict

#: As what a key that was made here lies in its token.
_KINDS = ("private", "public", "secret")


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a transcript has come, by its records alone."""

    done: int = 0
    begun: int = 0
    """How often the step that comes next was begun."""
    closed: bool = False
    policy: Digest | None = None
    keys: list[MadeKey] = field(default_factory=list)
    tokens: dict[str, UsedToken] = field(default_factory=dict)
    files: dict[str, Digest] = field(default_factory=dict)
    seen: set[FoundObject] = field(default_factory=set)
    """What lay in tokens when earlier steps used them, and was let lie."""

    def take(self, event: Opened | Begun | Done | Closed) -> None:
        """Go on by one record."""
        match event:
            case Begun():
                self.begun += 1
            case Done():
                self.done, self.begun = self.done + 1, 0
                self.keys += [key for key in event.keys if key not in self.keys]
                self.tokens.update((token.person, token) for token in event.tokens)
                self.files.update((file.name, file.sha256) for file in event.files)
                self.seen.update(event.found)
                if event.do == "policy":
                    self.policy = next((told.digest for told in event.told), None)
            case Closed():
                self.closed = True

    def signing_key(self, person: str) -> MadeKey | None:
        """Return the key somebody signs with, once he has enrolled."""
        of_his = (key for key in self.keys if key.person == person and key.use == "sign")
        return next(of_his, None)

    @property
    def signers(self) -> tuple[str, ...]:
        """Who has a key to sign with, by name."""
        return tuple(sorted({key.person for key in self.keys if key.use == "sign"}))


def progress_of(lines: Iterable[Line]) -> Progress:
    """Say how far a transcript has come; nothing is judged."""
    progress = Progress()
    for line in lines:
        progress.take(line.record.event)
    return progress


# ── the script ───────────────────────────────────────────────────────────────────────────────────


def check_script(script: Script) -> tuple[Verdict, ...]:
    """Judge whether a script can be held: who is named is there, and nothing comes too early."""
    ledger = Ledger(subject=f"ceremony of {script.environment}")
    names = [seat.name for seat in script.people]
    twice = [name for name, count in Counter(names).items() if count > 1]
    ledger.add("ceremony.people", not twice, "everybody is there once", otherwise=_twice(twice))
    for number, step in enumerate(script.steps, 1):
        fault = _step_fault(script, script.steps[: number - 1], step)
        ledger.add(
            "ceremony.script",
            not fault,
            f"step {number} can be done when it comes",
            otherwise=f"step {number}, {kind_of(step)}: {fault}",
        )
    idle = sorted(set(names) - {step.who for step in script.steps if isinstance(step, Enrol)})
    ledger.add(
        "ceremony.script",
        not idle,
        "everybody enrols",
        otherwise=f"nothing shows that they were there, for they enrol no key: {', '.join(idle)}",
    )
    return ledger.done()


def kind_of(step: Step) -> str:
    """Return the word a script has for a step."""
    return str(step.__struct_config__.tag)


def _twice(names: Sequence[str]) -> str:
    return f"there twice: {', '.join(names)}"


def _step_fault(script: Script, before: Sequence[Step], step: Step) -> str | None:
    """Say why a step cannot be done when it comes, if so."""
    roles = {seat.name: seat.role for seat in script.people}
    enrolled = {earlier.who for earlier in before if isinstance(earlier, Enrol)}
    named = _named(step)
    if strangers := sorted(set(named) - roles.keys()):
        return f"nobody there is called {', '.join(strangers)}"
    if not isinstance(step, Invite | Enrol) and (early := sorted(set(named) - enrolled)):
        return f"has enrolled no key yet: {', '.join(early)}"
    invited = next((earlier for earlier in before if isinstance(earlier, Invite)), None)
    founded = next((earlier for earlier in before if isinstance(earlier, MakeAuthority)), None)
    admitted = [earlier for earlier in before if isinstance(earlier, Admit)]
    custodian = [name for name in named if roles[name] != "custodian"]
    match step:
        case Invite():
            faults = [
                (invited is not None, "there is an invitation already"),
                (bool(custodian), "a custodian invites"),
            ]
        case Enrol():
            faults = [
                (invited is None, "there is no invitation yet"),
                (step.who in enrolled, "he has enrolled already"),
            ]
        case MakeAuthority():
            faults = [
                (founded is not None, "there is an authority already"),
                (bool(custodian), "a custodian keeps the authority"),
                (invited is None or invited.by != step.by, "who invites keeps the authority"),
            ]
        case MakeLogKey():
            taken = [s for s in before if isinstance(s, MakeLogKey) and s.by == step.by]
            faults = [(bool(taken), "he keeps a log already")]
        case MakeKek():
            faults = []
        case Admit():
            faults = [
                (founded is None or founded.by != step.by, "who keeps the authority admits"),
                (not step.who and not step.files, "it admits nobody"),
            ]
        case SplitRecovery() | MakeWrapping() | TrustKey() | BackUp():
            faults = _recovery_faults(before, step, roles)
        case MakePolicy():
            made = any(isinstance(earlier, MakePolicy) for earlier in before)
            faults = [
                (made, "there is a policy already"),
                (not admitted, "nobody has been admitted"),
                (bool(custodian), "custodians sign a policy"),
                (len(set(step.signers)) != len(step.signers), "each signs once"),
            ]
    return next((words for broken, words in faults if broken), None)


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
            return [
                (roles[step.by] != "custodian", "a custodian states who holds shares"),
                (bool(split), f"there is a recovery key {step.epoch} already"),
            ]
        case MakeWrapping():
            sealed = {name for s in split for name in s.seal_to}
            return [
                (roles[step.by] != "custodian", "a custodian states a wrapping key"),
                (not split, f"there is no recovery key {step.epoch} yet"),
                (bool(made), f"there is a wrapping key {step.epoch} already"),
                (not sealed >= set(step.opened), "nobody sealed a share to who is to open one"),
            ]
        case TrustKey():
            policy = any(isinstance(s, MakePolicy) for s in before)
            return [
                (not made, f"there is no wrapping key {step.epoch} yet"),
                (not policy, "there is no policy yet that names the recovery key"),
            ]
        case BackUp():
            trusts = TrustKey(who=step.who, epoch=step.epoch) in before
            return [
                (roles[step.by] != "custodian", "a custodian signs for a backup"),
                (not step.file.endswith(".dsse"), "a backup is a .dsse, as all that is signed"),
                (not trusts, f"the token of {step.who} trusts no wrapping key {step.epoch} yet"),
                (not any(_backs_up(step, s) for s in before), "no such key was made recoverable"),
            ]


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


# ── objects in tokens ────────────────────────────────────────────────────────────────────────────


def labels_of(script: Script, step: Step) -> tuple[str, ...]:
    """Name the labels of the objects that a step makes in a token."""
    match step:
        case Enrol():
            return tuple(f"{script.environment} {step.who} {use}" for use in ("sign", "share"))
        case MakeAuthority():
            return (step.name,)
        case MakeLogKey() | MakeKek():
            return (step.label,)
        case TrustKey():
            return (WRAPPING_LABEL, CARRIER_LABEL)
        case _:
            return ()


def unexpected(
    script: Script, progress: Progress, found: Sequence[FoundObject]
) -> tuple[FoundObject, ...]:
    """Return what lies in somebody's token that neither the script nor an earlier step explains.

    Of a key made here one private and one public object are expected.  What an interrupted step
    left under the labels that it makes is explained by that, and by being listed then: nothing uses
    it.
    """
    spent: Counter[tuple[str, str, str, str]] = Counter()
    made = {(key.person, key.label, key.id) for key in progress.keys}
    made |= {
        (key.person, CARRIER_LABEL, carrier_id(key.spki).hex())
        for key in progress.keys
        if key.use == "wrapping" and key.spki is not None
    }
    step = script.steps[progress.done] if progress.done < len(script.steps) else None
    left = labels_of(script, step) if step is not None and progress.begun > 1 else ()
    strange = []
    for item in found:
        key = (item.person, item.kind, item.label, item.id)
        spent[key] += 1
        ours = (item.person, item.label, item.id) in made and item.kind in _KINDS
        if spent[key] == 1 and (ours or item in progress.seen):
            continue
        if item.label in (*script.seat(item.person).holds, *left):
            continue
        strange.append(item)
    return tuple(strange)


def missing_keys(
    progress: Progress, person: str, found: Sequence[FoundObject]
) -> tuple[MadeKey, ...]:
    """Return the keys made in somebody's token that are not there any more."""
    there = {(item.kind, item.label, item.id) for item in found}
    return tuple(
        key
        for key in progress.keys
        if key.person == person
        and not any((kind, key.label, key.id) in there for kind in _kinds_of(key))
    )


def _kinds_of(key: MadeKey) -> tuple[str, ...]:
    return ("public",) if key.use == "wrapping" else ("private", "secret")
