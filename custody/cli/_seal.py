"""``seal``, ``inspect`` and ``check``: what a publisher does with a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from custody.cli import _words
from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    OutOption,
    PinFdOption,
    example,
    moment,
    read_digest,
)
from custody.cli._log import LogOption, offer
from custody.cli._ui import EXIT_REFUSED, Screen
from custody.encoding import Record, encode, format_time
from custody.errors import Incomplete, Malformed, Unavailable
from custody.ops.ahead import Ahead, sealing_ahead
from custody.ops.landing import check_absent

# The rest is imported by the commands: `seal` has something begun before it waits for that.
if TYPE_CHECKING:
    from custody.cli._session import Unlocked
    from custody.ops.delta import Known
    from custody.ops.home import Home
    from custody.ops.resume import SealKeeper
    from custody.ops.seal import Sealed, SealOrder
    from custody.rules.situation import Situation

#: The folder of a publisher's home that has digests and fingerprints of what he sealed.
_SEALED = "sealed"
_MAX_DAYS = 36_500


class SealedView(Record, frozen=True):
    """What ``seal --json`` shows."""

    bundle: str
    manifest: str
    files: int
    size_bytes: int
    parts: int
    payload_bytes: int
    taken_bytes: int
    compressed_bytes: int
    empty_directories: tuple[str, ...]


class CoreView(Record, frozen=True):
    """What ``inspect --json`` shows: all that is public about a bundle."""

    manifest: str
    environment: str
    policy_version: int
    publisher: str
    part_size_bytes: int
    part_count: int
    part_digest: str
    sealed_at: datetime
    not_after: datetime
    replaces: str | None
    site: tuple[str, ...] | None
    slots: int
    leaves: int


class CheckedView(Record, frozen=True):
    """What ``check --json`` shows."""

    sound: bool
    checks: tuple[_words.CheckView, ...]


def add_seal(app: typer.Typer) -> None:
    """Add the publisher's verbs."""
    app.command(
        epilog=example(
            "custody publisher seal ./MiniLM --name MiniLM --release 1.2 \\",
            "    --env ./production --out ./bundle",
        )
    )(seal)
    app.command(epilog=example("custody publisher inspect ./bundle"))(inspect)
    app.command(epilog=example("custody publisher check ./bundle --env ./production"))(check)


