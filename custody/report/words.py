"""What a report says in words, and how it writes what strangers wrote."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from custody.encoding import Digest
from custody.formats.ceremony import Seat
from custody.ops.audit import AuditedRelease
from custody.ops.audit_time import TimeBasis
from custody.rules.endings import Outcome

#: The longest piece of a stranger's text a page shows, in characters.
MAX_TEXT_CHARS = 600
_GROUP = 8

_SENTENCES: dict[Outcome, str] = {
    "opened-and-burned": "{host} opened it, and its TPM proved that the key opens nothing more.",
    "opened-not-burned": "{host} opened it; nothing here proves that the key opens nothing more.",
    "opened-burn-not-provable": "{host} opened it with a key in an HSM: its boot state is unknown, "
    "and that the key opens nothing more cannot be proved.",
    "retained": "{host} opened it, and keeps the key sealed in its TPM for restarts.",
    "never-opened": "{host} did not open it, and its TPM proved that the key opens nothing.",
    "failed": "{host} says it did not open it; nothing here proves that it no longer can.",
    "approved": "The quorum approved it; nothing here shows that {host} opened it.",
    "open": "Approvals are missing; nothing here shows that {host} opened it.",
    "refused": "At least one check fails; nothing here shows that {host} opened it.",
}
_OUTCOMES: dict[Outcome, str] = {
    "opened-and-burned": "opened and burned",
    "opened-not-burned": "opened, not shown to be burned",
    "opened-burn-not-provable": "opened by a key in an HSM, burn not provable",
    "retained": "opened, and kept sealed for restarts",
    "never-opened": "never opened, and burned",
    "failed": "not opened, not shown to be burned",
    "approved": "approved, not shown to be opened",
    "open": "open, approvals are missing",
    "refused": "refused",
}
_BASES: dict[TimeBasis, str] = {
    "vouched": "by then its request and approvals were there: {by}",
    "claimed": "the time its own statements claim; nobody vouches for it",
    "stated": "a time the auditor stated",
}


def plain(text: str) -> str:
    """Show text without anything that hides, moves or turns around what stands beside it.

    Control, format and direction characters are shown as U+FFFD, one each: a name could otherwise
    be made to read as another.  What is longer than `MAX_TEXT_CHARS` is cut, and says so.
    """
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    if len(shown) <= MAX_TEXT_CHARS:
        return shown
    return f"{shown[:MAX_TEXT_CHARS]}… ({len(shown)} characters)"


def groups(digest: Digest) -> tuple[str, ...]:
    """Cut a digest into pieces of eight digits, as people compare them."""
    return tuple(digest[at : at + _GROUP] for at in range(0, len(digest), _GROUP))


def clipped(text: str, limit: int) -> str:
    """Shorten a name for a picture, where lines do not break: its beginning and its end stay."""
    shown = plain(text)
    if len(shown) <= limit:
        return shown
    tail = (limit - 1) // 3
    return f"{shown[: limit - 1 - tail]}…{shown[-tail:]}"


def cut(text: str, limit: int) -> str:
    """Shorten a sentence for a picture."""
    shown = plain(text)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def at(moment: datetime) -> str:
    """Write a moment for people."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def later(gap: timedelta) -> str:
    """Write how much later something was, in one unit: 40 s, 12 min, 5 h, 3 d."""
    seconds = int(gap.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def count(number: int, thing: str) -> str:
    """Write a number of things: 1 check, 2 checks."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def listed(names: tuple[str, ...]) -> str:
    """Write names in a row."""
    return ", ".join(names)


def seats(people: Iterable[Seat]) -> str:
    """Write who sat at a table, each with what he is."""
    return ", ".join(f"{seat.name} ({seat.role})" for seat in people)


def sums(releases: int, unsound: int) -> str:
    """Say how many releases hold."""
    if not unsound:
        return f"All {releases} releases hold, judged again from the files of the case alone."
    return f"{unsound} of {releases} releases {'does' if unsound == 1 else 'do'} not hold."


def outcome(release: AuditedRelease) -> str:
    """Say in a few words what came of a request."""
    return _OUTCOMES[release.outcome]


def device(release: AuditedRelease) -> str:
    """Say what a host's word rests on; empty where nothing here tells."""
    kind = release.exhibits.trust_class
    if kind is None:
        return ""
    return "key in an HSM" if kind == "hsm-key" else f"{kind} TPM"


def basis(release: AuditedRelease) -> str:
    """Say what the moment of judgement rests on."""
    return _BASES[release.time].format(by=release.time_by)


def told(release: AuditedRelease) -> str:
    """Say in one sentence what came of a request."""
    return _SENTENCES[release.outcome].format(host=release.host)


def why(release: AuditedRelease) -> tuple[str, ...]:
    """Say why a release is sound, or is not, one sentence each."""
    failed = [verdict for verdict in release.verdicts if verdict.outcome == "fail"]
    made = sum(verdict.outcome == "pass" for verdict in release.verdicts)
    complete = release.tally is not None and release.tally.complete
    opened = release.receipt is not None and release.receipt.predicate.outcome != "failed"
    if failed:
        holds = f"{count(len(failed), 'check')} failed, {made} hold."
    else:
        holds = f"All {count(made, 'check')} that apply hold."
    if complete:
        quorum = "The quorum was complete."
    elif opened:
        quorum = "It was opened without a complete quorum that these files show."
    elif release.tally is None:
        quorum = "The answers could not be judged."
    else:
        quorum = "The quorum is not complete, and it was not shown to be opened."
    return (holds, quorum)
