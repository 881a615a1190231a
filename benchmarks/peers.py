"""The tools we are measured beside, run as their users run them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

_INTEROP = Path(__file__).parent.parent / ".venv-interop" / "bin"


@dataclass(frozen=True, slots=True)
class Age:
    """``age`` with an X25519 key: one recipient, one file."""

    program: str
    identity: Path
    recipient: str

    @classmethod
    def make(cls, place: Path) -> Age:
        """Make a key."""
        identity = place / "age.key"
        keygen = _program("age-keygen")
        subprocess.run([keygen, "-o", str(identity)], check=True, capture_output=True)
        asked = [keygen, "-y", str(identity)]
        recipient = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        return cls(_program("age"), identity, recipient)

    def encrypt(self, source: Path, target: Path) -> list[str | Path]:
        """Return the command that encrypts a file."""
        return [self.program, "-r", self.recipient, "-o", target, source]

    def decrypt(self, source: Path, target: Path) -> list[str | Path]:
        """Return the command that decrypts it."""
        return [self.program, "-d", "-i", self.identity, "-o", target, source]


@dataclass(frozen=True, slots=True)
class ModelSigning:
    """The reference implementation of OpenSSF Model Signing, with a P-256 key in a file."""

    program: Path
    private: Path
    public: Path

    @classmethod
    def make(cls, place: Path) -> ModelSigning:
        """Make a key."""
        program = _INTEROP / "model_signing"
        if not program.exists():
            raise SystemExit("bench: model_signing is not installed; make setup")
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = place / "signing.pem", place / "signing.pub.pem"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        return cls(program, private, public)

    def sign(self, model: Path, signature: Path) -> list[str | Path]:
        """Return the command that signs a model directory."""
        words: list[str | Path] = [self.program, "sign", "key", model, "--no-ignore-git-paths"]
        return [*words, "--private_key", self.private, "--signature", signature]

    def verify(self, model: Path, signature: Path) -> list[str | Path]:
        """Return the command that verifies it."""
        words: list[str | Path] = [self.program, "verify", "key", model, "--no-ignore-git-paths"]
        return [*words, "--public_key", self.public, "--signature", signature]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"bench: {name} is not installed; make bench-system")
    return found