def seal(
    model: Annotated[Path, typer.Argument(help="The model's directory.", metavar="MODEL")],
    out: OutOption,
    name: Annotated[str, typer.Option("--name", help="What officers will read.")],
    release: Annotated[str, typer.Option("--release", help="The model's version.")],
    env: EnvOption = None,
    notes: Annotated[str, typer.Option("--notes", help="More for officers to read.")] = "",
    days: Annotated[
        int,
        typer.Option(
            "--days",
            help="For how many days it may be released.",
            metavar="N",
            min=1,
            max=_MAX_DAYS,
        ),
    ] = 90,
    not_after: Annotated[
        str | None, typer.Option("--not-after", help="Or until when.", metavar="TIME")
    ] = None,
    replaces: Annotated[
        str | None,
        typer.Option("--replaces", help="The manifest this one replaces.", metavar="DIGEST"),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            "--site",
            help="Whose HSM it takes, of the policy's sites; needed where there are several.",
            metavar="NAME",
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option("--signature", help="Your own model.sig to carry.", metavar="FILE"),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base",
            help="Carry only what differs from this bundle's model, which every host has.",
            metavar="BUNDLE",
        ),
    ] = None,
    base_model: Annotated[
        Path | None,
        typer.Option(
            "--base-model",
            help="The files --base was sealed from: finds also tensors that moved.",
            metavar="DIR",
        ),
    ] = None,
    compress: Annotated[
        Literal["none", "auto"],
        typer.Option("--compress", help="auto: compress it, where a sample says that this pays."),
    ] = "none",
    start_over: Annotated[
        bool,
        typer.Option("--start-over", help="Throw away what an interrupted seal left here."),
    ] = False,
    log: LogOption = None,
    home: HomeOption = None,
    pin_fd: PinFdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal a model for an environment: readable by nobody without its quorum.

    An interrupted seal goes on where it stopped when the same command is given again; one with
    --base or compressed starts again.  Hosts open an update with --base too.
    """
    with _memory_begun(model, out, known=base is None and compress == "none") as ahead:
        from custody.cli._anew import judged_anew
        from custody.cli._session import stand, unlocked
        from custody.formats.model import MAX_SIGNATURE_BYTES
        from custody.ops.folders import read_file
        from custody.ops.seal import SealOrder, seal_model

        screen = Screen(as_json=as_json)
        standing = stand(home, env, "publisher")
        now = standing.situation.now
        until = moment(not_after, option="--not-after") if not_after else now + timedelta(days=days)
        order = SealOrder(
            name=name,
            version=release,
            notes=notes,
            not_after=until,
            replaces=read_digest(replaces, option="--replaces") if replaces else None,
            site=site,
            model_signature=(
                read_file(signature, max_bytes=MAX_SIGNATURE_BYTES) if signature else None
            ),
            base=_known_base(standing.home, model, base, base_model),
            compress=compress,
        )
        _check_order(order, standing.situation)
        if until > (expires := standing.situation.trusted.policy.expires_at):
            screen.say(
                f"the policy in force ends {expires:%Y-%m-%d}, this bundle {until:%Y-%m-%d}: "
                "after the former it takes the next policy to release it"
            )
        check_absent(out)
        with unlocked(standing.home, pin_fd) as keys:
            situation = judged_anew(screen, standing.home, standing.situation)
            keeper = _keeper(standing.home, keys)
            if keeper and start_over:
                keeper.forget(out)
            kept = keeper if base is None and compress == "none" else None
            if base is None and compress == "none":
                _say_how_far(screen, kept, out)
            with screen.resumable(_is_begun(kept, out)), screen.progress() as progress:
                sealed = seal_model(
                    model,
                    out,
                    order,
                    situation=situation,
                    signer=keys.signer,
                    token_random=keys.token.random,
                    keeper=keeper,
                    ahead=ahead,
                    progress=progress,
                )
    _remember(screen, standing.home, sealed)
    if base and not sealed.taken_bytes:
        screen.say("nothing was found that the base has: this is the whole model")
    if compress == "auto" and not sealed.compressed_bytes:
        screen.say("compressing would save next to nothing: sealed as it is")
    for directory in sealed.empty_directories:
        screen.say(f"left out: {_words.plain(directory)} is an empty directory")
    screen.result(_sealed_view(out, sealed), lambda: _show_sealed(screen, out, sealed))
    offer(screen, standing.situation.trusted.policy, log, [encode(sealed.statement.envelope)])


@contextmanager
def _memory_begun(model: Path, out: Path, *, known: bool) -> Iterator[Ahead | None]:
    """Have memory made for a payload of all of a model, if it is known to become so large."""
    if not known:
        yield None
        return
    with sealing_ahead(model, out) as ahead:
        yield ahead


def _check_order(order: SealOrder, situation: Situation) -> None:
    """Name the option or officer that is wrong, before a PIN is asked and anything is sealed."""
    from custody.ops.envelope_seal import check_officers
    from custody.ops.seal import check_order

    check_officers(situation)
    try:
        check_order(order, now=situation.now)
    except Malformed as error:
        option = {"version": "--release"}.get(error.where or "", f"--{error.where}")
        raise typer.BadParameter(error.reason, param_hint=option.replace("_", "-")) from error


def _remember(screen: Screen, home: Home, sealed: Sealed) -> None:
    if sealed.remembered is None:
        return
    try:
        sealed.remembered.remember(home.folder(_SEALED))
    except Unavailable as error:
        # The bundle is whole; what is lost is a convenience.
        screen.say(f"updates to this bundle will need --base-model: {error}")


def _known_base(
    home: Home, model: Path, base: Path | None, base_model: Path | None
) -> Known | None:
    if base is None:
        if base_model is not None:
            raise typer.BadParameter("--base says which bundle it is of", param_hint="--base-model")
        return None
    from custody.ops.bundle import MANIFEST
    from custody.ops.delta import known_base

    if base.is_dir() and not (base / MANIFEST).exists():
        raise Incomplete(
            f"no bundle: there is no {MANIFEST} in it",
            missing=("the bundle that every host has, or its manifest",),
            where=str(base),
            hint="--base takes what was sealed; the files it was sealed from are --base-model DIR",
        )
    return known_base(base, model, memory=home.folder(_SEALED), base_model=base_model)


def _keeper(home: Home, keys: Unlocked) -> SealKeeper | None:
    """Return what an interrupted seal is kept by: a share key in the publisher's own token."""
    shares = home.identity().shares
    if not shares:
        return None
    from custody.ops.resume import SealKeeper

    return SealKeeper(home.folder("unfinished"), keys.openers[0], shares[0].suite)


