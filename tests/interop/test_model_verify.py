"""`custody auditor verify-model` and `publisher sign-model` beside the reference, both ways."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from custody.formats.model import decode_model_signature
from custody.ops.model_sign import sign_directory
from custody.ops.model_verify import verify_directory
from custody.rules.model import KeyTrust, ModelTrust
from custody.rules.model_certificate import CertificateTrust, SignerIdentity
from tests.interop.conftest import Reference, interop_python
from tests.interop.models import NOW, Publisher
from tests.unit.crypto.vectors import SHARED
from tests.vectors.model import make_verify as make

MODES = pytest.mark.parametrize("mode", ["key", "certificate"])
OMS = SHARED / "oms" / "test-vectors" / "v1.0" / "valid"

#: What the command line of the reference cannot be told, its library can.
_BY_LIBRARY = """
import sys
from pathlib import Path
from model_signing import hashing, signing
method, algorithm, model, key, out = sys.argv[1:]
config = hashing.Config()
if method == "shards":
    config.use_shard_serialization(hashing_algorithm=algorithm, shard_size=1000)
else:
    config.use_file_serialization(hashing_algorithm=algorithm)
config.set_ignored_paths(paths=[], ignore_git_paths=False)
signer = signing.Config().use_elliptic_key_signer(private_key=key)
signer.set_hashing_config(config).sign(model, out)
"""


def _trust(publisher: Publisher, mode: str) -> ModelTrust:
    if mode == "key":
        return ModelTrust(signer=KeyTrust(publisher.signer.spki))
    return ModelTrust(
        signer=CertificateTrust(
            authorities=(publisher.authority,), identity=SignerIdentity("CN", "pub"), moment=NOW
        )
    )


def _failed(model: Path, signature: Path, trust: ModelTrust) -> list[str]:
    report = verify_directory(model, signature.read_bytes(), trust=trust, signature=signature)
    assert report.verdicts
    return [f"{v.check}: {v.reason}" for v in report.verdicts if v.outcome == "fail"]


def _publisher(curve: ec.EllipticCurve, folder: Path) -> Publisher:
    """Make a publisher also on P-521, for which our own authorities do not issue."""
    if curve.name != "secp521r1":
        return Publisher.on(curve, folder)
    key = make.made_key("model signer", curve)
    folder.mkdir()
    leaf = make.certificate(key, days=(-300, 300))
    publisher = Publisher(key, leaf, make.authority(days=(-300, 3000)), folder)
    Path(publisher.pem("public.pem")).write_bytes(make.pem(key))
    authority = x509.load_der_x509_certificate(publisher.authority)
    Path(publisher.pem("ca.pem")).write_bytes(authority.public_bytes(Encoding.PEM))
    return publisher


def _sign(publisher: Publisher, mode: str, signature: Path) -> list[object]:
    words: list[object] = ["sign", mode, "--signature", signature]
    words += ["--private_key", publisher.pem("key.pem")]
    if mode == "certificate":
        words += ["--signing_certificate", publisher.pem("leaf.pem")]
        words += ["--certificate_chain", publisher.pem("ca.pem")]
    return words


@MODES
def test_we_verify_what_the_reference_signs(
    reference: Reference, model: Path, publisher: Publisher, mode: str, tmp_path: Path
) -> None:
    """A directory the reference signed verifies here, sorted by components as it sorts."""
    path = tmp_path / "model.sig"
    done = reference(*_sign(publisher, mode, path), "--no-ignore-git-paths", model)
    assert 0 == done.returncode, done.stderr
    assert [] == _failed(model, path, _trust(publisher, mode))
    names = [r.name for r in decode_model_signature(path.read_bytes()).resources]
    assert names != sorted(names)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
@MODES
def test_the_reference_verifies_what_we_sign(
    reference: Reference, model: Path, mode: str, curve: ec.EllipticCurve, tmp_path: Path
) -> None:
    """A directory we signed on any of the three curves verifies there."""
    publisher = _publisher(curve, tmp_path / "publisher")
    chain = (publisher.certificate, publisher.authority) if mode == "certificate" else ()
    path = tmp_path / "model.sig"
    path.write_bytes(sign_directory(model, signer=publisher.signer, certificates=chain))
    anchor = ["--public_key", "public.pem"] if mode == "key" else ["--certificate_chain", "ca.pem"]
    words = ["verify", mode, "--signature", path, "--no-ignore-git-paths"]
    done = reference(*words, anchor[0], publisher.pem(anchor[1]), model)
    assert (0, True) == (done.returncode, "Verification succeeded" in done.stdout), done.stderr


def test_a_signature_in_the_model_both_ways(
    reference: Reference, model: Path, tmp_path: Path
) -> None:
    """A model.sig in the model itself is ignored by both, whoever wrote it."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    copy = shutil.copytree(model, tmp_path / "m")
    inside = copy / "model.sig"
    done = reference(*_sign(publisher, "key", inside), "--no-ignore-git-paths", copy)
    assert 0 == done.returncode, done.stderr
    assert [] == _failed(copy, inside, _trust(publisher, "key"))
    inside.unlink()
    inside.write_bytes(sign_directory(copy, signer=publisher.signer, signature=inside))
    words = ["verify", "key", "--signature", inside, "--no-ignore-git-paths"]
    done = reference(*words, "--public_key", publisher.pem("public.pem"), copy)
    assert 0 == done.returncode, done.stderr + done.stdout


