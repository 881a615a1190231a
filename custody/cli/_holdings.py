"""``custody auditor who-can-open`` and ``ever-held``: whose shares give what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._case import AtOption, PolicyPinOption, pinned
from custody.cli._home import HomeOption, JsonOption, example, moment
from custody.cli._ui import EXIT_INCOMPLETE, EXIT_REFUSED, Screen
from custody.cli._words import count
from custody.encoding import Digest, KeyId, Moment, Record
from custody.errors import Incomplete
from custody.formats.policy_text import format_quorum
from custody.ops.collect import read_case
from custody.ops.holdings import (
    Environment,
    Openers,
    ever_held,
    read_environment,
    who_can_open,
)
from custody.rules.holdings import Kind, Sealing

FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="The environment's folder, and bundles or folders with their manifests.",
        metavar="FILES",
    ),
]


class KeeperView(Record, frozen=True, kw_only=True):
    """One share: whose, and what has become of him.  It works whatever that is."""

    name: str
    leaf: str
    key: KeyId
    suite: str
    standing: str
    reason: str


class OpenersView(Record, frozen=True, kw_only=True):
    """Who can open one bundle; sets are null where there are too many to list."""

    manifest: Digest
    publisher: str
    policy_version: int
    sealed_at: Moment
    tree: str
    forbidden: str
    allowed: tuple[tuple[str, ...], ...] | None
    able: tuple[tuple[str, ...], ...] | None
    shares: tuple[KeeperView, ...]
    site: str
    """The site whose HSM it takes besides, whoever has the shares; empty: none."""
    same_key: tuple[Digest, ...]
    """Manifests that carry the same content key: whose shares open one open all."""
    recovery: KeyId | None
    """The key whose shares, put together, open it too."""
    recovery_among: str
    """Who can put that together; empty where there is none."""


class OpenersViews(Record, frozen=True, kw_only=True):
    """What ``who-can-open --json`` shows."""

    environment: str
    policy_version: int
    at: Moment
    bundles: tuple[OpenersView, ...]
    passed_over: tuple[str, ...]
    absent: tuple[Digest, ...]


class AloneView(Record, frozen=True, kw_only=True):
    """Somebody with a threshold of the shares of one bundle, under all his names."""

    names: tuple[str, ...]
    of: Kind
    leaves: tuple[str, ...]
    manifest: Digest


class KeyView(Record, frozen=True, kw_only=True):
    """One content key: in which manifests, who had it whole, who could make it alone."""

    manifests: tuple[Digest, ...]
    publishers: tuple[str, ...]
    custodians: tuple[str, ...]
    """Who opened it by the recovery key."""
    alone: tuple[AloneView, ...]


class HeldView(Record, frozen=True, kw_only=True):
    """What ``ever-held --json`` shows; ``complete``: nothing that is named is missing here."""

    environment: str
    versions: tuple[int, ...]
    ever: bool
    complete: bool
    keys: tuple[KeyView, ...]
    passed_over: tuple[str, ...]
    absent: tuple[Digest, ...]


def add_holdings(app: typer.Typer) -> None:
    """Add ``who-can-open`` and ``ever-held``."""
    app.command(
        "who-can-open",
        epilog=example("custody auditor who-can-open ./production ./bundle --policy-pin 3f9c…e1"),
    )(_who_can_open)
    app.command(
        "ever-held",
        epilog=example("custody auditor ever-held ./production ./bundles --policy-pin 3f9c…e1"),
    )(_ever_held)


def _who_can_open(
    files: FilesArgument,
    policy_pin: PolicyPinOption = None,
    at: AtOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say of every bundle which sets of officers can open it: by the rules, and by shares alone.

    Shares of officers who left, or whose keys are revoked, still work; they are named.  Exit code
    4: no manifest is here.
    """
    screen = Screen(as_json=as_json)
    environment = _environment(screen, files, policy_pin, at, home)
    found = who_can_open(environment)
    view = OpenersViews(
        environment=environment.policy.environment,
        policy_version=environment.policy.version,
        at=environment.papers.now,
        bundles=tuple(map(_openers_view, found)),
        passed_over=tuple(f"{one.manifest}: {one.reason}" for one in environment.passed_over),
        absent=environment.absent,
    )

    def words() -> None:
        for openers in found:
            for line in _openers_words(openers):
                screen.show(line)
        _show_rest(screen, environment)

    screen.result(view, words)
    _require_manifests(environment)


