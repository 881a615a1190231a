"""``custody log``: keep a public log of statements, follow one, witness one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._home import (
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    TokenOption,
    example,
    moment,
    open_home,
    role_app,
)
from custody.cli._later import Group, Verbs
from custody.cli._ui import Screen
from custody.cli._wiring import open_token
from custody.crypto.notekeys import parse_vkey
from custody.encoding import Record, format_time
from custody.errors import Refused
from custody.formats.case import EntryProof
from custody.formats.logpolicy import MAX_POLICY_BYTES, LogPolicy, decode_log_policy, trust_key
from custody.formats.logproof import MAX_PROOF_BYTES, decode_proof
from custody.formats.witnessing import CosignRequest
from custody.log.reader import Followed
from custody.log.witness import Answer
from custody.ops import heads, logs
from custody.ops.folders import read_file, reading
from custody.ops.home import Home
from custody.ops.landing import check_absent, write_new_file
from custody.transports.api import open_source, open_store


def _append(app: typer.Typer) -> None:
    from custody.cli._append import add_append

    add_append(app)


def _countersign(app: typer.Typer) -> None:
    from custody.cli._countersign import add_countersign

    add_countersign(app)


def _trust_pin(app: typer.Typer) -> None:
    from custody.cli._trust import add_trust

    add_trust(app, "log")


app = role_app(
    "log",
    "custody log init ./log --origin log.example.com/models --token pkcs11:token=log",
    "custody log append ./log manifest.dsse request.dsse alice.dsse --proofs ./proofs",
    "custody log checkpoint https://log.example.com/models --policy logs.policy",
    verbs=(
        Verbs(("append",), _append),
        Verbs(("countersign",), _countersign),
        Verbs(("trust",), _trust_pin),
    ),
)


witness_app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Be a witness, or ask witnesses.",
    epilog=example("custody log witness init --name witness.example.com/w1"),
)
app.add_typer(witness_app, name="witness")

_ROLE = "log"

StoreArgument = Annotated[
    str,
    typer.Argument(help="Where the log lies: a directory, s3://, gs:// or az://.", metavar="LOG"),
]
SourceArgument = Annotated[
    str,
    typer.Argument(help="Where the log is read: as for writing, or https://.", metavar="LOG"),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="The log's verifier key: NAME+ID+KEY.", metavar="VKEY"),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="Logs and witnesses that count (tlog-policy).", metavar="FILE"),
]


class Shown(Record, frozen=True, kw_only=True):
    """What commands show of a checkpoint with ``--json``."""

    origin: str
    size: int
    root: str
    witnessed_at: str | None
    witnesses: tuple[str, ...]
    new: int


@app.command(
    epilog=example(
        "custody log init ./log --origin log.example.com/models --token pkcs11:token=log"
    )
)
def init(
    log: StoreArgument,
    origin: Annotated[
        str, typer.Option("--origin", help="The log's name: an address without scheme.")
    ],
    token: TokenOption,
    label: Annotated[str, typer.Option("--label", help="The key's label in the token.")] = "log",
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a log, with a key made in its token; shows the verifier key for others to trust."""
    screen = Screen(as_json=as_json)
    if "://" in origin:
        raise typer.BadParameter("a log's name has no scheme", param_hint="--origin")
    where, store = open_home(home, _ROLE), open_store(log)
    logs.check_may_begin(where, store, origin=origin)
    with open_token(token, pin_fd=pin_fd) as opened:
        key = logs.init_log(where, store, opened, uri=token, origin=origin, label=label)
    screen.result({"key": key.vkey}, lambda: screen.show(key.vkey))


