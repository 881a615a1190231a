"""``trust``: the one thing a person must bring himself, the digest of a policy."""

from __future__ import annotations

from typing import Annotated

import typer

from custody.cli._home import (
    EnvOption,
    HomeOption,
    JsonOption,
    example,
    moment,
    open_home,
    read_digest,
    read_env,
)
from custody.cli._ui import Screen
from custody.encoding import Digest, Record
from custody.ops import trust as ops


class Pinned(Record, frozen=True, kw_only=True):
    """What ``trust --json`` shows."""

    environment: str
    genesis: Digest
    pin: Digest
    policy: Digest
    policy_version: int


def add_trust(app: typer.Typer, role: str) -> None:
    """Add ``trust`` to a role's commands."""

    @app.command(epilog=example(f"custody {role} trust 3f9c…e1 --env ./production"))
    def trust(
        digest: Annotated[
            str,
            typer.Argument(help="The policy's digest, told by a person.", show_default=False),
        ],
        env: EnvOption = None,
        home: HomeOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Pin the policy everything else is judged by.

        Compare the words with what a custodian reads out, over a channel of its own.
        """
        screen = Screen(as_json=as_json)
        situation = ops.pin(
            open_home(home, role),
            documents=read_env(env),
            digest=read_digest(digest),
            now=moment(None),
        )
        policy, memory = situation.trusted.policy, situation.memory
        shown = Pinned(
            environment=policy.environment,
            genesis=memory.environment,
            pin=memory.pin,
            policy=memory.policy,
            policy_version=memory.policy_version,
        )

        def words() -> None:
            screen.show(
                f"trusted: {policy.environment}, policy version {policy.version},"
                f" in force until {policy.expires_at:%Y-%m-%d}"
            )
            screen.show("its pin, to read aloud:")
            screen.speak(memory.pin)

        screen.result(shown, words)
