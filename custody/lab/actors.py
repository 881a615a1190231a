"""One actor of the lab: a directory of his own, and processes that are told of nothing else.

::

    home/       his private state (CUSTODY_HOME)
    env/        his copy of the environment's public files (CUSTODY_ENV)
    in/  out/   what was carried to him, what he made
    tokens/     his token store, and pin, a file only he can read      people
    tpm/        his TPM, and boot.log, what it booted                  hosts
    profile     sets a shell up as him: (. lab/sec1/profile && custody officer status …)

All actors run as one user of one machine, so nothing but their environment keeps them apart: the
lab shows who needs what, it protects nothing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

import custody
from custody.errors import Malformed, Refused, Unavailable
from custody.keys.uri import Pkcs11Uri

Role = Literal["custodian", "publisher", "officer", "enroller", "host", "auditor"]

T = TypeVar("T")

#: How the lab's hosts name their TPM, from their directory: its path may be too long otherwise.
TPM_URI: Final = "tpm:?tcti=swtpm:path=tpm/tpm.sock"
#: Passed on to an actor's processes where it is set: where programs and their words are.
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "TZ", "TERM", "COLUMNS", "NO_COLOR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One command of an actor, and how it ended."""

    actor: str
    command: str
    """As it was typed, in the actor's directory."""
    code: int
    output: str
    talk: str

    @property
    def reason(self) -> str:
        """Why the command was not done, in its own words; empty if it was."""
        return self._said("error")

    @property
    def hint(self) -> str:
        """What the command says to do instead; empty if it says nothing."""
        return self._said("hint")

    def _said(self, what: str) -> str:
        lead = f"custody: {what}: "
        lines = [line for line in self.talk.splitlines() if line.startswith(lead)]
        return lines[0].removeprefix(lead) if lines else ""

    def read(self, kind: type[T]) -> T:
        """Read what the command wrote with ``--json``; of its fields, those of ``kind``."""
        try:
            return msgspec.json.decode(self.output, type=kind)
        except msgspec.MsgspecError as error:
            raise Malformed("did not write the JSON expected of it", where=self.command) from error


@dataclass(frozen=True, slots=True)
class Transcript:
    """Every command of the lab in order, each of which a shell can run again."""

    path: Path

    def note(self, text: str) -> None:
        """Add a line, in one write: several actors may be at work at once."""
        data = f"{text}\n".encode()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Somebody of the cast.  ``directory`` is absolute."""

    name: str
    role: Role
    directory: Path
    transcript: Transcript = field(repr=False)

    @property
    def home(self) -> Path:
        """His private state."""
        return self.directory / "home"

    @property
    def env(self) -> Path:
        """His copy of the public files."""
        return self.directory / "env"

    @property
    def inbox(self) -> Path:
        """What was carried to him."""
        return self.directory / "in"

    @property
    def outbox(self) -> Path:
        """What he made."""
        return self.directory / "out"

    @property
    def pin_file(self) -> Path:
        """His PIN, if he has a token."""
        return self.directory / "pin"

    @property
    def profile(self) -> Path:
        """What makes a shell his."""
        return self.directory / "profile"

    @property
    def token_uri(self) -> str:
        """How he names his token."""
        return str(
            Pkcs11Uri(token=self.name, module_name="softhsm2", pin_source=str(self.pin_file))
        )

    def variables(self) -> Mapping[str, str]:
        """What his processes are told: where his own things are, and no more."""
        own = {"CUSTODY_HOME": str(self.home), "CUSTODY_ENV": str(self.env)}
        if (self.directory / "tokens").is_dir():
            own["SOFTHSM2_CONF"] = str(self.directory / "tokens" / "softhsm2.conf")
        if self.role == "host":
            own["CUSTODY_TPM"] = TPM_URI
            own["CUSTODY_EVENT_LOG"] = str(self.directory / "boot.log")
        return own

    def furnish(self) -> None:
        """Make his directories, and the profile that makes a shell his."""
        for path in (self.directory, self.home, self.inbox, self.outbox, self.env):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [f"# A shell as {self.name}, who is {self.role} here, and as nobody else."]
        lines += [f"export {name}={shlex.quote(text)}" for name, text in self.variables().items()]
        programs = shlex.quote(str(Path(sys.executable).parent))
        lines += [f"PATH={programs}:$PATH", f"cd {shlex.quote(str(self.directory))}"]
        self.profile.write_text("\n".join(lines) + "\n")

    def run(self, *words: str | Path, expect: int | None = 0, live: bool = False) -> Ran:
        """Run ``custody WORDS`` as this actor, in his directory.

        With ``live`` it draws its progress on our terminal.  Another exit code than ``expect``
        (None: any) is `Refused` (``lab.expected``), in the command's own words.
        """
        arguments = [self._shorten(word) for word in words]
        return self.run_module("custody", arguments, typed=["custody"], expect=expect, live=live)

    def run_module(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        typed: Sequence[str] | None = None,
        expect: int | None = 0,
        live: bool = False,
    ) -> Ran:
        """Run a Python module as this actor; ``typed`` is what a person types for it."""
        command = shlex.join([*(typed or ("python", "-m", module)), *arguments])
        self.transcript.note(f"(. {shlex.quote(f'./{self.name}/profile')} && {command})")
        try:
            child = subprocess.run(
                [sys.executable, "-P", "-m", module, *arguments],
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if live else subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise Unavailable("cannot be run", where=command) from error
        ran = Ran(
            actor=self.name,
            command=command,
            code=child.returncode,
            output=child.stdout.decode("utf-8", "replace"),
            talk=(child.stderr or b"").decode("utf-8", "replace"),
        )
        if expect is not None and ran.code != expect:
            raise _unexpected(ran, expect)
        return ran

    def _environment(self) -> Mapping[str, str]:
        passed = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # Where this very package lies: it may run from a checkout that is not installed.
        places = [str(Path(custody.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        found = {"PYTHONPATH": os.pathsep.join(filter(None, places))}
        return {**passed, **found, "HOME": str(self.directory), **self.variables()}

    def _shorten(self, word: str | Path) -> str:
        """Name his own files as he would, from his directory."""
        if isinstance(word, Path) and word.is_relative_to(self.directory):
            return str(word.relative_to(self.directory)) or "."
        return str(word)


def _unexpected(ran: Ran, expected: int) -> Refused:
    # A command that drew on the terminal itself has said there what it had to say.
    last = (ran.talk.strip() or ran.output.strip() or "see above").splitlines()[-1]
    return Refused(
        f"exit code {ran.code} where {expected} had to be: {ran.reason or last}",
        check="lab.expected",
        where=f"{ran.actor}: {ran.command}",
        hint=ran.hint or None,
    )