def _ever_held(
    files: FilesArgument,
    policy_pin: PolicyPinOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer: has anyone ever held a threshold of the shares of one key?

    Exit code 0: nobody has.  1: somebody has, and is named.  4: nobody has by what is here, but
    manifests that are named here, or the first policy versions, are missing, or no manifest is
    here at all.
    """
    screen = Screen(as_json=as_json)
    environment = _environment(screen, files, policy_pin, None, home)
    found = ever_held(environment)
    ever = any(key.alone for key in found)
    known = environment.from_the_first
    complete = bool(found) and known and not environment.absent and not environment.passed_over
    view = HeldView(
        environment=environment.policy.environment,
        versions=tuple(statement.predicate.version for statement in environment.versions),
        ever=ever,
        complete=complete,
        keys=tuple(
            KeyView(
                manifests=tuple(s.manifest.digest for s in key.manifests),
                publishers=tuple(sorted({s.publisher for s in key.manifests})),
                custodians=key.custodians,
                alone=tuple(
                    AloneView(names=one.names, of=one.of, leaves=one.leaves, manifest=one.manifest)
                    for one in key.alone
                ),
            )
            for key in found
        ),
        passed_over=tuple(f"{one.manifest}: {one.reason}" for one in environment.passed_over),
        absent=environment.absent,
    )

    def words() -> None:
        for line in _held_words(view):
            screen.show(line)
        _show_rest(screen, environment)

    screen.result(view, words)
    if ever:
        raise typer.Exit(EXIT_REFUSED)
    _require_manifests(environment)
    if not complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _environment(
    screen: Screen, files: list[Path], pin: str | None, at: str | None, home: Path | None
) -> Environment:
    digest = pinned(screen, pin, home)
    now = moment(at, option="--at")
    return read_environment(read_case(*files).documents, pin=digest, now=now)


def _require_manifests(environment: Environment) -> None:
    """Refuse to have answered for bundles none of which is here."""
    if environment.sealings:
        return
    over = len(environment.passed_over)
    raise Incomplete(
        "no manifest that can be judged is here" if over else "no manifest is here",
        missing=("manifests: bundles, or folders with their manifest.dsse",),
        hint="name them beside the environment's folder",
    )


def _openers_view(openers: Openers) -> OpenersView:
    core = openers.sealing.manifest.predicate.core
    return OpenersView(
        manifest=openers.sealing.manifest.digest,
        publisher=openers.sealing.publisher,
        policy_version=core.policy_version,
        sealed_at=core.sealed_at,
        tree=format_quorum(openers.sealing.tree),
        forbidden=openers.forbidden,
        allowed=openers.allowed,
        able=openers.able,
        shares=tuple(
            KeeperView(
                name=keeper.name,
                leaf=keeper.leaf,
                key=keeper.key,
                suite=keeper.suite,
                standing=keeper.standing,
                reason=keeper.reason,
            )
            for keeper in openers.keepers
        ),
        site=openers.sealing.site,
        same_key=tuple(other.manifest.digest for other in openers.same),
        recovery=core.recovery,
        recovery_among=_recovery_words(openers.sealing),
    )


def _recovery_words(sealing: Sealing) -> str:
    return "" if sealing.recovery is None else format_quorum(sealing.recovery)


def _shares_words(sealing: Sealing) -> str:
    besides = f", and the HSM of site {sealing.site}" if sealing.site else ""
    return f"{format_quorum(sealing.tree)}{besides}"


def _openers_words(openers: Openers) -> Iterator[str]:
    sealing = openers.sealing
    core = sealing.manifest.predicate.core
    yield f"manifest {sealing.manifest.digest}"
    yield (
        f"  sealed {core.sealed_at:%Y-%m-%d} by {sealing.publisher}, who knew its key,"
        f" for policy version {core.policy_version}"
    )
    yield f"  by the rules    {_allowed_words(openers)}"
    yield f"  by shares alone {_shares_words(sealing)}"
    for other in openers.same:
        yield (
            f"               or {_shares_words(other)}: manifest {other.manifest.digest[:16]}…"
            " carries the same key"
        )
    for name in sorted({name for way in openers.able or () for name in way if " alias " in name}):
        yield f"    {name}: one token was listed under each of these names, and is one person's"
    for keeper in openers.keepers:
        if keeper.standing != "in force":
            yield f"    {keeper.name}: {keeper.reason}; the share still works ({keeper.suite})"
    if core.recovery is not None:
        among = _recovery_words(sealing) or "who"
        yield f"  in an emergency {among}, putting recovery key {core.recovery[:16]}… together"


def _allowed_words(openers: Openers) -> str:
    if openers.forbidden:
        return f"nobody: {openers.forbidden}"
    tree, in_force = format_quorum(openers.sealing.tree), format_quorum(openers.in_force)
    both = "" if tree == in_force else f", and by the policy in force {in_force}"
    without = f", without {', '.join(openers.barred)}" if openers.barred else ""
    return f"{tree}{both}{without}"


def _held_words(view: HeldView) -> Iterator[str]:
    looked = (
        f"{count(sum(len(key.manifests) for key in view.keys), 'manifest')} of"
        f" {count(len(view.keys), 'key')}, policy versions {view.versions[0]} to"
        f" {view.versions[-1]}"
    )
    if view.keys and not view.ever:
        rest = "" if view.complete else ", by what is here"
        yield f"no: nobody has ever held a threshold of shares of one key{rest} ({looked})"
    for key in view.keys:
        for one in key.alone:
            yield (
                f"yes: {' alias '.join(one.names)} alone holds a threshold of {one.of} of manifest"
                f" {one.manifest}: leaves {', '.join(path or 'root' for path in one.leaves)}"
            )
    for key in view.keys:
        yield (
            f"known whole by who sealed it: {', '.join(key.publishers)}:"
            f" manifest {', '.join(digest[:16] + '…' for digest in key.manifests)}"
        )
        if key.custodians:
            yield f"  and by who opened it in a recovery: {', '.join(key.custodians)}"


def _show_rest(screen: Screen, environment: Environment) -> None:
    first = environment.versions[0].predicate.version
    if not environment.from_the_first:
        screen.show(
            f"not here: policy versions before {first}, and whose tokens were listed under other"
            " names then"
        )
    for one in environment.passed_over:
        screen.show(f"passed over: manifest {one.manifest[:16]}…: {one.reason}")
    for digest in environment.absent:
        screen.show(f"not here: manifest {digest}, which a policy or another manifest names")
