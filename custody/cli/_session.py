"""One command of somebody with a home: what he trusts, his token, one PIN."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from custody.cli._home import moment, open_home, read_env
from custody.cli._wiring import open_token
from custody.errors import Refused
from custody.formats.asking import Asking
from custody.formats.case import Documents, documents_of, merge
from custody.formats.envelope import Statement
from custody.keys.api import Token
from custody.ops.actor import openers_of, signer_of
from custody.ops.bundle import Bundle
from custody.ops.folders import read_folder, read_request_file
from custody.ops.home import Home
from custody.ops.keys import ShareOpener, Signer
from custody.ops.trust import current
from custody.rules.situation import Situation


@dataclass(frozen=True, slots=True)
class Standing:
    """Who runs a command, and what he judges by."""

    home: Home
    situation: Situation


@dataclass(frozen=True, slots=True)
class Unlocked:
    """A token in one login."""

    token: Token
    signer: Signer
    openers: tuple[ShareOpener, ...]

    def opener_for(self, bundle: Bundle) -> ShareOpener:
        """Return the share key that this bundle's contents are sealed to."""
        for opener in self.openers:
            if bundle.statement.predicate.slots_for(opener.recipient):
                return opener
        raise Refused(
            "nothing in this bundle is sealed to your key",
            check="approve.slot",
            where=str(bundle.path),
            hint="it was sealed before you, or this token, joined; the publisher must seal again",
        )


def stand(
    home: Path | None,
    env: Sequence[Path] | None,
    role: str,
    *,
    more: Sequence[Path] = (),
    answers: Path | None = None,
    requests: Sequence[Statement[Asking]] = (),
) -> Standing:
    """Open the home and judge the environment's files from its pin.

    ``answers`` is a folder of which only the answers are taken, and which may not be there yet;
    ``requests`` are judged beside what lies there.
    """
    opened = open_home(home, role)
    documents = merge(read_env(env, *more), documents_of(requests))
    if answers is not None and answers.is_dir():
        beside = read_folder(answers)
        there = Documents(
            consents=beside.consents,
            approvals=beside.approvals,
            denials=beside.denials,
            unreadable=beside.unreadable,
        )
        documents = merge(documents, there)
    return Standing(opened, current(opened, documents=documents, now=moment(None)))


@contextmanager
def unlocked(home: Home, pin_fd: int | None) -> Iterator[Unlocked]:
    """Log in to the actor's token for the block; the PIN is asked once and forgotten after."""
    identity = home.identity()
    with open_token(identity.token, pin_fd=pin_fd) as token, token.session():
        yield Unlocked(token, signer_of(identity, token), openers_of(home, identity, token))


@contextmanager
def site_keys(
    bundle: Bundle, site_home: Path | None, home: Home, pin_fd: int | None
) -> Iterator[tuple[ShareOpener, ...]]:
    """Have the keys of the site's HSM at hand for the block, if the bundle takes one.

    None where it takes none, or where nobody said which they are.
    """
    where = home if site_home is None else Home(site_home, role="host")
    if bundle.core.site is None or not where.has_identity():
        yield ()
        return
    identity = where.identity()
    if identity.role != "site":
        raise Refused(
            f"this home is {identity.principal}'s, as {identity.role}, and no site's",
            check="site.home",
            where=str(where.path),
        )
    with open_token(identity.token, pin_fd=pin_fd) as token:
        # One login now, so that the PIN is asked before anything is shown to move; another for the
        # moment in which it is used.  None while the model is written.
        with token.session():
            openers = openers_of(where, identity, token)
        yield openers


def read_requests(paths: Sequence[Path]) -> list[Statement[Asking]]:
    """Read request files of either kind, each request once."""
    found: dict[str, Statement[Asking]] = {}
    for path in paths:
        statement = read_request_file(path)
        found.setdefault(statement.digest, statement)
    return list(found.values())
