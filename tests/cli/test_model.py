from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from custody.encoding import key_id
from custody.ops.keys import Signer
from custody.ops.model_sign import sign_directory
from tests.cli.transcript import Said, run
from tests.vectors.model import make_verify as make

Run = Callable[..., Said]
SIGNER = Signer(make.SIGNER)


@pytest.fixture
def custody(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command."""

    def call(*words: object) -> Said:
        return run(*map(str, words), capsys=capsys, monkeypatch=monkeypatch)

    return call


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A model ``m``, its signature by key and by certificate, and the PEM files."""
    model = tmp_path / "m"
    model.mkdir()
    (model / "w").write_bytes(b"weights")
    (tmp_path / "key.pem").write_bytes(make.pem(make.SIGNER))
    (tmp_path / "other.pem").write_bytes(make.pem(make.OTHER))
    (tmp_path / "m.sig").write_bytes(sign_directory(model, signer=SIGNER))
    leaf = make.certificate(make.SIGNER)
    for name, der in (("ca", make.authority()), ("leaf", leaf)):
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        (tmp_path / f"{name}.pem").write_bytes(pem)
    serial = x509.load_der_x509_certificate(leaf).serial_number
    (tmp_path / "ca.crl").write_bytes(make.crl(serial, days=(90, 120)))
    signed = sign_directory(model, signer=SIGNER, certificates=(leaf,))
    (tmp_path / "certified.sig").write_bytes(signed)
    return tmp_path


def _verify(room: Path, signature: str, *words: object) -> list[object]:
    return ["auditor", "verify-model", room / "m", "--signature", room / signature, *words]


def test_a_good_model(custody: Run, room: Path) -> None:
    """A model that holds ends with 0, every check on a line, and the same as JSON."""
    said = custody(*_verify(room, "m.sig", "--key", room / "key.pem"))
    assert (0, True) == (
        said.code,
        all(line.startswith(("ok", "--")) for line in said.out.splitlines()),
    )
    said = custody(*_verify(room, "m.sig", "--key", room / "key.pem", "--json"))
    found = json.loads(said.out)
    assert (0, True, 1, 7) == (said.code, found["sound"], found["files"], found["sizeBytes"])
    assert {"model.signature", "model.digest"} <= {check["check"] for check in found["checks"]}


def test_a_bad_model(custody: Run, room: Path) -> None:
    """A model that does not hold ends with 1, and the failed check is in words and in JSON."""
    (room / "m" / "evil").write_bytes(b"")
    said = custody(*_verify(room, "m.sig", "--key", room / "key.pem"))
    assert (1, True) == (said.code, "NO  model.unsigned" in said.out)
    said = custody(*_verify(room, "m.sig", "--key", room / "key.pem", "--json"))
    failed = [check for check in json.loads(said.out)["checks"] if check["outcome"] == "fail"]
    expected = [{"check": "model.unsigned", "outcome": "fail", "reason": "evil: nobody signed it"}]
    assert (1, expected) == (said.code, failed)
    words = ["--key", room / "key.pem", "--allow-unsigned", "./evil"]
    assert 0 == custody(*_verify(room, "m.sig", *words)).code


def test_a_certificate(custody: Run, room: Path) -> None:
    """By authority a model holds at a time, for an identity, and while nobody is revoked."""
    words: list[object] = ["--authority", room / "ca.pem", "--at", make.AT]
    good = [*words, "--identity", "CN=publisher"]
    assert 0 == custody(*_verify(room, "certified.sig", *good)).code
    digest = key_id(make.spki(make.SIGNER))
    assert 0 == custody(*_verify(room, "certified.sig", *words, "--identity", digest)).code
    for more, check in (
        (words, "model.identity"),
        (
            [*words[:2], "--identity", "CN=publisher", "--at", "2029-01-01T00:00:00Z"],
            "model.validity",
        ),
        ([*good, "--crl", room / "ca.crl"], "model.revoked"),
    ):
        said = custody(*_verify(room, "certified.sig", *more))
        assert (1, True) == (said.code, f"NO  {check}" in said.out), said.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "named by --key or by --authority"),
        (["--key", "key.pem", "--authority", "ca.pem"], 2, "named by --key or by --authority"),
        (["--key", "key.pem", "--identity", "CN=x"], 2, "go with --authority"),
        (["--key", "ca.pem"], 1, "ca.pem: not a PEM public key"),
        (["--key", "nowhere.pem"], 3, "nowhere.pem: cannot be read"),
        (["--authority", "key.pem", "--identity", "CN=x"], 1, "key.pem: not PEM certificates"),
        (["--authority", "ca.pem", "--identity", "x"], 1, "not an identity"),
        (["--authority", "ca.pem", "--crl", "ca.pem"], 1, "ca.pem: not a revocation list"),
        (["--authority", "ca.pem", "--at", "yesterday"], 2, "yesterday"),
    ],
)
def test_what_cannot_be_asked(
    custody: Run, room: Path, words: list[str], code: int, message: str
) -> None:
    """A question that makes no sense is one line that says why, with its exit code."""
    paths = [room / word if "." in word else word for word in words]
    said = custody(*_verify(room, "m.sig", *paths))
    assert (code, True) == (said.code, message in said.err), said.err


def test_a_private_key_is_not_taken(custody: Run, room: Path) -> None:
    """Whoever hands over a private key by mistake is told, and it is not echoed."""
    (room / "private.pem").write_text("-----BEGIN PRIVATE KEY-----\nMIGH\n")
    said = custody(*_verify(room, "m.sig", "--key", room / "private.pem"))
    assert (1, True, False) == (said.code, "private key" in said.err, "MIGH" in said.err)
