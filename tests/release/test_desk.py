"""Hosts enrolled at their enrollers' servers: every person a process, every server one too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from custody.encoding import utc_now
from custody.formats.admission import Admission
from custody.formats.envelope import decode_statement
from custody.formats.logentry import LogEntry, decode_entry
from custody.log.offers import drop_offers, take_offers
from custody.ops.folders import read_folder
from custody.ops.home import Home
from custody.ops.trust import current
from custody.rules.trust import count_signers
from custody.transports.store import DirectoryStore
from tests.release.test_governance import tpm, world
from tests.release.world import REPOSITORY, Actor, World
from tests.unit.transports.test_enrolment import Identity

__all__ = ["tpm", "world"]


@dataclass
class Server:
    """An enroller's server at work."""

    process: subprocess.Popen[str]
    url: str
    key: str

    def kill(self) -> None:
        """Stop it as a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)


@contextmanager
def serving(who: Actor, *words: str) -> Iterator[Server]:
    """Serve as an enroller."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "CUSTODY_HOME": str(who.home),
        "CUSTODY_ENV": str(who.world / "env"),
        **who.store.environment,
    }
    command = ("enroller", "serve", "--listen", "127.0.0.1:0", "--inventory", "inventory.txt")
    process = subprocess.Popen(
        [sys.executable, "-c", "from custody.cli import main; main()", *command, *words],
        env=environment,
        cwd=who.world,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url, key = process.stdout.readline().strip(), process.stdout.readline().split()
        assert ("https://", "key") == (url[:8], key[0])
        yield Server(process, url, key[1])
    finally:
        process.kill()
        process.wait(timeout=10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def inventory(world: World, tpm: str) -> Path:
    """The file that lists the machine, with its name."""
    words = ("--tpm", tpm, "--out", "asked.json", "--json")
    asked = json.loads(world["pub"].run("host", "enroll", "gpu-1", *words).stdout)
    path = world.folder / "inventory.txt"
    path.write_text(f"{asked['ek']} gpu-1  # rack 3\n")
    return path


@pytest.fixture(scope="module")
def authority(world: World) -> str:
    """An attestation authority that erik keeps, in his own token."""
    erik = world["erik"]
    erik.run("enroller", "ca", "init", "rack 3", "--token", str(erik.uri), "--out", "rack")
    return "rack/authority.pem"


def enroll(world: World, tpm: str, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Enrol the machine at a server."""
    return world["pub"].run("host", "enroll", "gpu-1", "--tpm", tpm, *more, code=code)


def offered(world: World) -> list[LogEntry]:
    """Take what was offered to a log that lies beside everybody."""
    store = DirectoryStore(world.folder / "log")
    entries = take_offers(store)
    drop_offers(store, entries)
    return [decode_entry(entry) for entry in entries]


def test_a_host_is_enrolled_at_two_servers(
    world: World, tpm: str, inventory: Path, authority: str
) -> None:
    """One enroller signs himself, with his server killed in between; the other's signs at once.
    Each offers what he signed to the log that he is told of.
    """
    (world.folder / "log").mkdir(exist_ok=True)
    erik, esme = world["erik"], world["esme"]
    by_authority = ("--server-ca", authority)
    with serving(erik, "--tls-name", "127.0.0.1") as server:
        asked = ("--url", server.url, *by_authority, "--out", "half.dsse")
        said = enroll(world, tpm, *asked, code=4)
        assert "the enroller has not signed yet" in said.stderr
        assert not (world.folder / "half.dsse").exists()
        server.kill()
    listing = ("enroller", "sign", "--inventory", "inventory.txt", "--json")
    (waits,) = json.loads(erik.run(*listing).stdout)
    assert "gpu-1" == waits["host"]
    assert waits["request"] in said.stderr
    vouching = ("--trust-class", "software", "--inventory", "inventory.txt", "--yes")
    erik.run("enroller", "sign", waits["request"], *vouching, "--log", "log")
    (first,) = offered(world)
    assert [] == json.loads(erik.run(*listing).stdout)
    with serving(erik, "--tls-name", "127.0.0.1") as server:
        fetching = ("--fetch", waits["request"], "--out", "half.dsse")
        enroll(world, tpm, "--url", server.url, *by_authority, *fetching)

    identity = Identity()
    (world.folder / "desk.pem").write_bytes(identity.pem)
    (world.folder / "desk.key").write_bytes(identity.key_pem())
    tls = ("--tls-cert", "desk.pem", "--tls-key", "desk.key")
    unattended = ("--sign-listed", "--trust-class", "software", "--log", "log")
    with serving(esme, *tls, *unattended) as server:
        pinned = ("--url", server.url, "--server-key", server.key)
        enroll(world, tpm, *pinned, "--onto", "half.dsse", "--out", "env/gpu-1.dsse")
        other = ("--url", server.url, "--server-key", "0" * 64, "--out", "never.dsse")
        assert "the server has another key" in enroll(world, tpm, *other, code=1).stderr

    documents = read_folder(world.folder / "env")
    policy = current(Home(erik.home), documents=documents, now=utc_now()).trusted.policy
    (record,) = documents.enrolments
    signed_by_both = LogEntry(digest=record.digest, kind="enrolment")
    assert [signed_by_both] * 2 == [first, *offered(world)]
    counted = count_signers(record.envelope, policy, role="enroller", needed=2)
    assert ("erik", "esme") == counted.signers


def test_an_admission_is_offered_to_the_log(world: World) -> None:
    """Who asks to be admitted can have that logged: a digest, and no name."""
    (world.folder / "log").mkdir(exist_ok=True)
    zoe = world.hire("zoe", "officer")
    zoe.enroll("--log", "log")
    admission = (world.folder / "admissions/zoe.dsse").read_bytes()
    digest = decode_statement(Admission, admission).digest
    assert [LogEntry(digest=digest, kind="admission")] == offered(world)


def test_an_ak_is_certified_by_its_record(world: World, authority: str) -> None:
    """The authority needs no challenge of its own for a record that counts, and names it."""
    certifying = ("enroller", "ca", "issue-ak", "--record")
    world["erik"].run(*certifying, "env/gpu-1.dsse", "--out", "gpu-1.ak.pem")
    made = x509.load_pem_x509_certificate((world.folder / "gpu-1.ak.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (record,) = read_folder(world.folder / "env").enrolments
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert f"urn:custody:enrolment:v1:{record.digest}" in uris
    said = world["erik"].run(*certifying, "half.dsse", "--out", "never.pem", "--json", code=1)
    assert "enrolment.threshold" == json.loads(said.stderr.splitlines()[-1])["check"]


def test_unattended_signs_for_nobody_the_inventory_does_not_name(
    world: World, tpm: str, inventory: Path
) -> None:
    """A TPM off the inventory, one without a name, one under another's: refused by the check."""
    listed = inventory.read_text()
    digest = listed.split()[0]
    tls = ("--tls-cert", "desk.pem", "--tls-key", "desk.key")
    with serving(world["ewan"], *tls, "--sign-listed", "--trust-class", "software") as server:
        try:
            for lines, check in (
                ("", "endorsement.inventory"),
                (f"{digest}\n", "enrolment.name"),
                (f"{digest} gpu-2\n", "enrolment.name"),
            ):
                inventory.write_text(lines)
                pinned = ("--url", server.url, "--server-key", "desk.pem", "--json")
                said = enroll(world, tpm, *pinned, "--out", "never.dsse", code=1)
                assert check == json.loads(said.stderr.splitlines()[-1])["check"]
        finally:
            inventory.write_text(listed)
    assert not (world.folder / "never.dsse").exists()
