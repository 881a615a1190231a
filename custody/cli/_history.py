"""A log beside an archive: what it shows now, and what an auditor has seen of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from custody.cli._home import open_home
from custody.cli._ui import Screen
from custody.errors import Refused

if TYPE_CHECKING:
    from custody.formats.checkpoint import SignedCheckpoint
    from custody.formats.logentry import LogEntry
    from custody.formats.state import EnrolmentMemory
    from custody.ops.archive import Archive


def linked(
    found: Archive, log: str, pin: str, home: Path | None
) -> tuple[Archive, Iterable[tuple[int, LogEntry]]]:
    """Read the log that the newest policy names, and hold every head against it: the archive's own,
    and what was seen before.
    """
    from custody.formats.logentry import decode_entry
    from custody.ops.heads import link_heads
    from custody.rules.history import histories_of, logs_of, of_log
    from custody.transports.api import open_source

    documents = found.documents()
    logs = logs_of(documents, pin=pin)
    if not logs:
        raise Refused("no policy here names a log", check="log.policy", where=log)
    policies = of_log(logs, logs[-1].logs[0].key.name)
    where = open_home(home, "auditor")
    documents, followed = link_heads(where, policies, documents, open_source(log))
    entries = [
        (index, decode_entry(data)) for index, data in followed.tree.entries(0, followed.tree.size)
    ]
    return replace(found, histories=histories_of(documents, logs)), entries


def remembered(policy_pin: str | None, home: Path | None) -> Sequence[SignedCheckpoint]:
    """Return the heads that a home has seen; none where somebody brings his pin and names none."""
    from custody.formats.checkpoint import decode_checkpoint
    from custody.ops.heads import seen_logs

    if policy_pin is not None and home is None:
        return ()
    return [decode_checkpoint(log.note) for log in seen_logs(open_home(home, "auditor")).logs]


def retired(policy_pin: str | None, home: Path | None, pin: str) -> Sequence[EnrolmentMemory]:
    """Return which hosts a home knows to be retired in the environment of its pin, as `remembered`.

    Files can leave out that one was.
    """
    if policy_pin is not None and home is None:
        return ()
    where = open_home(home, "auditor")
    known = where.memory() if where.has_memory() else None
    return known.enrolments if known is not None and known.pin == pin else ()


def say_histories(screen: Screen, found: Archive) -> None:
    """Say which logs have shown this archive two histories, or may have."""
    from custody.cli._words import plain
    from custody.rules.history import told

    for history in found.histories:
        if history.conflict is not None:
            both = "; ".join(told(head) for head in history.conflict)
            screen.say(f"NOT SOUND  {plain(history.origin)} has signed two histories: {both}")
        elif history.loose:
            sizes = ", ".join(str(head.checkpoint.size) for head in history.loose)
            screen.say(
                f"{plain(history.origin)}: heads of {sizes} entries: one history is not shown"
            )
