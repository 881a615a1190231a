"""Whether a ``model.sig`` holds for a model directory.  Format: model.md, "Verifying alone".

Stricter than the reference wherever that is loose: every verdict has a stable id ``model.*``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from custody.crypto.signature import load_ec_public, verify_foreign
from custody.encoding import key_id
from custody.errors import Malformed, Refused
from custody.formats.model import (
    ModelSignature,
    Version,
    check_root,
    key_hint,
    key_pem,
    read_model_signature,
)
from custody.formats.model_files import SignedFile, check_algorithms, files_of
from custody.rules.verdicts import Ledger

if TYPE_CHECKING:
    from custody.rules.model_certificate import CertificateTrust

MAX_ENTRIES: Final = 1_000_000
#: Faults of one kind told one by one; a million lines would hide the first.
_FAULTS_TOLD = 100


@dataclass(frozen=True, slots=True)
class KeyTrust:
    """The signer must hold this key.  ``spki`` is DER."""

    spki: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrust:
    """What a verifier goes by.  Nothing of it comes from the file that is judged.

    ``unsigned`` names paths, files or folders, below which he puts up with files that nobody
    signed; what the *signer* says may be ignored excuses nothing.
    """

    signer: KeyTrust | CertificateTrust
    versions: tuple[Version, ...] = ("1.0",)
    unsigned: tuple[str, ...] = ()

    def with_old(self) -> ModelTrust:
        """Return the same that also takes signatures of version 0.2."""
        return replace(self, versions=("1.0", "0.2"))


class Entry(msgspec.Struct, frozen=True):
    """Something that lies in a model directory; ``name`` is relative, ``/``-separated."""

    name: str
    kind: Literal["file", "link", "special"]
    size_bytes: int


class JudgedSignature(msgspec.Struct, frozen=True):
    """A signature that was read, and the files it is over; both None where it does not hold."""

    signature: ModelSignature | None
    files: tuple[SignedFile, ...] | None
    algorithm: str = ""


def judge_signature(data: bytes, trust: ModelTrust, ledger: Ledger) -> JudgedSignature:
    """Judge everything about a ``model.sig`` but the files."""
    try:
        signature = read_model_signature(data)
    except Malformed as error:
        ledger.add("model.format", False, error.reason)
        return JudgedSignature(None, None)
    ledger.add("model.format", True, "a bundle with one signature over one statement")
    ledger.add(
        "model.version",
        signature.version in trust.versions,
        f"OMS v{signature.version}",
        otherwise="made by version 0.2, which signed neither root digest nor method",
    )
    algorithm = ""
    with ledger.failing("model.algorithm"):
        algorithm = check_algorithms(signature)
        ledger.add("model.algorithm", True, f"{signature.serialization.method} by {algorithm}")
    files: tuple[SignedFile, ...] = ()
    with ledger.failing("model.names"):
        files = files_of(signature)
        ledger.add("model.names", True, f"{len(files)} files, each once and inside the model")
    if signature.version == "1.0":
        with ledger.failing("model.root"):
            check_root(signature)
            ledger.add("model.root", True, "the root digest follows from the listed files")
    else:
        ledger.skip("model.root", "version 0.2 has none")
    spki = _signing_key(signature, trust.signer, ledger)
    if spki is None:
        ledger.skip("model.signature", "there is no key to check it by")
    else:
        with ledger.failing("model.signature"):
            _verify(signature, spki)
            ledger.add("model.signature", True, f"made by key {key_id(spki)}")
    if ledger.failed:
        return JudgedSignature(signature, None)
    return JudgedSignature(signature, files, algorithm)


def judge_listing(
    files: Sequence[SignedFile],
    entries: Sequence[Entry],
    *,
    signature: ModelSignature,
    trust: ModelTrust,
    itself: str | None,
    ledger: Ledger,
) -> None:
    """Judge which files are there.  ``itself`` is the signature's own name in the model, if any."""
    signed = {file.name for file in files}
    missing = sorted(signed - {entry.name for entry in entries})
    rest = [e for e in entries if e.name not in signed and e.name != itself]
    allowed = [e for e in rest if lies_below(e.name, trust.unsigned)]
    rest = [e for e in rest if not lies_below(e.name, trust.unsigned)]
    odd = [e.name for e in entries if e.name in signed and e.kind != "file"]
    odd += [e.name for e in rest if e.kind != "file"]
    files_left = [e.name for e in rest if e.kind == "file"]
    ignored = [name for name in files_left if lies_below(name, signature.ignore_paths)]
    unsigned = sorted(set(files_left) - set(ignored))
    _tell(ledger, "model.missing", missing, "every signed file is there", "missing")
    _tell(ledger, "model.special", odd, "no link or device", "a link, device, pipe or socket")
    _tell(ledger, "model.unsigned", unsigned, "no file that nobody signed", "nobody signed it")
    # What is ignored when signing is ignored by other verifiers: whoever can write there puts
    # in what he likes under a signature that holds.
    _tell(
        ledger,
        "model.ignored",
        ignored,
        "nothing lies where the signer looked away",
        "lies where the signer looked away, so that nobody signed it",
    )
    if allowed:
        ledger.skip("model.allowed", f"{len(allowed)} unsigned files lie where you allow it")


