"""``custody auditor who-can-open`` and ``ever-held``: whose shares give what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from custody.cli._case import AtOption, PolicyPinOption, pinned
from custody.cli._home import HomeOption, JsonOption, example, moment
from custody.cli._ui import EXIT_INCOMPLETE, EXIT_REFUSED, Screen
from custody.encoding import Digest, KeyId, Moment, Record
from custody.formats.policy_text import format_quorum
from custody.ops.collect import read_case
from custody.ops.holdings import (
    Environment,
    Openers,
    ever_held,
    read_environment,
    who_can_open,
)

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
    recovery: KeyId | None
    """The key whose shares, put together, open it too."""


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
    leaves: tuple[str, ...]
    manifest: Digest


class KeyView(Record, frozen=True, kw_only=True):
    """One content key: in which manifests, who knew it as publisher, who could make it alone."""

    manifests: tuple[Digest, ...]
    publishers: tuple[str, ...]
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

    Shares of officers who left, or whose keys are revoked, still work; they are named.
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


def _ever_held(
    files: FilesArgument,
    policy_pin: PolicyPinOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer: has anyone ever held a threshold of the shares of one key?

    Exit code 0: nobody has.  1: somebody has, and is named.  4: nobody has by what is here, but
    manifests that are named here are missing.
    """
    screen = Screen(as_json=as_json)
    environment = _environment(screen, files, policy_pin, None, home)
    found = ever_held(environment)
    ever = any(key.alone for key in found)
    complete = not environment.absent and not environment.passed_over
    view = HeldView(
        environment=environment.policy.environment,
        versions=tuple(statement.predicate.version for statement in environment.versions),
        ever=ever,
        complete=complete,
        keys=tuple(
            KeyView(
                manifests=tuple(s.manifest.digest for s in key.manifests),
                publishers=tuple(sorted({s.publisher for s in key.manifests})),
                alone=tuple(
                    AloneView(names=one.names, leaves=one.leaves, manifest=one.manifest)
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
    if not complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _environment(
    screen: Screen, files: list[Path], pin: str | None, at: str | None, home: Path | None
) -> Environment:
    digest = pinned(screen, pin, home)
    now = moment(at, option="--at")
    return read_environment(read_case(*files).documents, pin=digest, now=now)


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
        recovery=core.recovery,
    )


def _openers_words(openers: Openers) -> Iterator[str]:
    sealing = openers.sealing
    core = sealing.manifest.predicate.core
    yield f"manifest {sealing.manifest.digest}"
    yield (
        f"  sealed {core.sealed_at:%Y-%m-%d} by {sealing.publisher}, who knew its key,"
        f" for policy version {core.policy_version}"
    )
    yield f"  by the rules    {_allowed_words(openers)}"
    besides = f", and the HSM of site {sealing.site}" if sealing.site else ""
    yield f"  by shares alone {format_quorum(sealing.tree)}{besides}"
    for keeper in openers.keepers:
        if keeper.standing != "in force":
            yield f"    {keeper.name}: {keeper.reason}; the share still works ({keeper.suite})"
    if core.recovery is not None:
        yield f"  in an emergency who puts recovery key {core.recovery[:16]}… together"


def _allowed_words(openers: Openers) -> str:
    if openers.forbidden:
        return f"nobody: {openers.forbidden}"
    if openers.allowed is None:
        return "more sets than can be listed: its own tree and the one in force, both"
    return " or ".join(", ".join(names) for names in openers.allowed)


def _held_words(view: HeldView) -> Iterator[str]:
    manifests = sum(len(key.manifests) for key in view.keys)
    looked = (
        f"{manifests} manifests of {len(view.keys)} keys,"
        f" policy versions {view.versions[0]} to {view.versions[-1]}"
    )
    if not view.ever:
        rest = "" if view.complete else ", by what is here"
        yield f"no: nobody has ever held a threshold of shares of one key{rest} ({looked})"
    for key in view.keys:
        for one in key.alone:
            yield (
                f"yes: {' alias '.join(one.names)} alone holds a threshold of shares of manifest"
                f" {one.manifest}: leaves {', '.join(path or 'root' for path in one.leaves)}"
            )
    for key in view.keys:
        yield (
            f"known whole by who sealed it: {', '.join(key.publishers)}:"
            f" manifest {', '.join(digest[:16] + '…' for digest in key.manifests)}"
        )


def _show_rest(screen: Screen, environment: Environment) -> None:
    for one in environment.passed_over:
        screen.show(f"passed over: manifest {one.manifest[:16]}…: {one.reason}")
    for digest in environment.absent:
        screen.show(f"not here: manifest {digest}, which a policy or another manifest names")
