"""The lab: every actor of a release on one machine, under one directory.

::

    .custody-lab    the mark of a lab, and how far it is set up
    transcript      every command the lab ran, to be run again by hand
    public/         the environment's public files; everybody has a copy
    vendor/         the maker of the hosts' TPMs: its CA, and what it delivered
    NAME/           one actor (`custody.lab.actors`)
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final, Literal, TypeVar

import msgspec

from custody.errors import Malformed, Refused, Unavailable
from custody.lab import bootlog
from custody.lab.actors import Actor, Role, Transcript
from custody.lab.softhsm import TokenStore, create_store, find_library, init_token, write_pin_file
from custody.lab.swtpm import Swtpm, available

#: Who is in the lab.  The first custodian also keeps the certificate authority.
CAST: Final[tuple[tuple[str, Role], ...]] = (
    ("cust1", "custodian"),
    ("cust2", "custodian"),
    ("cust3", "custodian"),
    ("pub1", "publisher"),
    ("sec1", "officer"),
    ("sec2", "officer"),
    ("sec3", "officer"),
    ("lead1", "officer"),
    ("lead2", "officer"),
    ("enr1", "enroller"),
    ("enr2", "enroller"),
    ("enr3", "enroller"),
    ("host1", "host"),
    ("host2", "host"),
    ("aud1", "auditor"),
)

ENVIRONMENT: Final = "production"

_MARK: Final = ".custody-lab"
_PIN_DIGITS: Final = 8
#: A UNIX socket's path is at most 107 bytes, and swtpm's second one has ".ctrl" behind it.
_MAX_SOCKET_BYTES: Final = 100

T = TypeVar("T")
S = TypeVar("S")


class Mark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the mark of a lab says.  ``policy`` is the environment's pin, once it is founded."""

    kind: Literal["custody/lab/v1"] = "custody/lab/v1"
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Lab:
    """The lab in ``directory`` (absolute), which may not exist yet."""

    directory: Path

    @property
    def transcript(self) -> Transcript:
        """Every command that was run."""
        return Transcript(self.directory / "transcript")

    @property
    def public(self) -> Path:
        """The environment's public files."""
        return self.directory / "public"

    @property
    def vendor(self) -> Path:
        """Who made the hosts' TPMs."""
        return self.directory / "vendor"

    def actor(self, name: str) -> Actor:
        """Return one of the cast."""
        return Actor(
            name=name,
            role=dict(CAST)[name],
            directory=self.directory / name,
            transcript=self.transcript,
        )

    def actors(self, *roles: Role) -> tuple[Actor, ...]:
        """Return everybody, or who has one of these roles."""
        return tuple(self.actor(name) for name, role in CAST if not roles or role in roles)

    def people(self) -> tuple[Actor, ...]:
        """Return everybody who has a token."""
        return self.actors("custodian", "publisher", "officer", "enroller")

    def tpm(self, host: Actor) -> Swtpm:
        """Return a host's software TPM."""
        return Swtpm(directory=host.directory / "tpm", vendor=self.vendor)

    @property
    def exists(self) -> bool:
        """Whether there is a lab here."""
        return self._mark.is_file()

    def _elsewhere(self) -> str:
        """Say where a lab is: whoever is one of its people stands in his own folder."""
        for above in self.directory.parents:
            if Lab(above).exists:
                return f"this folder is of a lab: --lab {above}"
        return "custody lab up makes one"

    def mark(self) -> Mark:
        """Read how far this lab is set up; no lab here: `Refused` (``lab.mark``)."""
        if not self.exists:
            raise Refused(
                "is no lab: it has no mark of one",
                check="lab.mark",
                where=str(self.directory),
                hint=self._elsewhere(),
            )
        try:
            return msgspec.json.decode(self._mark.read_bytes(), type=Mark)
        except (msgspec.MsgspecError, OSError) as error:
            raise Malformed("not the mark of a lab", where=str(self._mark)) from error

    def founded(self, policy: str) -> None:
        """Write down that the environment stands, and its pin."""
        aside = self._mark.with_suffix(".new")
        aside.write_bytes(msgspec.json.encode(Mark(policy=policy)))
        aside.replace(self._mark)

    def claim(self) -> None:
        """Make the directory a lab; one that holds anything else is `Refused`."""
        if self.exists:
            return
        sockets = [self.tpm(host).socket_path for host in self.actors("host")]
        if max(len(os.fsencode(path)) for path in sockets) > _MAX_SOCKET_BYTES:
            raise Unavailable(
                "the path is too long for the sockets of its TPMs",
                where=str(self.directory),
                hint="name a shorter one with --lab, such as /tmp/lab",
            )
        if self.directory.is_symlink() or (
            self.directory.exists() and any(self.directory.iterdir())
        ):
            raise Refused(
                "is not empty, and no lab",
                check="lab.mark",
                where=str(self.directory),
                hint="name another directory with --lab",
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mark.write_bytes(msgspec.json.encode(Mark()))

    @contextmanager
    def using(self) -> Iterator[None]:
        """Let no other command use this lab while the block runs."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Unavailable("another command uses this lab", where=str(self.directory)) from error
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Empty a lab that was never founded; it holds nothing but what a killed run left."""
        self.stop()
        for path in self.directory.iterdir():
            if path != self._mark:
                _remove(path)

    def remove(self) -> None:
        """Stop every TPM and remove the lab; what has no mark of a lab is left alone."""
        if self.directory.is_symlink():
            raise Refused("is a symbolic link", check="lab.mark", where=str(self.directory))
        self.mark()
        with self.using():
            self.clear()
            # The mark goes last: a removal that is killed can be finished.
            self._mark.unlink()
            self.directory.rmdir()

    def furnish(self) -> None:
        """Make everybody's directories, token and TPM.  Needs an empty lab."""
        if not available():
            raise Unavailable("swtpm is not installed", hint="apt-get install swtpm swtpm-tools")
        find_library()
        self.public.mkdir(mode=0o700)
        self.transcript.note("# Each line can be run again in this directory, by any shell.")
        for actor in self.actors():
            actor.furnish()
        hosts, people = self.actors("host"), self.people()

        def manufacture() -> None:
            # One after the other: the first makes the vendor's CA.
            for host in hosts:
                self.tpm(host).manufacture()

        with ThreadPoolExecutor(max_workers=1) as workshop:
            made = workshop.submit(manufacture)
            together(_give_token, people)
            made.result()

    def boot(self) -> None:
        """Power on the TPMs that are off, and let their hosts boot."""
        for host in self.actors("host"):
            tpm, booted = self.tpm(host), host.directory / "booted"
            log = host.directory / "boot.log"
            if tpm.pid() is not None and booted.exists() and booted.read_text() == str(tpm.pid()):
                continue
            # On, but with nobody knows which part of its boot measured: begin the boot again.
            tpm.stop()
            tpm.start()
            # Whoever switched the machine off without `lab down` cut the TPM's power.
            tpm.wait_until_safe()
            if not log.exists():
                log.write_bytes(bootlog.record(bootlog.BootState()))
            bootlog.extend(tpm, log.read_bytes())
            booted.write_text(str(tpm.pid()))

    def stop(self) -> None:
        """Power off the TPMs that are on."""
        for host in self.actors("host"):
            if (host.directory / "tpm").is_dir():
                self.tpm(host).stop()

    def carry(self, source: Path, to: Actor, *, under: str = "") -> Path:
        """Put a copy of a file or directory into somebody's ``in``; return where it is."""
        folder = to.inbox / under
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.transcript.note(f"cp -rl {self._words(source)} {self._words(folder)}/")
        target = folder / source.name
        copy(source, target)
        return target

    def publish(self, *files: Path) -> None:
        """Put files among the environment's public ones, and carry them to everybody."""
        self.transcript.note(
            f"for env in public */env; do cp {' '.join(map(self._words, files))} $env/; done"
        )
        for file in files:
            copy(file, self.public / file.name)
        for actor in self.actors():
            for file in self.public.iterdir():
                target = actor.env / file.name
                if not target.exists() or not filecmp.cmp(file, target, shallow=False):
                    copy(file, target)

    @property
    def _mark(self) -> Path:
        return self.directory / _MARK

    def _words(self, path: Path) -> str:
        return quote(str(path.relative_to(self.directory)))


def _give_token(actor: Actor) -> None:
    store: TokenStore = create_store(actor.directory / "tokens")
    pin, so_pin = (_random_pin() for _ in range(2))
    init_token(store, actor.name, so_pin=so_pin, user_pin=pin)
    write_pin_file(actor.pin_file, pin)
    # Nobody is the lab's security officer: the other PIN is forgotten here.
    actor.furnish()


def _random_pin() -> bytes:
    return "".join(secrets.choice("0123456789") for _ in range(_PIN_DIGITS)).encode()


def together(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Do ``work`` for all items, as many at a time as there are processors; results in order."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(work, items))


def copy(source: Path, target: Path) -> None:
    """Copy a file or directory by links where the file system can, so that models cost no room.

    Nobody writes into a file once it is made, except where a story says so.
    """
    if source.is_dir():
        target.mkdir(mode=0o700, exist_ok=True)
        for path in source.iterdir():
            copy(path, target / path.name)
        return
    aside = target.with_name(f".{target.name}.new")
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, aside)
    aside.replace(target)
    # Where both are one file already, a rename does nothing.
    aside.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