def judge_digests(
    files: Iterable[SignedFile], bad: Collection[str], hashed: int, ledger: Ledger
) -> None:
    """Judge the contents of the files that are there, of which ``bad`` have other bytes."""
    names = [file.name for file in files if file.name in bad]
    _tell(ledger, "model.digest", names, f"{hashed} files are as signed", "is not as signed")


def _tell(ledger: Ledger, check: str, names: Sequence[str], good: str, bad: str) -> None:
    """Write a verdict for each bad name, or one that there is none."""
    if not names:
        ledger.add(check, True, good)
    for name in names[:_FAULTS_TOLD]:
        # A stranger chose the name: escape sequences, and bytes that are no text, are spelled.
        ledger.add(check, False, f"{_shown(name)}: {bad}")
    if len(names) > _FAULTS_TOLD:
        ledger.add(check, False, f"{len(names) - _FAULTS_TOLD} more like these")


def _shown(name: str) -> str:
    return name if name.isprintable() else repr(name)


def lies_below(name: str, paths: Iterable[str]) -> bool:
    """Tell whether a name is one of some paths, or lies below one."""
    bare = (path.removeprefix("./").rstrip("/") for path in paths)
    return any(name == path or name.startswith(f"{path}/") for path in bare)


def _signing_key(
    signature: ModelSignature, signer: KeyTrust | CertificateTrust, ledger: Ledger
) -> bytes | None:
    """Return the key the signature must be by; None where there is no such key."""
    if signature.material == "keyless":
        # Half of its verification, the log and the timestamps, needs a network and roots that
        # change: what is left would be a certificate that expired ten minutes after signing.
        ledger.add("model.kind", False, "a keyless Sigstore signature, which is not verified here")
        return None
    if isinstance(signer, KeyTrust):
        ledger.add("model.kind", True, f"by {signature.material}, to be checked by a key")
        with ledger.failing("model.key"):
            ledger.add("model.key", True, _check_key(signature, signer.spki))
        return signer.spki
    ledger.add(
        "model.kind",
        signature.material == "certificate",
        "by certificate",
        otherwise="by a bare key: no authority speaks for it",
    )
    if signature.material != "certificate":
        return None
    # Imported here because who verifies by a key should not wait for X.509.
    from custody.rules.model_certificate import check_model_certificate  # noqa: PLC0415

    return check_model_certificate(signature.certificates, signer, ledger)


def _check_key(signature: ModelSignature, spki: bytes) -> str:
    """Refuse a signature that names another key; return in words how it names this one."""
    if signature.certificates:
        from custody.crypto.certificates import spki_of  # noqa: PLC0415 - as above

        named = spki_of(signature.certificates[0]) == spki
        words = "its certificate is for this key"
    elif signature.key_hint is not None:
        named = signature.key_hint == key_hint(spki)
        words = "its hint is this key's"
    else:
        named = signature.key_bytes in (key_pem(spki), spki)
        words = "it carries this key"
    if not named:
        raise Refused("it names another key", check="model.key")
    return words


def _verify(signature: ModelSignature, spki: bytes) -> None:
    try:
        verify_foreign(spki, signature.signed_bytes, signature.signature)
    except Refused:
        if signature.version != "0.2":
            raise
        _verify_old(signature, spki)


def _verify_old(signature: ModelSignature, spki: bytes) -> None:
    """Verify as version 0.2 signed: other bytes, and with certificates always SHA-256."""
    if signature.material == "key":
        verify_foreign(spki, signature.old_signed_bytes, signature.signature)
        return
    try:
        if encode_dss_signature(*decode_dss_signature(signature.signature)) != signature.signature:
            raise Refused("the signature is not strict DER", check="model.signature")
        load_ec_public(spki).verify(
            signature.signature, signature.old_signed_bytes, ec.ECDSA(hashes.SHA256())
        )
    except (InvalidSignature, ValueError) as error:
        raise Refused("the signature is wrong", check="model.signature") from error