@app.command(
    epilog=example("custody log checkpoint https://log.example.com/models --policy logs.policy")
)
def checkpoint(
    log: SourceArgument,
    key: KeyOption = None,
    policy: PolicyOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a log: verify its newest checkpoint, that it continues what was seen, and remember.

    Two heads that contradict each other are kept as evidence.
    """
    screen = Screen(as_json=as_json)
    _show(screen, heads.follow_log(open_home(home, _ROLE), open_source(log), _trust(key, policy)))


@app.command(epilog=example("custody log prove ./log alice.dsse --key VKEY --out alice.tlog-proof"))
def prove(
    log: SourceArgument,
    statement: Annotated[Path, typer.Argument(help="A logged statement.", metavar="FILE")],
    out: OutOption,
    key: KeyOption = None,
    policy: PolicyOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find a statement in a log and write the proof, which is good offline."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    entry = logs.read_entry(statement)
    where = open_home(home, _ROLE)
    followed = heads.follow_log(where, open_source(log), _trust(key, policy))
    index = followed.find(entry.encode())
    if index is None:
        raise Refused("is not in the log", check="log.missing", where=str(statement))
    write_new_file(out, replace(followed.prove(index), extra=entry.encode()).encode())
    screen.made(out)


@app.command(
    epilog=example(
        "custody log consistency ./log --old 1041 --key VKEY --out since-1041.tlog-consistency"
    )
)
def consistency(
    log: SourceArgument,
    old: Annotated[
        int, typer.Option("--old", help="How many entries were seen.", metavar="N", min=0)
    ],
    out: OutOption,
    key: KeyOption = None,
    policy: PolicyOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a log goes on from what somebody has seen of it, for who cannot read it."""
    screen = Screen(as_json=as_json)
    check_absent(out)
    where = open_home(home, _ROLE)
    followed = heads.follow_log(where, open_source(log), _trust(key, policy))
    if old > followed.tree.size:
        raise typer.BadParameter(
            f"the log has {followed.tree.size} entries only", param_hint="--old"
        )
    proof = CosignRequest(old, followed.tree.consistency(old), followed.signed)
    write_new_file(out, proof.encode())
    screen.made(out)


@app.command(epilog=example("custody log verify alice.tlog-proof alice.dsse --policy logs.policy"))
def verify(
    proof: Annotated[Path, typer.Argument(help="A .tlog-proof file.", metavar="PROOF")],
    statement: Annotated[Path, typer.Argument(help="The statement.", metavar="FILE")],
    key: KeyOption = None,
    policy: PolicyOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify offline that a statement is logged; where a home is named, in no other history than
    it has seen.
    """
    screen = Screen(as_json=as_json)
    entry = logs.read_entry(statement)
    trusted = _trust(key, policy)
    with reading(proof):
        read = decode_proof(read_file(proof, max_bytes=MAX_PROOF_BYTES))
        vouched = trusted.judge(read.signed)
        read.check_entry(entry.encode())
        if home is not None:
            where = open_home(home, _ROLE)
            heads.check_proof(where, vouched.log, EntryProof(entry=entry, proof=read))
    when = _when(vouched.seconds)
    shown = {"index": read.index, "log": vouched.log.name, "witnessedAt": when}

    def words() -> None:
        screen.show(f"entry {read.index} of {vouched.log.name}")
        screen.show(f"witnessed at {when}" if when else "time: claimed by nobody")

    screen.result(shown, words)


@app.command(
    epilog=example(
        "custody log serve ./log --listen 127.0.0.1:8460",
        "custody log serve --witness --policy logs.policy --listen 127.0.0.1:8461",
    )
)
def serve(
    log: Annotated[
        str | None, typer.Argument(help="Where the log lies.", metavar="LOG", show_default=False)
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="Address and port.", metavar="ADDRESS:PORT")
    ] = "127.0.0.1:8460",
    witness: Annotated[
        bool, typer.Option("--witness", help="Cosign the logs of --policy, as this home's witness.")
    ] = False,
    offers: Annotated[
        bool, typer.Option("--offers", help="Take entries that others offer, for append --offered.")
    ] = False,
    policy: PolicyOption = None,
    home: HomeOption = None,
) -> None:
    """Serve a log over HTTP, read-only; or be a witness for others' logs; or both."""
    from custody.transports.serve import LogServer

    if log is None and not witness:
        raise typer.BadParameter("a log, --witness, or both", param_hint="LOG")
    if witness and policy is None:
        raise typer.BadParameter("which logs are witnessed?", param_hint="--policy")
    if offers and log is None:
        raise typer.BadParameter("offers to which log?", param_hint="--offers")
    source = None if log is None else open_source(log)
    taking = open_store(log) if offers and log is not None else None
    answer = _answering(open_home(home, _ROLE), policy) if witness and policy else None
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter("is no ADDRESS:PORT", param_hint="--listen")
    with LogServer((host.strip("[]"), int(port)), source, answer, taking) as server:
        typer.echo(f"http://{host}:{server.server_port}/")
        server.serve_forever()


@app.command(epilog=example("custody log key"))
def key(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the verifier keys of this home: of its log, of its witness."""
    screen = Screen(as_json=as_json)
    found = [made.vkey for made in logs.own_keys(open_home(home, _ROLE))]
    screen.result({"keys": found}, lambda: screen.show("\n".join(found)))


@witness_app.command("init", epilog=example("custody log witness init --name w1.example.com"))
def witness_init(
    name: Annotated[str, typer.Option("--name", help="The witness's name, in its key.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a witness's key in this home; shows the verifier key for others to trust."""
    screen = Screen(as_json=as_json)
    made = logs.init_witness(open_home(home, _ROLE), name=name)
    screen.result({"key": made.vkey}, lambda: screen.show(made.vkey))


@witness_app.command("ask", epilog=example("custody log witness ask ./log --policy logs.policy"))
def witness_ask(
    log: StoreArgument,
    policy: Annotated[
        Path, typer.Option("--policy", help="The witnesses, with addresses.", metavar="FILE")
    ],
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have witnesses cosign the checkpoint that a log of ours has published already."""
    screen = Screen(as_json=as_json)
    where, store = open_home(home, _ROLE), open_store(log)
    with open_token(logs.log_identity(where).token, pin_fd=pin_fd) as opened:
        logs.open_writer(where, store, opened, now=moment(None)).add_cosignatures(ask_all(policy))
    _show(screen, heads.follow_log(where, store, _trust(None, policy)))


def _trust(key: str | None, policy: Path | None) -> LogPolicy:
    match key, policy:
        case str(), None:
            return trust_key(parse_vkey(key))
        case None, Path():
            return read_log_policy(policy)
        case _:
            raise typer.BadParameter("give it, or --policy: one of the two", param_hint="--key")


def read_log_policy(path: Path) -> LogPolicy:
    """Read a tlog-policy file."""
    with reading(path):
        return decode_log_policy(read_file(path, max_bytes=MAX_POLICY_BYTES))


def ask_all(policy: Path) -> logs.AskAll:
    """Return how the witnesses of a tlog-policy file are asked."""
    from custody.transports.web import post

    return logs.AskAll(read_log_policy(policy), post)


def _answering(home: Home, policy: Path) -> Callable[[bytes], Answer]:
    trusted = read_log_policy(policy)
    logs.witness_signer(home)

    def answer(body: bytes) -> Answer:
        return logs.answer_as_witness(home, trusted, body, seconds=int(time.time()))

    return answer


def _show(screen: Screen, followed: Followed) -> None:
    head, vouched = followed.signed.checkpoint, followed.vouched
    shown = Shown(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        witnessed_at=_when(vouched.seconds),
        witnesses=tuple(name for name, _ in vouched.witnesses),
        new=head.size - followed.seen,
    )

    def words() -> None:
        screen.show(f"log      {shown.origin}")
        screen.show(f"entries  {shown.size}, {shown.new} of them new here")
        screen.show(f"root     {shown.root}")
        screen.show(f"time     {shown.witnessed_at or 'claimed by nobody'}")
        for name, seconds in vouched.witnesses:
            screen.show(f"witness  {name}, {_when(seconds)}")

    screen.result(shown, words)


def _when(seconds: int | None) -> str | None:
    """Write a witness's time; one that no calendar holds is shown as it is."""
    if seconds is None:
        return None
    try:
        return format_time(datetime.fromtimestamp(seconds, UTC))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"
