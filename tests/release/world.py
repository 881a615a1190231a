"""An environment whose people have SoftHSM tokens and who do all by the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from custody.encoding import utc_now
from custody.errors import Unavailable
from custody.formats.envelope import decode_statement
from custody.formats.policy import Policy
from custody.keys.uri import Pkcs11Uri
from custody.lab import bootlog, swtpm
from custody.lab.softhsm import TokenStore, create_store, find_library, init_token, write_pin_file

PIN = b"271828"
REPOSITORY = Path(__file__).parents[2]
CUSTODIANS = ("ida", "cas", "cyd")
ENROLLERS = ("erik", "esme", "ewan")
OFFICERS = ("sec1", "sec2", "sec3")

DRAFT = """
environment = "production"
expires = {year}-01-01
quorum = "2 of (sec1, sec2, sec3)"
authorities = ["start/authority.cer"]
token_classes = ["software"]

[thresholds]
root = 2
enrolment = 2
golden = 2

[host]
pcrs = [0, 2, 4, 7]
trust_classes = ["software"]
vendor_roots = ["vendor.pem"]
"""


@dataclass(frozen=True)
class Actor:
    """One person or machine: a token store, a home, and the command line."""

    name: str
    role: str
    world: Path
    store: TokenStore
    uri: Pkcs11Uri

    @property
    def home(self) -> Path:
        return self.world / "homes" / self.name

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command as this actor."""
        with self.begin(*words) as process:
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code == process.returncode, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Begin one command as this actor."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "CUSTODY_HOME": str(self.home),
            "CUSTODY_ENV": str(self.world / "env"),
            **self.store.environment,
        }
        return subprocess.Popen(
            [sys.executable, "-c", "from custody.cli import main; main()", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.world,
        )

    def enroll(self, *more: str) -> None:
        """Make keys and offer them."""
        words = ("--token", str(self.uri), "--invitation", "start/invitation.json", *more)
        out = f"admissions/{self.name}.dsse"
        self.run(self.role, "enroll", self.name, *words, "--out", out)


class World:
    """Everybody, and the files that travel between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.actors: dict[str, Actor] = {}
        for name in ("env", "admissions"):
            (folder / name).mkdir()
        for role, names in (
            ("custodian", CUSTODIANS),
            ("enroller", ENROLLERS),
            ("officer", OFFICERS),
            ("publisher", ("pub",)),
        ):
            for name in names:
                self.actors[name] = self.hire(name, role)

    def hire(self, name: str, role: str, *, token: str | None = None) -> Actor:
        """Give somebody a token."""
        label = token or name
        store = create_store(self.folder / "tokens" / label)
        uri = init_token(store, label, so_pin=b"31415926", user_pin=PIN)
        pin = write_pin_file(store.directory / "pin", PIN)
        return Actor(name, role, self.folder, store, replace(uri, pin_source=str(pin)))

    def __getitem__(self, name: str) -> Actor:
        return self.actors[name]

    def begin(self) -> None:
        """Make the environment: keys, admissions, certificates and policy version 1."""
        ida = self["ida"]
        words = ("--environment", "production", "--token", str(ida.uri))
        ida.run("custodian", "init", "ida", *words, "--authority", "--out", "start")
        for actor in self.actors.values():
            if actor is not ida:
                actor.enroll(*(("--suite", "P256") if actor.name in ("sec2", "sec3") else ()))
        start = self.folder / "start"
        for name in ("authority.cer", "authority.crl"):
            (self.folder / "env" / name).write_bytes((start / name).read_bytes())
        (start / "ida.admission.dsse").rename(self.folder / "admissions" / "ida.dsse")
        admissions = [f"admissions/{name}.dsse" for name in self.actors]
        ida.run("custodian", "admit", *admissions, "--out", "env", "--yes")
        draft = self.folder / "draft.toml"
        draft.write_text(DRAFT.format(year=utc_now().year + 1))
        offered = [word for path in admissions for word in ("--admission", path)]
        policy = ("custodian", "policy")
        ida.run(*policy, "propose", "draft.toml", *offered, "--out", "policy-1.dsse")
        self["cas"].run(*policy, "sign", "policy-1.dsse", "--yes", "--out", "env/policy-1.dsse")

    @property
    def pin(self) -> str:
        """The digest of version 1, as a person would be told it."""
        return decode_statement(Policy, (self.folder / "env/policy-1.dsse").read_bytes()).digest


@contextmanager
def founded(folder: Path) -> Iterator[World]:
    """Give an environment whose enrollers trust its policy, and a machine that is switched off."""
    try:
        find_library()
    except Unavailable as error:
        pytest.skip(error.reason)
    if not swtpm.available():
        pytest.skip("swtpm is not installed")
    made = World(folder)
    machine = swtpm.Swtpm(folder / "tpm", vendor=folder / "vendor")
    machine.manufacture()
    (folder / "vendor.pem").write_bytes(machine.vendor_root.read_bytes())
    made.begin()
    for name in ENROLLERS:
        made[name].run("enroller", "trust", made.pin)
    yield made


@contextmanager
def booted(world: World) -> Iterator[str]:
    """Boot the machine for the block; give its TPM's URI."""
    machine = swtpm.Swtpm(world.folder / "tpm", vendor=world.folder / "vendor")
    machine.start()
    try:
        log = bootlog.record(bootlog.BootState())
        (world.folder / "boot.log").write_bytes(log)
        bootlog.extend(machine, log)
        yield f"tpm:?tcti={machine.tcti}"
    finally:
        machine.stop()


def challenge(world: World, tpm: str, who: str, request_file: str) -> str:
    """Run one enroller's challenge and the host's answer to it."""
    for stale in (f"{who}.challenge", f"{who}.answer"):
        (world.folder / stale).unlink(missing_ok=True)
    words: tuple[str, ...] = ("--inventory", "inventory.txt", "--out", f"{who}.challenge")
    world[who].run("enroller", "challenge", request_file, *words)
    words = ("--tpm", tpm, "--answer", f"{who}.challenge", "--out", f"{who}.answer")
    world["pub"].run("host", "enroll", "gpu-1", *words)
    return f"{who}.answer"


def record(
    world: World, who: str, request_file: str, answer: str, out: str, *more: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Vouch for a host as one enroller."""
    words: tuple[str, ...] = (
        "--answer",
        answer,
        "--inventory",
        "inventory.txt",
        "--trust-class",
        "software",
    )
    return world[who].run(
        "enroller", "record", request_file, *words, *more, "--yes", "--out", out, code=code
    )
