"""``custody log append``: put statements into a log, one's own and what others have offered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import HomeOption, JsonOption, PinFdOption, example, moment, open_home
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.cli.log import PolicyOption, StoreArgument, ask_all
from custody.encoding import Record
from custody.formats.logentry import LogEntry, decode_entry
from custody.formats.logproof import LogProof
from custody.log.offers import drop_offers, take_offers
from custody.ops import logs
from custody.ops.landing import check_absent, write_new_file
from custody.transports.api import open_store

_ROLE = "log"


class Appended(Record, frozen=True, kw_only=True):
    """What ``append --json`` shows of a statement; ``file`` is None where it was offered."""

    index: int
    kind: str
    digest: str
    file: str | None
    proof: str | None


def add_append(app: typer.Typer) -> None:
    """Add it to the log's verbs."""
    app.command(
        epilog=example(
            "custody log append ./log *.dsse --proofs ./proofs",
            "custody log append ./log --offered",
        )
    )(append)


def append(
    log: StoreArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Statements.", metavar="FILE", show_default=False),
    ] = None,
    offered: Annotated[
        bool, typer.Option("--offered", help="Log also what others have offered.")
    ] = False,
    proofs: Annotated[
        Path | None,
        typer.Option("--proofs", help="Write NAME.tlog-proof files here.", metavar="DIR"),
    ] = None,
    policy: PolicyOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Log the digests of statements, all in one batch.

    With --policy its witnesses cosign before anything is published.
    """
    screen, given = Screen(as_json=as_json), files or []
    if not given and not offered:
        raise typer.BadParameter("statements, --offered, or both", param_hint="FILE")
    targets = [None if proofs is None else proofs / f"{file.stem}.tlog-proof" for file in given]
    for target in targets:
        if target is not None:
            check_absent(target)
    where, store = open_home(home, _ROLE), open_store(log)
    waiting = take_offers(store) if offered else ()
    entries = [logs.read_entry(file) for file in given]
    entries += [entry for entry in map(decode_entry, waiting) if entry not in entries]
    cosigning = None if policy is None else ask_all(policy)
    with open_token(logs.log_identity(where).token, pin_fd=pin_fd) as opened:
        writer = logs.open_writer(where, store, opened, now=moment(None), cosigning=cosigning)
        done = writer.append([entry.encode() for entry in entries])
    drop_offers(store, waiting)
    tree = logs.tree_of(store, done.signed)
    for index, (target, entry) in enumerate(zip(targets, entries, strict=False), done.start):
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            proof = LogProof(index, tree.inclusion(index), done.signed, entry.encode())
            write_new_file(target, proof.encode())
    _show(screen, done.start, entries, given, targets)


def _show(
    screen: Screen,
    start: int,
    entries: Sequence[LogEntry],
    files: Sequence[Path],
    targets: Sequence[Path | None],
) -> None:
    names = [str(file) for file in files]
    proofs = [None if target is None else str(target) for target in targets]
    shown = [
        Appended(
            index=start + at,
            kind=entry.kind,
            digest=entry.digest,
            file=names[at] if at < len(names) else None,
            proof=proofs[at] if at < len(proofs) else None,
        )
        for at, entry in enumerate(entries)
    ]
    rows = [(str(row.index), row.kind, row.digest, row.file or "(offered)") for row in shown]
    screen.result(shown, lambda: screen.table(("index", "kind", "digest", "file"), rows))
