"""Whether a transcript is of its script: no token is asked, no clock.

It proves that whoever held these keys signed this history, in this order.  Whose keys they are is
said by what people wrote down: the digest of the policy, or of the last record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from custody.crypto.signature import verify
from custody.encoding import Digest
from custody.errors import Malformed, Refused
from custody.formats.ceremony import (
    Enrol,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    Script,
    Step,
    TrustKey,
)
from custody.formats.envelope import signing_bytes
from custody.formats.transcript import (
    Begun,
    Closed,
    Done,
    KeyUse,
    Line,
    MadeKey,
    Opened,
    UsedToken,
)
from custody.rules.ceremony import (
    Progress,
    TokenName,
    kind_of,
    missing_keys,
    progress_of,
    unexpected,
)
from custody.rules.verdicts import Ledger, Verdict

#: What the keys that a kind of step makes are for; the first of them there always is.
_MAKES: dict[type[Step], tuple[KeyUse, ...]] = {
    Enrol: ("sign", "share"),
    MakeAuthority: ("ca",),
    MakeLogKey: ("log",),
    MakeKek: ("kek",),
    TrustKey: ("wrapping",),
}


def judge_so_far(
    script: Script, digest: Digest, lines: Sequence[Line], tokens: Mapping[str, TokenName]
) -> tuple[Verdict, ...]:
    """Judge a transcript as far as it goes, against the script with this digest.

    ``tokens`` is how the script names each person's.
    """
    ledger = Ledger(subject=f"ceremony of {script.environment}")
    whole = all(
        (x.record.script, x.record.environment) == (digest, script.environment) for x in lines
    )
    ledger.add(
        "ceremony.script",
        whole,
        "every record is of this script",
        otherwise="a record is of another script",
    )
    if not whole or not _chained(digest, lines, ledger) or not _ordered(script, lines, ledger):
        return ledger.done()
    progress = Progress()
    for line in lines:
        event = line.record.event
        with ledger.failing("ceremony.step"):
            if isinstance(event, Done):
                _check_done(script, progress, event, tokens, ledger)
        progress.take(event)
        _check_signatures(line, _signers_of(script, progress, event), progress, ledger)
    return ledger.done()


def judge_transcript(
    script: Script,
    digest: Digest,
    lines: Sequence[Line],
    tokens: Mapping[str, TokenName],
    *,
    files: Mapping[str, Digest],
    pin: Digest | None,
) -> tuple[Verdict, ...]:
    """Judge a whole transcript, its files, and what people wrote down of it.

    ``files`` are the digests of those that are here; ``pin`` is the digest of the policy or of the
    last record, as a person was told it.
    """
    ledger = Ledger(subject=f"ceremony of {script.environment}")
    ledger.extend(judge_so_far(script, digest, lines, tokens))
    last = lines[-1]
    closed = isinstance(last.record.event, Closed)
    progress = progress_of(lines)
    lacking = sorted(set(progress.signers) - set(_who_signed(last, progress)))
    ledger.add(
        "ceremony.complete",
        closed and not lacking,
        "it was closed, and everybody signed that",
        otherwise=f"not signed by {', '.join(lacking)}" if closed else "it was not closed",
    )
    _check_files(last.record.event, progress, files, ledger)
    if pin is None:
        ledger.skip("ceremony.pin", "no digest that people wrote down was given")
    else:
        ledger.add(
            "ceremony.pin",
            closed and pin in (last.digest, progress.policy),
            "it is what people wrote down",
            otherwise="neither its policy nor its last record is what people wrote down",
        )
    return ledger.done()


def check_files(progress: Progress, files: Mapping[str, Digest]) -> tuple[Verdict, ...]:
    """Judge whether what steps wrote is still what they wrote."""
    ledger = Ledger(subject="ceremony")
    _check_files(None, progress, files, ledger)
    return ledger.done()


def _check_files(
    event: object, progress: Progress, files: Mapping[str, Digest], ledger: Ledger
) -> None:
    changed = sorted(name for name, sha in progress.files.items() if files.get(name) != sha)
    ledger.add(
        "ceremony.files",
        not changed,
        f"{len(progress.files)} files are what was written",
        otherwise=f"missing or changed: {', '.join(changed[:5])}",
    )
    if isinstance(event, Closed):
        ledger.add(
            "ceremony.files",
            {file.name: file.sha256 for file in event.files} == progress.files
            and event.policy == progress.policy,
            "the last record sums up the others",
            otherwise="the last record sums up other files, or another policy",
        )


def _chained(digest: Digest, lines: Sequence[Line], ledger: Ledger) -> bool:
    """Check that every record follows the one before it, and no clock went back."""
    previous, clock = digest, lines[0].record.at
    for number, line in enumerate(lines):
        record = line.record
        fault = None
        if record.number != number:
            fault = f"record {number} says that it is number {record.number}"
        elif record.previous != previous:
            fault = f"record {number} follows another one than the one before it"
        elif record.at < clock:
            fault = f"record {number} is older than the one before it"
        if fault:
            ledger.add("ceremony.chain", False, fault)
            return False
        previous, clock = line.digest, record.at
    return ledger.add("ceremony.chain", True, f"{len(lines)} records follow each other")


def _ordered(script: Script, lines: Sequence[Line], ledger: Ledger) -> bool:
    """Check that steps are begun and done as the script has them, then nothing."""
    progress, begun = Progress(), False
    for number, line in enumerate(lines):
        event = line.record.event
        match event:
            case Opened():
                good = number == 0 and event.people == tuple(s.name for s in script.people)
            case Begun():
                good = event.step == progress.done + 1 <= len(script.steps)
            case Done():
                good = begun and event.step == progress.done + 1 <= len(script.steps)
                good = good and event.do == kind_of(script.steps[progress.done])
            case Closed():
                good = progress.done == len(script.steps) and not begun
        good = good and not progress.closed and (number > 0 or isinstance(event, Opened))
        if not good:
            ledger.add("ceremony.order", False, f"record {number} is not what comes next")
            return False
        begun = isinstance(event, Begun)
        progress.take(event)
    return ledger.add("ceremony.order", True, f"{progress.done} steps, in the script's order")


def _check_done(
    script: Script,
    progress: Progress,
    event: Done,
    tokens: Mapping[str, TokenName],
    ledger: Ledger,
) -> None:
    step = script.steps[progress.done]
    ledger.subject = f"step {event.step}, {event.do}"
    used = tuple(token.person for token in event.tokens)
    ledger.add(
        "ceremony.token",
        used == step.hands and _known_tokens(progress, event.tokens, tokens),
        "by the tokens of who does it",
        otherwise="by other tokens than those of who does it",
    )
    gone = [key for name in used for key in missing_keys(progress, name, event.found)]
    if gone:
        ledger.add("ceremony.token", False, f"the key {gone[0].label!r} was not in it any more")
    strangers = {item.person for item in event.found} - set(step.hands)
    strange = () if strangers else unexpected(script, progress, event.found)
    named = "; ".join(f"{item.kind} {item.label!r}" for item in strange[:5])
    if strange and script.others == "named":
        ledger.add("ceremony.objects", True, f"beside what was expected: {named}")
    else:
        ledger.add(
            "ceremony.objects",
            not strange and not strangers,
            "nothing in a token that nobody expects",
            otherwise=f"not expected: {named or 'objects of a token that is not used'}",
        )
    ledger.add(
        "ceremony.keys",
        _fits(step, progress, event.keys),
        f"keys made: {len(event.keys)}, as by such a step",
        otherwise="makes other keys than such a step does",
    )
    # Else what one step wrote, and was read aloud, could be another file by the time it is used.
    swapped = [f.name for f in event.files if progress.files.get(f.name, f.sha256) != f.sha256]
    if swapped:
        ledger.add("ceremony.files", False, f"used another file than was written: {swapped[0]}")
    ledger.subject = f"ceremony of {script.environment}"


def _known_tokens(
    progress: Progress, used: Sequence[UsedToken], tokens: Mapping[str, TokenName]
) -> bool:
    """Tell whether everybody has the token that the script names, the same all along, alone."""
    seen = dict(progress.tokens)
    for token in used:
        mine = seen.get(token.person)
        others = {known.identity for name, known in seen.items() if name != token.person}
        if not tokens[token.person].names(token) or token.identity in others:
            return False
        if mine is not None and mine.identity != token.identity:
            return False
        seen[token.person] = token
    return True


def _fits(step: Step, progress: Progress, keys: Sequence[MadeKey]) -> bool:
    uses = _MAKES.get(type(step), ())
    known = {_identity(key) for key in progress.keys}
    return (
        all(key.person in step.hands for key in keys)
        and len({_identity(key) for key in keys} - known) == len(keys)
        and (not uses) == (not keys)
        and (not uses or keys[0].use == uses[0])
        and all(key.use in uses for key in keys)
        and sum(key.use == "sign" for key in keys) <= 1
    )


def _identity(key: MadeKey) -> tuple[str, str]:
    # Several tokens may trust one wrapping key; any other key is in one token.
    return (key.person if key.use == "wrapping" else "", key.key_id)


def _signers_of(script: Script, progress: Progress, event: object) -> tuple[str, ...]:
    """Name who signs a record: whose tokens worked, in the end everybody."""
    match event:
        case Done():
            hands = script.steps[progress.done - 1].hands
            return tuple(name for name in hands if progress.signing_key(name))
        case Closed():
            return progress.signers
        case _:
            return ()


def who_signs(script: Script, progress: Progress, event: Done | Closed) -> tuple[str, ...]:
    """Name who has to sign a record that is about to be written after ``progress``."""
    after = Progress(
        done=progress.done, keys=[*progress.keys], tokens=progress.tokens, files=progress.files
    )
    after.take(event)
    return _signers_of(script, after, event)


def _who_signed(line: Line, progress: Progress) -> tuple[str, ...]:
    signed = {signature.keyid for signature in line.signatures}
    keys = ((name, progress.signing_key(name)) for name in progress.signers)
    return tuple(name for name, key in keys if key is not None and key.key_id in signed)


def _check_signatures(
    line: Line, wanted: Sequence[str], progress: Progress, ledger: Ledger
) -> None:
    """Check that who has to signed a record, and nobody else did."""
    number = line.record.number
    keys = {
        key.key_id: key.spki
        for name in wanted
        if (key := progress.signing_key(name)) is not None and key.spki is not None
    }
    # The last record is signed by one after the other: who has not is said by `judge_transcript`.
    waiting = isinstance(line.record.event, Closed)
    with ledger.failing("ceremony.signature"):
        for signature in line.signatures:
            spki = keys.get(signature.keyid)
            if spki is None:
                raise Refused(
                    f"record {number} is signed by a key that has no part in it",
                    check="ceremony.signature",
                )
            try:
                verify(spki, signing_bytes(line.record), signature.sig)
            except (Refused, Malformed) as error:
                raise Refused(
                    f"a signature of record {number} does not hold", check="ceremony.signature"
                ) from error
        if len(line.signatures) < len(keys) and not waiting:
            raise Refused(
                f"record {number} is not signed by all whose tokens worked",
                check="ceremony.signature",
            )
        if keys:
            ledger.add("ceremony.signature", True, f"record {number}: {', '.join(wanted)}")
