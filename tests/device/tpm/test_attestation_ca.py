"""An attestation authority typed as people type it: its key in a token, the host's in a TPM."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from custody.encoding import key_id
from custody.keys.tpm_host import TpmHost
from custody.keys.tpm_session import certificate_spki
from custody.keys.tpm_tlskey import TLS_HANDLE
from custody.lab.swtpm import Swtpm
from tests.cli.transcript import Said, run
from tests.device.conftest import Bench

NAME = "gpu-1.example.com"
Run = Callable[..., Said]


@dataclass
class Rack:
    """An authority whose inventory lists one machine, and the folder its files lie in."""

    folder: Path
    machine: Swtpm
    run: Run

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def good(self, *words: str) -> Said:
        """Run a command that succeeds."""
        said = self.run(*words)
        assert (0, "") == (said.code, "" if said.code == 0 else said.err), words
        return said

    def refused(self, check: str, *words: str) -> None:
        """Run a command that is refused by this check."""
        said = self.run(*words, "--json")
        event = json.loads(said.err.strip().splitlines()[-1])
        assert (1, check) == (said.code, event.get("check")), said.err

    def tpm(self, machine: Swtpm | None = None) -> str:
        return f"tpm:?tcti={(machine or self.machine).tcti}"

    def believing(self) -> tuple[str, ...]:
        """Say which EKs and which vendors count."""
        root = str(self.machine.vendor_root)
        return ("--inventory", self.path("inventory.txt"), "--vendor-root", root)

    def ask(self, machine: Swtpm, name: str) -> str:
        """Have a machine show itself as gpu-1."""
        out = self.path(f"{name}.enrolment.json")
        self.good("host", "enroll", "gpu-1", "--tpm", self.tpm(machine), "--out", out)
        return out

    def issue_ak(self) -> str:
        """Take the machine's AK through the whole ceremony."""
        asked = self.ask(self.machine, "gpu-1")
        posed, answered = self.path("challenge.json"), self.path("answer.json")
        ca = ("enroller", "ca")
        self.good(*ca, "challenge", asked, *self.believing(), "--out", posed)
        answering = ("host", "enroll", "gpu-1", "--tpm", self.tpm(), "--answer", posed)
        self.good(*answering, "--out", answered)
        out = self.path("ak.pem")
        given = ("--answer", answered)
        self.good(*ca, "issue-ak", asked, *given, *self.believing(), "--out", out)
        return out

    def issue_tls(self, name: str, *more: str) -> str:
        """Have a TLS key certified: the TPM's own, or by --csr one in a file."""
        asked, out = self.path(f"{name}.json"), self.path(f"{name}.pem")
        dns = ("--dns", NAME)
        self.good("host", "tls", "gpu-1", "--tpm", self.tpm(), *dns, *more, "--out", asked)
        ak = ("--ak", self.path("ak.pem"))
        self.good("enroller", "ca", "issue-tls", asked, *ak, *dns, "--out", out)
        return out

    def verify(self, *words: str, crl: str = "authority/authority.crl.pem") -> tuple[int, str]:
        """Ask openssl."""
        tool = shutil.which("openssl")
        if tool is None:
            pytest.skip("openssl is not installed")
        trust = ("-CAfile", self.path("authority/authority.pem"), "-CRLfile", self.path(crl))
        done = subprocess.run(
            [tool, "verify", "-x509_strict", "-crl_check", *trust, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def rack(
    bench: Bench,
    machine: Swtpm,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Rack:
    """An authority that was just made."""
    monkeypatch.setenv("CUSTODY_HOME", str(tmp_path / "home"))
    ek = key_id(certificate_spki(TpmHost(machine.tcti).ek_certificate()))
    (tmp_path / "inventory.txt").write_text(f"{ek}  # gpu-1\n")

    def command(*words: str) -> Said:
        return run(*words, capsys=capsys, monkeypatch=monkeypatch)

    made = Rack(tmp_path, machine, command)
    token = ("--token", str(bench.token("ca")))
    made.good("enroller", "ca", "init", "rack 3", *token, "--out", made.path("authority"))
    return made


def _load(path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def test_other_programs_take_the_certificates(rack: Rack) -> None:
    """AK and TLS certificates verify by openssl and by cryptography, with the list, to the name."""
    ak = rack.issue_ak()
    assert 0 == rack.verify("-purpose", "any", ak)[0]
    tls = rack.issue_tls("tls")
    for purpose in ("sslserver", "sslclient"):
        code, said = rack.verify("-purpose", purpose, "-verify_hostname", NAME, tls)
        assert (0, f"{tls}: OK\n") == (code, said)
    assert 0 != rack.verify("-purpose", "sslserver", "-verify_hostname", "gpu-2", tls)[0]
    assert 0 != rack.verify("-purpose", "sslserver", ak)[0]
    authority = x509.load_pem_x509_certificate(
        Path(rack.path("authority/authority.pem")).read_bytes()
    )
    verifier = (
        PolicyBuilder()
        .store(Store([authority]))
        .time(datetime.now(UTC))
        .build_server_verifier(x509.DNSName(NAME))
    )
    leaf = _load(tls)
    assert [leaf, authority] == verifier.verify(leaf, [])


def test_the_tpms_key_is_the_certified_one(rack: Rack) -> None:
    """What the certificate names is the key that signs in the TPM, and says that it is there."""
    rack.issue_ak()
    leaf = _load(rack.issue_tls("tls"))
    held = TpmHost(rack.machine.tcti).tls_key().public_key()
    assert leaf.public_key() == held
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert "urn:custody:tls-key:tpm" in uris


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_two_hosts_talk_tls_by_their_certificates(rack: Rack) -> None:
    """A key that openssl made and asked for serves TLS 1.3, and asks; each end verifies."""
    rack.issue_ak()
    key, csr = rack.path("tls.key"), rack.path("tls.csr")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=gpu-1")
    subprocess.run(
        ["openssl", "req", "-new", *made, "-keyout", key, "-out", csr],
        check=True,
        capture_output=True,
    )
    certificate = rack.issue_tls("file", "--csr", csr)
    trust = rack.path("authority/authority.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(trust)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    assert "TLSv1.3" == _shake_hands(server, client, NAME)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, client, "gpu-2.example.com")


def test_a_server_answers_tls_by_the_key_in_its_tpm(rack: Rack) -> None:
    """A program that speaks TPM serves with the key at its handle, by the certificate."""
    tool, talk = shutil.which("openssl"), {**os.environ, "TPM2OPENSSL_TCTI": rack.machine.tcti}
    asking = (tool or "false", "list", "-providers", "-provider", "tpm2")
    if subprocess.run(asking, env=talk, capture_output=True, check=False).returncode:
        pytest.skip("openssl has no TPM provider (tpm2-openssl)")
    rack.issue_ak()
    certificate = rack.issue_tls("tls")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Its TPM has three slots: what needs no key is done by openssl itself.
    wanted = "?provider=tpm2,tpm2.digest!=yes,tpm2.cipher!=yes"
    providers = ("-provider", "tpm2", "-provider", "default", "-propquery", wanted)
    key = ("-key", f"handle:0x{TLS_HANDLE:08x}", "-cert", certificate)
    serving = subprocess.Popen(
        ["openssl", "s_server", *providers, *key, "-accept", f"127.0.0.1:{port}", "-www"],
        env=talk,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        client = ssl.create_default_context(cafile=rack.path("authority/authority.pem"))
        with _connected(port) as raw, client.wrap_socket(raw, server_hostname=NAME) as secured:
            assert "TLSv1.3" == secured.version()
            held = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
            assert _load(certificate) == held
    finally:
        serving.kill()
        said, _ = serving.communicate(timeout=10)
    assert b"error" not in said, said.decode(errors="replace")


def _connected(port: int) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("the server does not listen")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(ours, server_side=True) as secured:
                secured.sendall(secured.recv(5))
        except OSError:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=name) as secured:
            secured.sendall(b"hello")
            assert b"hello" == secured.recv(5)
            return secured.version()
    finally:
        theirs.close()
        thread.join()


def test_a_revoked_certificate_is_refused_by_its_list(rack: Rack) -> None:
    """The next list names it, openssl refuses it, and the key gets no other."""
    rack.issue_ak()
    tls = rack.issue_tls("tls")
    listing = rack.path("second.crl.pem")
    revoking = ("revoke", tls, "--reason", "keyCompromise", "--yes", "--out", listing)
    rack.good("enroller", "ca", *revoking)
    code, said = rack.verify("-purpose", "sslserver", tls, crl="second.crl.pem")
    assert code != 0
    assert "certificate revoked" in said
    rack.good("enroller", "ca", "crl", "--out", rack.path("third.crl.pem"))
    assert 0 != rack.verify("-purpose", "sslserver", tls, crl="third.crl.pem")[0]
    asking = ("host", "tls", "gpu-1", "--tpm", rack.tpm(), "--dns", NAME)
    rack.good(*asking, "--out", rack.path("again.json"))
    issuing = ("issue-tls", rack.path("again.json"), "--ak", rack.path("ak.pem"), "--dns", NAME)
    rack.refused("certificate.revoked", "enroller", "ca", *issuing, "--out", rack.path("no.pem"))


def test_an_ek_off_the_inventory_gets_no_certificate(rack: Rack, other_machine: Swtpm) -> None:
    """Another TPM of the same vendor is any TPM in the world."""
    asked = rack.ask(other_machine, "other")
    words = ("challenge", asked, *rack.believing(), "--out", rack.path("no.json"))
    rack.refused("endorsement.inventory", "enroller", "ca", *words)
    assert not Path(rack.path("no.json")).exists()


def test_another_tpm_cannot_answer_and_cannot_ask(rack: Rack, other_machine: Swtpm) -> None:
    """A challenge opens in one TPM; and a TLS key in another one is not certified for this AK."""
    asked, posed = rack.ask(rack.machine, "gpu-1"), rack.path("posed.json")
    rack.good("enroller", "ca", "challenge", asked, *rack.believing(), "--out", posed)
    answering = ("enroll", "gpu-1", "--tpm", rack.tpm(other_machine), "--answer", posed)
    rack.refused("tpm.activate", "host", *answering, "--out", rack.path("no.json"))
    answered = rack.path("answered.json")
    good = ("enroll", "gpu-1", "--tpm", rack.tpm(), "--answer", posed, "--out", answered)
    rack.good("host", *good)
    ak = rack.path("ak.pem")
    issuing = ("issue-ak", asked, "--answer", answered, *rack.believing(), "--out", ak)
    rack.good("enroller", "ca", *issuing)
    foreign = rack.path("foreign.json")
    asking = ("tls", "gpu-1", "--tpm", rack.tpm(other_machine), "--dns", NAME, "--out", foreign)
    rack.good("host", *asking)
    words = ("issue-tls", foreign, "--ak", ak, "--dns", NAME, "--out", rack.path("no.pem"))
    rack.refused("tls.proof", "enroller", "ca", *words)
