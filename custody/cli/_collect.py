"""``collect``: a release as one file, for whoever has one file and one command."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.cli._case import CaseArgument, PolicyPinOption, TsaRootOption, pinned, tsa_roots
from custody.cli._home import HomeOption, JsonOption, example, open_home
from custody.cli._ui import Screen
from custody.cli._words import count, plain
from custody.encoding import Digest, Record
from custody.errors import Incomplete

if TYPE_CHECKING:
    from custody.ops.collect import Collected

_SHORTEST = 8
_MEMBER = re.compile(r"([a-z-]+)-[0-9a-f]{64}\.[a-z-]+")


class CollectedView(Record, frozen=True):
    """What ``collect --json`` shows."""

    file: str
    digest: str
    members: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]


def add_collect(app: typer.Typer) -> None:
    """Add ``collect`` to the auditor's commands."""
    app.command(
        epilog=example(
            "custody auditor collect ./case --policy-pin 3f9c…e1 --out gpu-7.case",
            "custody auditor collect ./archive --request 7a1970b7 --out gpu-7.case",
        )
    )(collect)


def collect(
    case: CaseArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write; never overwrites.", metavar="FILE.case")
    ],
    request: Annotated[
        list[str] | None,
        typer.Option(
            "--request",
            help="Collect this request, by its digest or how it begins; may be repeated"
            "  [default: all]",
            metavar="DIGEST",
        ),
    ] = None,
    policy_pin: PolicyPinOption = None,
    tsa_root: TsaRootOption = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            help="Add what shows the heads of the log that lies here to be of one history.",
            metavar="LOG",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a release into one file, with everything that its verdict rests on.

    The same statements give the same bytes, whatever their files are called and wherever they lie.
    What is not about the release, or vouched for by nobody whom the policy knows, is left out and
    named; so is what is missing.  With --log, what shows the log's heads to be of one history is
    added.  Exit code 4 if something is missing: the file is written.
    """
    from custody.formats.casefile import SUFFIX
    from custody.ops import collect as collecting
    from custody.ops.landing import check_absent, write_new_file

    screen = Screen(as_json=as_json)
    if out.suffix != SUFFIX:
        raise typer.BadParameter(f"a name that ends in {SUFFIX}", param_hint="--out")
    check_absent(out)
    pin = pinned(screen, policy_pin, home)
    documents = collecting.read_case(*case).documents
    known = [found.digest for found in documents.asked]
    chosen = {_named(one, known) for one in request} if request else None
    gathering = partial(
        collecting.collect if log is None else _with_log(home, log),
        pin=pin,
        requests=chosen,
        tsa_roots=tsa_roots(tsa_root),
    )
    found = gathering(documents)
    write_new_file(out, found.data)
    missing = tuple(f"{gap.kind} {gap.digest}, named by {gap.named_by}" for gap in found.missing)
    view = CollectedView(
        file=str(out),
        digest=found.digest,
        members=found.members,
        left_out=found.left_out,
        missing=missing,
    )

    def words() -> None:
        screen.show(f"file       {out}: {len(view.members)} members")
        screen.show(f"digest     {view.digest}")
        for name in view.missing:
            screen.show(f"missing    {name}")
        for words in _summed(view.left_out):
            screen.say(f"left out   {plain(words)}")

    screen.result(view, words)
    if missing:
        raise Incomplete("the file is written, and is not whole", missing=missing, where=str(out))


def _with_log(home: Path | None, log: str) -> Callable[..., Collected]:
    """Return how to collect with what the log at a place shows."""
    from custody.ops.audit_home import collect_from_home
    from custody.transports.api import open_source

    return partial(collect_from_home, open_home(home, "auditor"), source=open_source(log))


def _summed(names: tuple[str, ...]) -> list[str]:
    """Say how many files of each kind were left out; --json names them."""
    found = [(_MEMBER.fullmatch(name), name) for name in names]
    kinds = Counter(match[1] for match, _ in found if match)
    others = [name for match, name in found if not match]
    return [*others, *(count(number, kind) for kind, number in sorted(kinds.items()))]


def _named(beginning: str, known: list[Digest]) -> Digest:
    """Find the one request whose digest begins so."""
    found = sorted({digest for digest in known if digest.startswith(beginning.lower())})
    if len(beginning) < _SHORTEST or len(found) != 1:
        raise Incomplete(
            "not how one request here begins, by 8 digits or more",
            missing=sorted(known),
            where=beginning,
        )
    return found[0]
