from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Refused, Unavailable
from custody.formats.model import decode_model_signature, key_pem
from custody.formats.state import Identity
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.uri import Pkcs11Uri
from custody.ops.home import Home
from custody.ops.model_signer import find_signer
from tests.cli.transcript import Said, run
from tests.vectors.model import make_verify as make


class Desk:
    """A model and the commands on it."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self._capsys, self._patch = folder, capsys, patch
        self.model = folder / "m"
        self.model.mkdir()
        (self.model / "w").write_bytes(b"weights")

    def sign(self, uri: Pkcs11Uri, *words: object) -> Said:
        return self.run("publisher", "sign-model", self.model, "--token", uri, *words)

    def verify(self, signature: Path, *words: object) -> Said:
        return self.run("auditor", "verify-model", self.model, "--signature", signature, *words)

    def run(self, *words: object) -> Said:
        return run(*map(str, words), capsys=self._capsys, monkeypatch=self._patch)


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """A desk of one's own."""
    return Desk(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_a_key_in_a_token_signs(desk: Desk, uri: Pkcs11Uri, curve: ec.EllipticCurve) -> None:
    """A key named by label, digest or URI signs; its public half is written, and verifies it."""
    with open_token(uri) as token:
        key = token.make(KeyRole.SIGN, "release", curve)
        (info,) = token.keys()
    digest = key_id(public_bytes(key.public_key()))
    for name, token_uri, words in (
        ("label", uri, ["--key", "release"]),
        ("digest", uri, ["--key", digest]),
        ("uri", replace(uri, id=info.id), []),
    ):
        out, public = desk.folder / f"{name}.sig", desk.folder / f"{name}.pem"
        said = desk.sign(token_uri, *words, "--out", out, "--public", public, "--json")
        assert (0, digest) == (said.code, json.loads(said.out)["key"]), said.err
        assert 0 == desk.verify(out, "--key", public).code
    said = desk.sign(uri, "--key", "release", "--out", out)
    assert (1, True) == (said.code, "never overwritten" in said.err)


def test_an_enrolled_publisher_names_no_key(desk: Desk, uri: Pkcs11Uri) -> None:
    """Without a token named the key is the one the publisher enrolled with, and no other."""
    home = Home(desk.folder / "home")
    out, public = desk.folder / "m.sig", desk.folder / "m.pem"
    words = ["publisher", "sign-model", desk.model, "--home", home.path]
    words += ["--out", out, "--public", public]
    assert (4, False) == (desk.run(*words).code, out.exists())
    with open_token(uri) as token:
        token.make(KeyRole.SIGN, "other", ec.SECP256R1())
        key = token.make(KeyRole.SIGN, "mine", ec.SECP256R1())
    spki = public_bytes(key.public_key())
    home.save_identity(
        Identity(
            kind="custody/identity/v1",
            principal="pub",
            display="",
            role="publisher",
            token=str(uri),
            signing_spki=spki,
            shares=(),
        )
    )
    assert (2, False) == (desk.run(*words, "--key", "other").code, out.exists())
    assert 0 == desk.run(*words).code
    assert key_pem(spki) == public.read_bytes()
    assert 0 == desk.verify(out, "--key", public).code


def test_the_certificate_chooses_the_key(desk: Desk, uri: Pkcs11Uri) -> None:
    """With a certificate the key is the one it is for, and no other will do."""
    with open_token(uri) as token:
        key = token.make(KeyRole.SIGN, "release", ec.SECP256R1())
        token.make(KeyRole.SIGN, "other", ec.SECP256R1())
    for name, der in (("leaf", make.certificate(key)), ("ca", make.authority())):
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        (desk.folder / f"{name}.pem").write_bytes(pem)
    certified = ["--certificate", desk.folder / "leaf.pem"]
    out = desk.folder / "by.sig"
    assert 0 == desk.sign(uri, *certified, "--out", out).code
    assert 1 == len(decode_model_signature(out.read_bytes()).certificates)
    trust = ["--authority", desk.folder / "ca.pem", "--identity", "CN=publisher", "--at", make.AT]
    assert 0 == desk.verify(out, *trust).code
    none = desk.folder / "none.sig"
    said = desk.sign(uri, *certified, "--key", "other", "--out", none)
    assert (1, False) == (said.code, none.exists())


def test_names_that_name_nothing(token: Pkcs11Token, uri: Pkcs11Uri) -> None:
    """No key is unavailable; a label of two keys, and a label in the URI alone, are refused."""
    with pytest.raises(Unavailable):
        find_signer(token, uri, name="release")
    for _ in range(2):
        token.make(KeyRole.SIGN, "release", ec.SECP256R1())
    with pytest.raises(Refused) as error:
        find_signer(token, uri, name="release")
    assert "key.ambiguous" == error.value.check
    with pytest.raises(Refused) as error:
        find_signer(token, replace(uri, object="release"))
    assert "key.unpinned" == error.value.check
