"""How far a ceremony has come, and what may lie in a token then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from custody.encoding import Digest
from custody.formats.ceremony import (
    Enrol,
    MakeAuthority,
    MakeKek,
    MakeLogKey,
    Script,
    Step,
    TrustKey,
)
from custody.formats.keybackup import CARRIER_LABEL, WRAPPING_LABEL, carrier_id
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

#: As what a key that was made here lies in its token.
_KINDS = ("private", "public", "secret")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenName:
    """How a script names a token; what is None is not said."""

    label: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None

    def names(self, token: UsedToken) -> bool:
        """Tell whether a token is one of this name."""
        said = (
            (self.label, token.label),
            (self.serial, token.serial),
            (self.manufacturer, token.manufacturer),
            (self.model, token.model),
        )
        return all(wanted is None or wanted == found for wanted, found in said)


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


def plain(text: str) -> str:
    """Write a token's word for itself as one line: it may be any bytes."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:200]


def kind_of(step: Step) -> str:
    """Return the word a script has for a step."""
    return str(step.__struct_config__.tag)


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
