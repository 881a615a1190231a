"""The people and the host of the benchmarks, and the commands they type.

Publisher and host are what is measured, so they are real: a SoftHSM token and a swtpm, used by the
installed ``custody`` in processes of its own.  Everybody else is the tests' cast, in this process.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from custody.encoding import utc_now
from custody.formats.envelope import Predicate, Statement
from custody.formats.request import Request
from custody.formats.state import Identity
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import open_token
from custody.keys.tpm import open_host
from custody.keys.uri import Pkcs11Uri, TpmUri
from custody.lab.softhsm import create_store, init_token, write_pin_file
from custody.lab.swtpm import Swtpm
from custody.ops.bundle import Bundle
from custody.ops.request import request_release
from tests.release import cast as tests_cast

Words = list[str | Path]

#: A quorum of the tests' tree: two of security, one lead.
QUORUM = ("sec1", "sec3", "lead2")
_PIN = b"271828"


def custody_program() -> Words:
    """Return the installed program; without one, the package under this interpreter."""
    installed = Path(sys.executable).with_name("custody")
    return [installed] if installed.exists() else [sys.executable, "-m", "custody"]


class _Cast(tests_cast.Cast):
    """The tests' cast, with a publisher who holds a token, and with its public files on disk."""

    def __init__(self, folder: Path, machine: Swtpm, token: Pkcs11Uri) -> None:
        self.token = token
        self.public = folder / "env"
        self.public.mkdir()
        # The cast's clock stands still; the programs' does not, and they must agree.
        tests_cast.NOW = utc_now()
        tpm = open_host(TpmUri(tcti=machine.tcti))
        super().__init__(folder, machine, tpm)
        for number, certificate in enumerate(self.certificates):
            (self.public / f"{number}.cer").write_bytes(certificate)
        (self.public / "authority.crl").write_bytes(self.crl)
        publisher = self.people["pub"]
        self.home("pub").save_identity(
            Identity(
                kind="custody/identity/v1",
                principal=publisher.name,
                display=publisher.name,
                role="publisher",
                token=str(token),
                signing_spki=tests_cast.spki(publisher.signing[0]),
                shares=(),
            )
        )

    def certify(self, someone: tests_cast.PersonKeys) -> None:
        """Certify everybody, the publisher for a key made in his token."""
        if someone.name == "pub":
            with open_token(self.token) as token, token.session():
                someone.signing[:] = [token.make(KeyRole.SIGN, "publisher", ec.SECP256R1())]
        super().certify(someone)

    def sign(self, predicate: Predicate, *names: str) -> bytes:
        """Sign, and publish what was signed."""
        data = super().sign(predicate, *names)
        (self.public / f"{type(predicate).__name__.lower()}.dsse").write_bytes(data)
        return data


@dataclass(frozen=True, slots=True)
class Actors:
    """What publisher and host type."""

    cast: _Cast
    answers: Path
    request_file: Path

    def seal(self, model: Path, bundle: Path) -> Words:
        """Return the publisher's command."""
        words = [*custody_program(), "publisher", "seal", model, "--out", bundle]
        words += ["--name", "bench", "--release", "1", "--env", self.cast.public]
        return [*words, "--home", self.cast.home("pub").path]

    def ask(self, bundle: Path, request: Path, *, tpm: str) -> Words:
        """Return the host's command that asks for a bundle."""
        log = self.request_file.with_name("boot.log")
        log.write_bytes(self.cast.event_log)
        words = [*custody_program(), "host", "request", bundle, "--out", request, "--tpm", tpm]
        words += ["--event-log", log]
        return [*words, "--env", self.cast.public, "--home", self.cast.home("host").path]

    def open(self, bundle: Path, target: Path, *, tpm: str = "") -> Words:
        """Return the host's command that opens a bundle, once `approve` has released it."""
        words = [*custody_program(), "host", "open", bundle, self.request_file, "--out", target]
        words += ["--answers", self.answers]
        words += ["--tpm", tpm or str(TpmUri(tcti=self.cast.machine.tcti))]
        return [*words, "--env", self.cast.public, "--home", self.cast.home("host").path]

    def approve(self, path: Path) -> Statement[Request]:
        """Ask for a bundle and have it approved, so that it can be opened once."""
        bundle, now = Bundle.at(path), utc_now()
        request = request_release(
            bundle.statement,
            situation=self.cast.situation("host", now=now),
            tpm=self.cast.tpm,
            place=self.cast.place,
            event_log=self.cast.event_log,
        )
        self.request_file.write_bytes(request.data)
        for officer in QUORUM:
            answer = self.cast.approve(bundle, request.statement, officer, now=now)
            (self.answers / f"{officer}.dsse").write_bytes(answer)
        return request.statement


@contextmanager
def actors() -> Iterator[Actors]:
    """Found an environment with a publisher's token and a host's TPM; both go away at the end."""
    # Not in the room: the path of a UNIX socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="custody-"))
    machine = Swtpm(folder / "tpm", folder / "vendor")
    try:
        store = create_store(folder / "tokens")
        # For this process and its children; read when the library is first loaded.
        os.environ.update(store.environment)
        uri = init_token(store, "publisher", so_pin=_PIN, user_pin=_PIN)
        uri = replace(uri, pin_source=str(write_pin_file(folder / "pin", _PIN)))
        machine.manufacture()
        machine.start()
        cast = _Cast(folder, machine, uri)
        cast.boot()
        cast.enrol()
        (folder / "answers").mkdir()
        yield Actors(cast, folder / "answers", folder / "request.dsse")
    finally:
        machine.stop()
        shutil.rmtree(folder, ignore_errors=True)