def _say_how_far(screen: Screen, keeper: SealKeeper | None, out: Path) -> None:
    if keeper is None:
        screen.say("if this is interrupted it starts again: there is no share key in your token")
    elif (there := keeper.parts_there(out)) is not None:
        screen.say(f"going on: {there} parts are there and will be checked")


def _is_begun(keeper: SealKeeper | None, out: Path) -> Callable[[], bool]:
    """Return what tells whether a seal would go on."""
    return lambda: keeper is not None and keeper.parts_there(out) is not None


def _sealed_view(out: Path, sealed: Sealed) -> SealedView:
    return SealedView(
        bundle=str(out),
        manifest=sealed.statement.digest,
        files=sealed.files,
        size_bytes=sealed.size_bytes,
        parts=sealed.part_count,
        payload_bytes=sealed.payload_bytes,
        taken_bytes=sealed.taken_bytes,
        compressed_bytes=sealed.compressed_bytes,
        empty_directories=sealed.empty_directories,
    )


def _show_sealed(screen: Screen, out: Path, sealed: Sealed) -> None:
    files = _words.count(sealed.files, "file")
    screen.show(f"sealed   {files}, {_words.size(sealed.size_bytes)}, into {out}")
    if sealed.taken_bytes:
        screen.show(
            f"carries  {_words.size(sealed.payload_bytes)}; "
            f"{_words.size(sealed.taken_bytes)} are in the base"
        )
    if sealed.compressed_bytes:
        share = sealed.compressed_bytes / sealed.size_bytes
        screen.show(f"carries  {_words.size(sealed.compressed_bytes)}, compressed to {share:.0%}")
    screen.show(f"manifest {sealed.statement.digest}")


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle.", metavar="BUNDLE")],
    as_json: JsonOption = False,
) -> None:
    """Show all that is public about a bundle.  Nothing is checked."""
    from custody.ops.bundle import Bundle

    screen = Screen(as_json=as_json)
    statement = Bundle.at(bundle).statement
    core, envelope = statement.predicate.core, statement.predicate.envelope
    view = CoreView(
        manifest=statement.digest,
        environment=core.environment,
        policy_version=core.policy_version,
        publisher=core.publisher,
        part_size_bytes=core.part_size_bytes,
        part_count=core.part_count,
        part_digest=core.part_digest,
        sealed_at=core.sealed_at,
        not_after=core.not_after,
        replaces=core.replaces,
        site=core.site,
        slots=len(envelope.slots),
        leaves=len(envelope.commitments),
    )

    def words() -> None:
        for field in CoreView.__struct_fields__:
            screen.show(f"{field.replace('_', ' '):15} {_in_words(getattr(view, field))}")
        screen.say("nothing here was checked: custody publisher check BUNDLE")

    screen.result(view, words)


def _in_words(value: object) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, tuple):
        return ", ".join(value)
    return "none" if value is None else str(value)


def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle.", metavar="BUNDLE")],
    env: EnvOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make every check of a bundle that needs no key, down to the last part.

    An interrupted check goes on where it stopped, as long as the files are the same.
    """
    from custody.cli._session import stand
    from custody.ops.bundle import Bundle
    from custody.ops.check import check_bundle
    from custody.ops.resume import CheckMemory
    from custody.rules.verdicts import passed

    screen = Screen(as_json=as_json)
    standing = stand(home, env, "publisher")
    opened, memory = Bundle.at(bundle), standing.home.folder("checks")
    goes_on = partial(CheckMemory.is_left, memory, opened.statement.digest)
    with screen.resumable(goes_on), screen.progress() as progress:
        verdicts = check_bundle(
            opened, situation=standing.situation, memory=memory, progress=progress
        )
    view = CheckedView(sound=passed(verdicts), checks=_words.check_views(verdicts))
    screen.result(view, lambda: screen.verdicts(verdicts))
    if not view.sound:
        raise typer.Exit(EXIT_REFUSED)
