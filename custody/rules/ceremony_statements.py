"""Whether what the steps of a ceremony wrote is what their records say.  transcript.md, Verifying.

A record names files by their digests, and keys by what the machine wrote down.  Here each file is
read, its signature verified by the key that the record has for who signed, and what it says held
against the step, the keys, the tokens and the files of the steps before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from custody.formats.ceremony import (
    AUTHORITY,
    CRL,
    INVITATION,
    POLICY,
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
    admission_name,
    challenge_names,
    recovery_name,
    share_name,
    wrapping_name,
)
from custody.formats.transcript import Begun, Done, Line
from custody.rules.ceremony import kind_of
from custody.rules.ceremony_keys import (
    backed_up,
    founded,
    kek_made,
    log_made,
    split,
    trusted,
    wrapping_made,
)
from custody.rules.ceremony_people import (
    CERTIFICATE_SUFFIX,
    admitted,
    enrolled,
    invited,
    policy_made,
)
from custody.rules.ceremony_seen import Seen
from custody.rules.ceremony_vendor import judge_vouched
from custody.rules.verdicts import Ledger, Verdict

#: By which check each kind of step is judged.
_CHECKS: Mapping[type[Step], str] = {
    Invite: "ceremony.invitation",
    Enrol: "ceremony.admission",
    MakeAuthority: "ceremony.authority",
    MakeLogKey: "ceremony.log",
    MakeKek: "ceremony.kek",
    Admit: "ceremony.certificates",
    SplitRecovery: "ceremony.recovery",
    MakePolicy: "ceremony.policy",
    MakeWrapping: "ceremony.wrapping",
    TrustKey: "ceremony.trust",
    BackUp: "ceremony.backup",
}


def judge_statements(
    script: Script, lines: Sequence[Line], contents: Mapping[str, bytes]
) -> tuple[Verdict, ...]:
    """Judge what every step that is on record wrote or read; ``contents`` are the files by name.

    A transcript whose order is not the script's is judged as far as it follows it.
    """
    ledger = Ledger(subject=f"ceremony of {script.environment}")
    seen = Seen(script=script, contents=contents)
    for line in lines:
        event = line.record.event
        if isinstance(event, Begun) and not seen.progress.begun:
            seen.began = line.record.at
        if not isinstance(event, Done):
            seen.progress.take(event)
            continue
        number = seen.progress.done
        if number >= len(script.steps) or event.do != kind_of(script.steps[number]):
            break
        step, check = script.steps[number], _CHECKS[type(script.steps[number])]
        seen.progress.take(event)
        ledger.subject = f"step {number + 1}, {event.do}"
        with ledger.failing(check):
            faults = [*_names_fault(step, event, seen), *_faults(step, event, line, seen)]
            ledger.add(
                check, not faults, "what it wrote is what its record says", otherwise=_few(faults)
            )
        judge_vouched(step, event, line, seen, ledger)
    if not ledger.verdicts:
        ledger.skip("ceremony.invitation", "no step was done")
    return ledger.done()


def _few(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
    return "; ".join(faults[:6]) + more


def _names_fault(step: Step, event: Done, seen: Seen) -> Iterator[str]:
    """Say which files a step names that it has no part in, or leaves out."""
    wanted, named = _files_of(step, event, seen), {file.name for file in event.files}
    strange = sorted(name for name in named - wanted if not _may_name(step, name))
    if strange:
        yield f"names files that such a step has no part in: {', '.join(strange[:3])}"
    if lacking := sorted(wanted - named):
        yield f"does not name {', '.join(lacking[:3])}"


def _may_name(step: Step, name: str) -> bool:
    match step:
        case Admit():
            return name.endswith(CERTIFICATE_SUFFIX)
        case Enrol():
            return name in challenge_names(step.who)
        case _:
            return False


def _files_of(step: Step, event: Done, seen: Seen) -> set[str]:
    """Name what a step writes or reads, but for certificates and challenges."""
    match step:
        case Invite():
            return {INVITATION}
        case Enrol():
            return {admission_name(step.who)}
        case MakeAuthority():
            return {AUTHORITY, CRL}
        case Admit():
            return {*map(admission_name, step.who), *step.files}
        case SplitRecovery():
            shares = (share_name(step.epoch, name) for name in step.seal_to)
            return {recovery_name(step.epoch), *shares, *map(admission_name, step.seal_to)}
        case MakePolicy():
            return {POLICY, *_admissions_before(event, seen.script)}
        case MakeWrapping():
            shares = (share_name(step.epoch, name) for name in step.opened)
            return {recovery_name(step.epoch), wrapping_name(step.epoch), *shares}
        case TrustKey():
            return {wrapping_name(step.epoch)}
        case BackUp():
            more = {AUTHORITY} if step.kek is None else set()
            return {wrapping_name(step.epoch), step.file, *more}
        case _:
            return set()


def _admissions_before(event: Done, script: Script) -> set[str]:
    admits = [step for step in script.steps[: event.step - 1] if isinstance(step, Admit)]
    return {name for step in admits for name in (*map(admission_name, step.who), *step.files)}


def _faults(step: Step, event: Done, line: Line, seen: Seen) -> Iterator[str]:
    """Say what is wrong with what a step wrote."""
    match step:
        case Invite():
            yield from invited(step, event, seen)
        case Enrol():
            yield from enrolled(step, event, seen)
        case MakeAuthority():
            yield from founded(step, event, seen)
        case MakeLogKey():
            yield from log_made(step, event)
        case MakeKek():
            yield from kek_made(step, event)
        case Admit():
            yield from admitted(step, event, line, seen)
        case SplitRecovery():
            yield from split(step, event, line, seen)
        case MakePolicy():
            yield from policy_made(event, line, seen)
        case MakeWrapping():
            yield from wrapping_made(step, event, line, seen)
        case TrustKey():
            yield from trusted(step, event, seen)
        case BackUp():
            yield from backed_up(step, event, line, seen)
