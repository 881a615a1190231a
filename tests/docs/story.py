"""Runs the commands of the guides, in the order of one story.

A block of a guide is part of the story if a comment stands right before it::

    <!-- story 310 pia -->
    ```console
    $ custody publisher check bundle --env production
    ok  manifest.author …
    ```

310 is its place among the blocks of all guides, pia is who types it.  ``<!-- story 150 file
draft.toml -->`` writes the block to a file instead, and a comment that goes on over several lines
holds commands that are run and not shown.

People have SoftHSM tokens, the host has a software TPM, everybody types at a terminal of his own,
and files are carried by lying in one folder.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from custody.lab import bootlog, softhsm, swtpm
from tests.docs.terminal import (
    ROOT,
    Digests,
    Paper,
    Shown,
    commands_of,
    enter,
    environment,
    fails,
    write_program,
)

GUIDES = ROOT / "docs" / "guides"

_BLOCK = re.compile(
    r"<!-- story (?P<at>\d+) (?P<file>file )?(?P<name>\S+)"
    r"(?:\n(?P<hidden>.*?)-->| -->\n```\w+\n(?P<shown>.*?)```)",
    re.DOTALL,
)
_EXPIRES = re.compile(r"^expires = \S+", re.MULTILINE)
_TPM = re.compile(r"tpm:(?=\s|$)")
#: Commands that clear the screen, which a plain terminal could not.
_PAPER = re.compile(
    r"custody custodian (?:ceremony|recovery|check-share|break-glass|drill|restore) "
)
#: A command that is left running.
_SERVER = re.compile(r"> (?P<log>\S+) 2>&1 &$")
#: Where the enroller of the guides listens; a story has a port that is free.
_DESK = "127.0.0.1:8470"
#: Where a kernel keeps the log of its own boot; the story's host has another's.
_EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of a guide; ``start`` is where its text begins there."""

    guide: Path
    at: int
    name: str
    is_file: bool
    is_hidden: bool
    start: int
    text: str

    @property
    def label(self) -> str:
        """What to call the block in a failure."""
        return f"{self.guide.name}, story {self.at}"


def blocks_of(guide: Path) -> Iterator[Block]:
    """Give the blocks of one guide that belong to the story."""
    for found in _BLOCK.finditer(guide.read_text()):
        kind = "shown" if found["hidden"] is None else "hidden"
        yield Block(
            guide=guide,
            at=int(found["at"]),
            name=found["name"],
            is_file=found["file"] is not None,
            is_hidden=kind == "hidden",
            start=found.start(kind),
            text=found[kind],
        )


def story() -> list[Block]:
    """Return every block of every guide in the order of the story."""
    found = [block for guide in sorted(GUIDES.glob("*.md")) for block in blocks_of(guide)]
    return sorted(found, key=lambda block: block.at)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass
class World:
    """Everybody's tokens, one host, and the folder files are carried in."""

    directory: Path
    machine: swtpm.Swtpm
    recording: bool
    people: set[str] = field(default_factory=set)
    digests: Digests = field(default_factory=Digests)
    port: int = field(default_factory=_free_port)
    paper: Paper = field(default_factory=Paper)

    @property
    def desk(self) -> Path:
        """Where all commands are typed."""
        return self.directory / "desk"

    def clear_up(self) -> None:
        """Stop the servers that the story left running: each has written its number down."""
        for written in self.desk.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(written.read_text()), signal.SIGTERM)

    def set_up(self) -> None:
        """Make what the story finds when it begins: a model, a booted host, its vendor's root."""
        model = self.desk / "MiniLM"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(bytes(range(256)) * 800)
        (model / "config.json").write_text('{"hidden_size":384}')
        (model / "tokenizer.json").write_text('{"version":"1.0"}')
        log = bootlog.record(bootlog.BootState())
        (self.directory / "boot.log").write_bytes(log)
        bootlog.extend(self.machine, log)
        (self.desk / "vendor-root.pem").write_bytes(self.machine.vendor_root.read_bytes())
        write_program(self.directory / "bin")

    def play(self, block: Block) -> str:
        """Run a block; return it as it would be written now."""
        text = self.digests.translate(block.text)
        if block.is_file:
            # A policy lives thirteen months, a guide for longer.
            soon = datetime.now(UTC) + timedelta(days=365)
            dated = _EXPIRES.sub(f"expires = {soon:%Y-%m-%d}", text)
            (self.desk / block.name).write_text(dated)
            return block.text
        written = []
        for command, expected in commands_of(block.text):
            shown = self._enter(block.name, self.digests.translate(command))
            surprise = fails(expected) != bool(shown.code)
            if surprise and (block.is_hidden or not self.recording):
                raise AssertionError(f"{block.label}: {shown.code} from $ {command}\n{shown.text}")
            self.digests.learn(expected, shown.text)
            typed = command.replace("\n", "\n> ")
            written.append(f"$ {typed}\n{shown.text}")
        return "".join(written)

    def _enter(self, who: str, command: str) -> Shown:
        here = _TPM.sub(f"'tpm:?tcti={self.machine.tcti}'", command)
        here = here.replace(_EVENT_LOG, str(self.directory / "boot.log"))
        here = here.replace(_DESK, f"127.0.0.1:{self.port}")
        if server := _SERVER.search(here):
            # It outlives this terminal, and has begun when it has said something.
            waits = f"until [ -s {server['log']} ]; do sleep 0.1; done"
            here = f"trap '' HUP\n{here}\necho $! > {server['log']}.pid; {waits}"
        env = self._environment(who)
        if _PAPER.search(here):
            env = {**env, "TERM": "xterm"}
        shown = enter(here, directory=self.desk, env=env, pin=f"pin of {who}", paper=self.paper)
        return Shown(shown.text.replace(f"127.0.0.1:{self.port}", _DESK), shown.code)

    def _environment(self, who: str) -> Mapping[str, str]:
        home = self.directory / who
        store = softhsm.create_store(home / "token")
        if who not in self.people:
            pin = f"pin of {who}".encode()
            softhsm.init_token(store, who, so_pin=b"so " + pin, user_pin=pin)
            self.people.add(who)
        return environment(home, self.directory / "bin", store.environment)


@contextmanager
def world(*, recording: bool = False) -> Iterator[World]:
    """Give a world as the story finds it; ``recording`` takes any outcome of a shown command."""
    # Not under pytest's own folder: the path of a UNIX socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="custody-") as folder:
        machine = swtpm.Swtpm(Path(folder) / "tpm", Path(folder) / "vendor")
        machine.manufacture()
        machine.start()
        try:
            place = World(Path(folder) / "world", machine, recording)
            place.set_up()
            try:
                yield place
            finally:
                place.clear_up()
        finally:
            machine.stop()
