from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from custody.errors import Malformed
from custody.formats.model import decode_model_signature
from custody.ops.model_signature import sign_model
from tests.interop.models import Publisher, digests
from tests.interop.schema import Schemas
from tests.unit.crypto.vectors import SHARED

OMS = SHARED / "oms"
pytestmark = pytest.mark.skipif(
    not OMS.is_dir(), reason="the OMS schemas and vectors are not beside this checkout"
)


def _vector(name: str) -> bytes:
    return (OMS / "test-vectors" / "v1.0" / name).read_bytes()


@pytest.mark.parametrize("mode", ["key", "certificate"])
def test_what_we_sign_follows_the_schemas(model: Path, mode: str, tmp_path: Path) -> None:
    """Bundle and statement of our signatures have no fault by the four OMS v1.0 schemas."""
    publisher = Publisher.on(ec.SECP256R1(), tmp_path / "publisher")
    chain = (publisher.certificate,) if mode == "certificate" else ()
    data = sign_model(digests(model), signer=publisher.signer, certificates=chain)
    bundle = json.loads(data)
    schemas = Schemas(OMS / "schemas" / "v1.0")
    assert [] == schemas.faults("bundle", bundle)
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert [] == schemas.faults("statement", payload)
    assert ["$: extra does not belong"] == schemas.faults("bundle", {**bundle, "extra": 1})
    assert ["$.predicate.serialization: lacks allow_symlinks"] == schemas.faults(
        "statement", _without_symlinks(payload)
    )


def _without_symlinks(payload: dict[str, dict[str, dict[str, str]]]) -> object:
    serialization = dict(payload["predicate"]["serialization"])
    del serialization["allow_symlinks"]
    return {**payload, "predicate": {**payload["predicate"], "serialization": serialization}}


def test_a_key_bundle_is_read() -> None:
    """The specification's bundle by a bare key gives its files and the hint."""
    found = decode_model_signature(_vector("valid/key.bundle.json"))
    assert "e8450dec4eb99dae995da9af1bc2cc9f76ed669ee2e744f57abba763df3e3f8e" == found.key_hint
    assert ["signme-1", "signme-2"] == [resource.name for resource in found.resources]
    assert () == found.certificates


def test_a_certificate_bundle_is_read() -> None:
    """The specification's bundle by a certificate gives its chain, and no hint."""
    found = decode_model_signature(_vector("valid/certificate.bundle.json"))
    assert (True, None) == (len(found.certificates) > 1, found.key_hint)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("valid/sigstore.bundle.json", "keyless"),
        ("invalid/empty.bundle.json", "truncated"),
        ("invalid/missing-envelope.bundle.json", "dsseEnvelope"),
        ("invalid/missing-tlog-entries.bundle.json", "not an OMS v1.0 signature|keyless"),
        ("invalid/missing-verification-material.bundle.json", "verificationMaterial"),
        ("invalid-payload/wrong-predicate.bundle.json", "predicateType"),
    ],
)
def test_what_is_not_ours_to_verify_is_refused(name: str, reason: str) -> None:
    """Every invalid bundle of the specification is refused, and keyless ones by name."""
    with pytest.raises(Malformed, match=reason):
        decode_model_signature(_vector(name))
