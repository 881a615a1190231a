"""Timestamps: what `openssl ts` writes is read, and no byte of it can be changed unnoticed."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from custody.encoding import sha256
from custody.errors import CustodyError, Malformed, Refused
from custody.formats.approval import Denial
from custody.formats.envelope import decode_statement
from custody.formats.timestamp import MAX_TOKEN_BYTES, decode_token, timestamp_request
from custody.ops import timestamps
from custody.rules.times import verify_token
from tests.cli.transcript import run
from tests.release.tsa import Authority
from tests.unit.formats.log_examples import VECTORS
from tests.unit.formats.test_specs import SECTIONS

DENIAL = VECTORS / "timestamp" / "denial.dsse"
TOKEN = (VECTORS / "timestamp" / "denial.tsr").read_bytes()
ROOT = x509.load_pem_x509_certificate((VECTORS / "timestamp" / "root.pem").read_bytes())
ROOT_DER = ROOT.public_bytes(Encoding.DER)

_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384
accuracy = secs:1
ess_cert_id_alg = sha256
"""

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def openssl(*words: str, at: Path) -> str:
    """Run it in a folder."""
    done = subprocess.run(
        ["openssl", *words], cwd=at, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def make_authority(folder: Path) -> None:
    """Make a root, a TSA under it, and what `openssl ts` wants to know."""
    folder.joinpath("tsa.cnf").write_text(_CONFIG)
    folder.joinpath("serial").write_text("01")
    folder.joinpath("ext").write_text("extendedKeyUsage = critical, timeStamping\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=root", "-days", "20", "-keyout", "root.key",
            "-out", "root.pem", at=folder)  # fmt: skip
    openssl("req", *key, "-subj", "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr", at=folder)
    openssl("x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-days",
            "10", "-CAcreateserial", "-extfile", "ext", "-out", "tsa.pem", at=folder)  # fmt: skip


def answer(folder: Path, question: str, out: str, *more: str) -> None:
    """Have `openssl ts` answer."""
    openssl("ts", "-reply", "-config", "tsa.cnf", "-section", "here", "-queryfile", question,
            "-inkey", "tsa.key", "-signer", "tsa.pem", "-out", out, *more, at=folder)  # fmt: skip


@needs_openssl
def test_openssl_and_we_understand_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`openssl ts` answers our question, and its answer is good here, by its root and no other."""
    make_authority(tmp_path)
    shutil.copy(DENIAL, tmp_path / "denial.dsse")
    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> tuple[int, str]:
        said = run("auditor", "timestamp", *words, capsys=capsys, monkeypatch=monkeypatch)
        return said.code, said.out + said.err

    assert (0, "denial.tsq\n") == typed("denial.dsse", "--out", "denial.tsq")
    assert "Certificate required: yes" in openssl("ts", "-query", "-in", "denial.tsq", "-text",
                                                  at=tmp_path)  # fmt: skip
    answer(tmp_path, "denial.tsq", "answer.tsr")
    code, text = typed(
        *("denial.dsse", "--response", "answer.tsr", "--tsa-root", "root.pem", "--out", "d.tsr")
    )
    assert (0, True) == (code, "timestamp by CN=tsa" in text), text
    assert (tmp_path / "answer.tsr").read_bytes() == (tmp_path / "d.tsr").read_bytes()
    stamp = timestamps.take(
        tmp_path / "denial.dsse",
        tmp_path / "answer.tsr",
        tsa_roots=[pem_to_der(tmp_path / "root.pem")],
    )[1]
    assert (
        timedelta(0) <= stamp.at - datetime.now(UTC) + timedelta(minutes=2) < timedelta(minutes=3)
    )
    for words, check in (
        (("denial.dsse", "--tsa-root", str(VECTORS / "timestamp" / "root.pem")), "authority"),
        ((str(VECTORS / "approval" / "alice.dsse"), "--tsa-root", "root.pem"), "another file"),
    ):
        code, text = typed(*words, "--response", "answer.tsr", "--out", "other.tsr")
        assert (1, True) == (code, check in text), text


def pem_to_der(path: Path) -> bytes:
    """Read one PEM certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


@needs_openssl
def test_openssl_takes_what_the_tests_stamp(tmp_path: Path) -> None:
    """The authority with a clock that can be set writes what `openssl ts -verify` verifies."""
    tsa, digest = Authority(), sha256(b"hello").hex()
    (tmp_path / "a.tsr").write_bytes(tsa.stamp(digest, datetime.now(UTC).replace(microsecond=0)))
    root = x509.load_der_x509_certificate(tsa.root).public_bytes(Encoding.PEM)
    (tmp_path / "root.pem").write_bytes(root)
    said = openssl("ts", "-verify", "-in", "a.tsr", "-digest", digest, "-CAfile", "root.pem",
                   "-attime", str(int(datetime.now(UTC).timestamp()) + 50 * 86400),
                   at=tmp_path)  # fmt: skip
    assert "Verification: OK" in said


def test_the_vector_is_good_under_its_root() -> None:
    """A token of `openssl ts` from the past stays good: it is judged at its own time."""
    token = decode_token(TOKEN)
    assert decode_statement(Denial, DENIAL.read_bytes()).digest == token.imprint
    assert token.at == verify_token(token, [ROOT_DER]).at
    with pytest.raises(Refused) as error:
        verify_token(token, [Authority().root])
    assert "time.token" == error.value.check


def test_no_bit_of_a_token_can_be_changed() -> None:
    """Every bit of a token flipped: not read, or not good.  Nothing is there that nobody signed."""
    for at in range(len(TOKEN)):
        for bit in range(8):
            changed = bytearray(TOKEN)
            changed[at] ^= 1 << bit
            with pytest.raises((Malformed, Refused)):
                verify_token(decode_token(bytes(changed)), [ROOT_DER])


@given(data=st.binary(max_size=200))
def test_junk_is_malformed(data: bytes) -> None:
    """Bytes that are no token are malformed, never a fault."""
    with pytest.raises(Malformed):
        decode_token(data)


@given(start=st.integers(0, len(TOKEN)), size=st.integers(0, 40), put=st.binary(max_size=40))
def test_a_token_cut_or_filled_is_refused(start: int, size: int, put: bytes) -> None:
    """What is taken out or put in anywhere is noticed."""
    changed = TOKEN[:start] + put + TOKEN[start + size :]
    if changed != TOKEN:
        with pytest.raises(CustodyError):
            verify_token(decode_token(changed), [ROOT_DER])


def test_an_oversize_token_is_refused_unread() -> None:
    """The limit is checked before anything is parsed."""
    with pytest.raises(Malformed, match="larger than"):
        decode_token(bytes(MAX_TOKEN_BYTES + 1))


@needs_openssl
def test_a_refusal_and_a_weaker_digest_are_none(tmp_path: Path) -> None:
    """An answer that grants nothing, or is over another digest than SHA-256, is no timestamp."""
    make_authority(tmp_path)
    (tmp_path / "x").write_bytes(b"x")
    openssl("ts", "-query", "-data", "x", "-sha384", "-cert", "-out", "q.tsq", at=tmp_path)
    answer(tmp_path, "q.tsq", "a.tsr")
    with pytest.raises(Malformed, match="another digest"):
        decode_token((tmp_path / "a.tsr").read_bytes())
    openssl("ts", "-query", "-data", "x", "-sha512", "-cert", "-out", "q.tsq", at=tmp_path)
    answer(tmp_path, "q.tsq", "a.tsr")
    with pytest.raises(Malformed):
        decode_token((tmp_path / "a.tsr").read_bytes())
    openssl("ts", "-query", "-data", "x", "-sha256", "-out", "q.tsq", at=tmp_path)
    answer(tmp_path, "q.tsq", "a.tsr")
    with pytest.raises(Malformed, match="without the certificate"):
        decode_token((tmp_path / "a.tsr").read_bytes())


def test_a_request_asks_for_sha256_of_what_is_given() -> None:
    """The same file asks the same, by its digest alone."""
    assert timestamp_request(b"hello") == timestamp_request(b"hello")
    assert sha256(b"hello") in timestamp_request(b"hello")


def test_the_document_shows_before_it_rules() -> None:
    """It has the sections of every format document, in their order."""
    text = (Path(timestamps.__file__).parents[1] / "formats" / "timestamp.md").read_text()
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert -1 not in places
    assert sorted(places) == places


def test_a_signature_that_commits_to_no_certificate_is_malformed() -> None:
    """A SigningCertificateV2 with an empty list of certificates is no list to look into."""
    committed = bytes.fromhex("3026302430220420")
    assert 1 == TOKEN.count(committed)
    with pytest.raises(Malformed, match="not a timestamp response"):
        decode_token(TOKEN.replace(committed, bytes.fromhex("3026300030220420")))
