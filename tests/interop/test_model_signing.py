from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.errors import Refused
from custody.formats.model import decode_model_signature
from custody.ops.model_signature import sign_model, verify_model
from tests.interop.conftest import Reference
from tests.interop.models import Publisher, digests, minilm

MODES = pytest.mark.parametrize("mode", ["key", "certificate"])


def _signed(model: Path, publisher: Publisher, mode: str, folder: Path) -> Path:
    chain = (publisher.certificate, publisher.authority) if mode == "certificate" else ()
    path = folder / "model.sig"
    path.write_bytes(
        sign_model(
            digests(model), signer=publisher.signer, certificates=chain, model_name=model.name
        )
    )
    return path


def _verify(publisher: Publisher, mode: str, signature: Path) -> list[object]:
    anchor = ["--public_key", "public.pem"] if mode == "key" else ["--certificate_chain", "ca.pem"]
    return [
        "verify",
        mode,
        "--signature",
        signature,
        "--no-ignore-git-paths",
        anchor[0],
        publisher.pem(anchor[1]),
    ]


def _sign(publisher: Publisher, mode: str, signature: Path) -> list[object]:
    words: list[object] = ["sign", mode, "--signature", signature]
    words += ["--private_key", publisher.pem("key.pem")]
    if mode == "certificate":
        words += ["--signing_certificate", publisher.pem("leaf.pem")]
        words += ["--certificate_chain", publisher.pem("ca.pem")]
    return words


@MODES
def test_the_reference_accepts_what_we_sign(
    reference: Reference, model: Path, publisher: Publisher, mode: str, tmp_path: Path
) -> None:
    """`model_signing verify` accepts our signature over every file, by key and by certificate."""
    signature = _signed(model, publisher, mode, tmp_path)
    done = reference(*_verify(publisher, mode, signature), model)
    assert (0, True) == (done.returncode, "Verification succeeded" in done.stdout), done.stderr


@MODES
def test_the_reference_accepts_our_signature_of_a_real_model(
    reference: Reference, mode: str, tmp_path: Path
) -> None:
    """`model_signing verify` accepts our signature of the MiniLM directory."""
    real = minilm()
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    signature = _signed(real, publisher, mode, tmp_path)
    done = reference(*_verify(publisher, mode, signature), real)
    assert (0, True) == (done.returncode, "Verification succeeded" in done.stdout), done.stderr


@pytest.mark.parametrize("change", ["a byte", "a file more", "a file less", "a git file"])
def test_the_reference_refuses_a_changed_model(
    reference: Reference, model: Path, tmp_path: Path, change: str
) -> None:
    """Our signature covers every byte, every file and no other, git's own files among them."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    signature = _signed(model, publisher, "key", tmp_path)
    copy = shutil.copytree(model, tmp_path / model.name)
    if change == "a byte":
        (copy / "a.bin").write_bytes(b"3")
    elif change == "a file more":
        (copy / "more").write_bytes(b"")
    elif change == "a file less":
        (copy / "empty").unlink()
    else:
        (copy / ".gitattributes").write_bytes(b"")
    done = reference(*_verify(publisher, "key", signature), copy)
    assert 1 == done.returncode, done.stdout


@MODES
def test_we_accept_what_the_reference_signs(
    reference: Reference, model: Path, publisher: Publisher, mode: str, tmp_path: Path
) -> None:
    """A signature the reference made, pretty-printed and in an order of the day, holds here."""
    path = tmp_path / "model.sig"
    done = reference(*_sign(publisher, mode, path), "--no-ignore-git-paths", model)
    assert 0 == done.returncode, done.stderr
    found = verify_model(path.read_bytes(), digests(model), spki=publisher.signer.spki)
    assert model.name == found.model_name
    assert (2 if mode == "certificate" else 0) == len(found.certificates)


def test_files_the_reference_ignores_are_unsigned_here(
    reference: Reference, model: Path, tmp_path: Path
) -> None:
    """A signature that leaves git's files out is refused for a model that has one."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    path = tmp_path / "model.sig"
    done = reference(*_sign(publisher, "key", path), model)
    assert 0 == done.returncode, done.stderr
    with pytest.raises(Refused, match="over other files"):
        verify_model(path.read_bytes(), digests(model), spki=publisher.signer.spki)
    assert ".gitattributes" in decode_model_signature(path.read_bytes()).ignore_paths


def test_ours_and_theirs_say_the_same(reference: Reference, model: Path, tmp_path: Path) -> None:
    """Statement for statement, ours differs from the reference's in the order of files alone."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    path = tmp_path / "theirs.sig"
    done = reference(*_sign(publisher, "key", path), "--no-ignore-git-paths", model)
    assert 0 == done.returncode, done.stderr
    theirs = decode_model_signature(path.read_bytes())
    ours = decode_model_signature(_signed(model, publisher, "key", tmp_path).read_bytes())
    assert set(theirs.resources) == set(ours.resources)
    assert (theirs.model_name, theirs.key_hint) == (ours.model_name, ours.key_hint)
    assert _bare(theirs.signed_bytes) == _bare(ours.signed_bytes)


def _bare(signed: bytes) -> object:
    """Return a statement without what follows from the order of files, and what is ignored."""
    statement = json.loads(signed[signed.index(b"{") :])
    del statement["subject"][0]["digest"]
    # We say that nothing may be ignored; the reference then says nothing.
    assert [] == statement["predicate"]["serialization"].pop("ignore_paths", [])
    statement["predicate"]["resources"].sort(key=lambda resource: resource["name"])
    return statement