def test_what_the_reference_ignores(reference: Reference, model: Path, tmp_path: Path) -> None:
    """Git's files, which it leaves out unasked, are refused until the verifier allows them."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    path = tmp_path / "model.sig"
    assert 0 == reference(*_sign(publisher, "key", path), model).returncode
    trust = _trust(publisher, "key")
    assert [
        "model.ignored: .gitattributes: lies where the signer looked away, so that nobody signed it"
    ] == _failed(model, path, trust)
    assert [] == _failed(model, path, replace(trust, unsigned=(".gitattributes",)))
    ours = tmp_path / "ours.sig"
    ours.write_bytes(sign_directory(model, signer=publisher.signer, ignore=[".gitattributes"]))
    words = ["verify", "key", "--signature", ours, "--public_key", publisher.pem("public.pem")]
    done = reference(*words, model)
    assert 0 == done.returncode, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("method", "algorithm"),
    [("files", "sha256"), ("files", "blake3"), ("shards", "sha256"), ("shards", "blake2")],
)
def test_what_its_library_signs(
    reference: Reference, publisher: Publisher, method: str, algorithm: str, tmp_path: Path
) -> None:
    """Shards in its own spelling and other digests, which its command line cannot verify."""
    model = tmp_path / "m"
    (model / "sub").mkdir(parents=True)
    (model / "w").write_bytes(bytes(range(256)) * 10)
    (model / "sub" / "x").write_bytes(b"x")
    path = tmp_path / "model.sig"
    words = [method, algorithm, str(model), publisher.pem("key.pem"), str(path)]
    command = [str(interop_python()), "-c", _BY_LIBRARY, *words]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    trust = _trust(publisher, "key")
    assert [] == _failed(model, path, trust)
    if method == "shards":
        assert b"-sharded-1000" in base64.b64decode(
            json.loads(path.read_bytes())["dsseEnvelope"]["payload"]
        )
    (model / "w").write_bytes(bytes(range(256)) * 10 + b"\0")
    assert ["model.digest: w: is not as signed"] == _failed(model, path, trust)


def test_a_single_file(reference: Reference, publisher: Publisher, tmp_path: Path) -> None:
    """A model that is one file, as the reference signs it, verifies here."""
    model, path = tmp_path / "w.bin", tmp_path / "w.sig"
    model.write_bytes(b"weights")
    done = reference(*_sign(publisher, "key", path), model)
    assert 0 == done.returncode, done.stderr
    assert [] == _failed(model, path, _trust(publisher, "key"))


@pytest.mark.skipif(not OMS.is_dir(), reason="the OMS vectors are not beside this checkout")
def test_the_specification_s_certificate(tmp_path: Path) -> None:
    """The specification's valid bundle by certificate holds from its intermediate, files apart."""
    data = (OMS / "certificate.bundle.json").read_bytes()
    signature = decode_model_signature(data)
    leaf, middle = signature.certificates
    trust = ModelTrust(
        signer=CertificateTrust(
            authorities=(middle,), identity=SignerIdentity("CN", "intermediate-ca"), moment=NOW
        )
    )
    model = tmp_path / "m"
    model.mkdir()
    path = tmp_path / "model.sig"
    path.write_bytes(data)
    missing = [f"model.missing: {name}: missing" for name in ("signme-1", "signme-2")]
    assert missing == _failed(model, path, trust)
    assert leaf != middle


@pytest.mark.skipif(not OMS.is_dir(), reason="the OMS vectors are not beside this checkout")
def test_the_specification_s_keyless_bundle() -> None:
    """A keyless bundle is recognised, and refused by name."""
    trust = ModelTrust(signer=KeyTrust(b""))
    data = (OMS / "sigstore.bundle.json").read_bytes()
    report = verify_directory(Path("nowhere"), data, trust=trust)
    assert {"model.kind"} == {v.check for v in report.verdicts if v.outcome == "fail"}


@pytest.mark.parametrize("by", ["key", "certificate"])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()], ids=lambda c: c.name)
def test_version_0_2_is_what_the_reference_takes_for_it(
    reference: Reference, by: str, curve: ec.EllipticCurve, tmp_path: Path
) -> None:
    """What we read as version 0.2, its mistakes included, the reference reads so too."""
    key = make.made_key("model signer", curve)
    model = tmp_path / "m"
    for name, content in make.FILES.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(content)
    (tmp_path / "public.pem").write_bytes(make.pem(key))
    authority = make.authority(days=(-300, 3000))
    pem = x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM)
    (tmp_path / "ca.pem").write_bytes(pem)
    certified = make.chain(make.certificate(key, days=(-300, 300)))
    path = tmp_path / "model.sig"
    path.write_bytes(
        make.bundle(
            make.old_statement(),
            key,
            material=certified if by == "certificate" else None,
            message=make.old_bytes,
            algorithm=hashes.SHA256() if by == "certificate" else None,
        )
    )
    words: list[object] = ["verify", by, "--signature", path]
    words += (
        ["--public_key", tmp_path / "public.pem"]
        if by == "key"
        else ["--certificate_chain", tmp_path / "ca.pem"]
    )
    done = reference(*words, model)
    assert 0 == done.returncode, done.stderr + done.stdout
    trust = ModelTrust(signer=KeyTrust(make.spki(key)))
    assert [] == _failed(model, path, trust.with_old())
    assert ["model.version"] == [fault.partition(":")[0] for fault in _failed(model, path, trust)]
