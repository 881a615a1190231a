"""Commands typed at a terminal that waits: hours go by at each question, and at each PIN.

Only the clock is moved, and only when something is asked.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from shutil import copytree

from msgspec.structs import replace

from custody.encoding import decode, encode
from custody.formats.state import Identity
from tests.release.world import PIN, REPOSITORY, Actor

HOUR = 3600
DAY = 24 * HOUR
#: ``custody`` on a machine whose clock is ahead by as many seconds as a file says.
PROGRAM = """
import fcntl, os, termios
from datetime import timedelta
from pathlib import Path
from custody import encoding
true, ahead = encoding.utc_now, Path(os.environ["AHEAD"])
encoding.utc_now = lambda: true() + timedelta(seconds=int(ahead.read_text()))
# PINs are asked at the terminal that a process belongs to.
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from custody.cli import main
main()
"""
#: What every token of these worlds is made with.
SO_PIN = b"31415926"
_ASKED = re.compile(rb"(\[y/N\]|PIN of token [^\r\n]*|PIN of the security officer [^\r\n]*): \Z")


@dataclass(frozen=True)
class Typed:
    """What a command at a terminal ended with."""

    code: int
    shown: str

    @property
    def after(self) -> str:
        """What was shown once the question was answered."""
        return self.shown.partition("[y/N]: ")[2]


def type_late(
    actor: Actor, *words: str, waits: int, answer: str = "y", home: str = "", piped: bool = False
) -> Typed:
    """Run somebody's command at a terminal, where each question waits ``waits`` seconds.

    What a ``piped`` one writes goes nowhere.
    """
    ahead = actor.world / f"ahead-{actor.name}"
    ahead.write_text("0")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdin=theirs,
        stdout=subprocess.DEVNULL if piped else theirs,
        stderr=theirs,
        cwd=actor.world,
        start_new_session=True,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "CUSTODY_HOME": home or str(actor.home),
            "CUSTODY_ENV": str(actor.world / "env"),
            "AHEAD": str(ahead),
            **actor.store.environment,
        },
    )
    os.close(theirs)
    shown, told, end = b"", 0, time.monotonic() + 60
    with suppress(OSError):  # EIO: nobody holds the other side any more
        while (data := os.read(ours, 4096)) and time.monotonic() < end:
            shown += data
            if asked := _ASKED.search(shown, told):
                told = len(shown)
                ahead.write_text(str(int(ahead.read_text()) + waits))
                os.write(ours, _said(asked[1], answer) + b"\n")
    os.close(ours)
    return Typed(child.wait(60), shown.decode())


def _said(asked: bytes, answer: str) -> bytes:
    if asked == b"[y/N]":
        return answer.encode()
    return SO_PIN if b"security officer" in asked else PIN


def forgetful(actor: Actor) -> str:
    """Give somebody a copy of his home whose token's PIN is in no file, but typed; return it."""
    copied = actor.world / "homes" / f"{actor.name}-typing"
    if not copied.exists():
        copytree(actor.home, copied)
        path = copied / "identity.json"
        identity = decode(Identity, path.read_bytes())
        path.write_bytes(encode(replace(identity, token=typing(identity.token))))
    return str(copied)


def typing(uri: str) -> str:
    """Return the URI of a token whose PIN is typed."""
    bare = re.sub(r"pin-source=[^&]*&?", "", uri).rstrip("?&")
    assert bare != uri
    return bare
