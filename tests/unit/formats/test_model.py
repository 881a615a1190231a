from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto.signature import verify
from custody.encoding import sha256
from custody.errors import Malformed
from custody.formats.envelope import PAYLOAD_TYPE, pae
from custody.formats.model import (
    Resource,
    decode_model_signature,
    encode_model_signature,
    key_hint,
    model_payload,
    root_digest,
)
from tests.unit.crypto.vectors import Vector, each, read
from tests.unit.formats import spec_examples as examples
from tests.unit.formats.fixed import spki
from tests.unit.formats.strategies import DIGESTS
from tests.vectors.model import make

EXAMPLE = examples.EXAMPLES["model/example.sig"]
PIECES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda piece: piece not in {".", ".."}
)
PATHS = st.lists(PIECES, min_size=1, max_size=3).map("/".join)
RESOURCES = st.dictionaries(PATHS, DIGESTS, min_size=1, max_size=5).map(
    lambda files: tuple(
        Resource(name=name, algorithm="sha256", digest=digest) for name, digest in files.items()
    )
)


@each("model/malformed.txt", "reason", "file")
def test_what_no_reader_takes(vector: Vector) -> None:
    """A vector is malformed for its reason, said in one printable line."""
    with pytest.raises(Malformed, match=vector["reason"]) as error:
        decode_model_signature(base64.b64decode(vector["file"]))
    assert error.value.reason.isprintable()


def test_the_vectors_are_what_their_generator_writes() -> None:
    """The file has exactly the generator's cases, no comment twice."""
    stored = [
        (vector["comment"], vector["file"])
        for vector in read("model/malformed.txt", "reason", "file")
    ]
    made = [(comment, base64.b64encode(data).decode()) for comment, _, data in make.cases()]
    assert made == stored
    assert len(dict(made)) == len(made)


@settings(deadline=None)
@given(RESOURCES, st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_what_is_signed_is_read(resources: tuple[Resource, ...], name: str) -> None:
    """Every file and no other is read from a signature, in code-point order, with its hint."""
    payload = model_payload(name, resources)
    found = decode_model_signature(encode_model_signature(payload, b"sig", spki=b"key"))
    assert tuple(sorted(resources, key=lambda r: r.name)) == found.resources
    assert (name, (), b"sig") == (found.model_name, found.ignore_paths, found.signature)
    assert (key_hint(b"key"), ()) == (found.key_hint, found.certificates)
    assert pae(PAYLOAD_TYPE, payload) == found.signed_bytes


def test_a_chain_is_read_in_its_order() -> None:
    """Certificates are written and read leaf first, and then there is no hint."""
    data = encode_model_signature(
        examples.model_statement(), b"sig", spki=b"", certificates=(b"leaf", b"authority")
    )
    found = decode_model_signature(data)
    assert (None, (b"leaf", b"authority")) == (found.key_hint, found.certificates)


@pytest.mark.parametrize(
    "change",
    [
        {"tlogEntries": None},
        {"publicKey": {"hint": key_hint(b"key"), "keyDetails": "x"}},
        {"publicKey": {"rawBytes": "AA==", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}},
        {"timestampVerificationData": {"rfc3161Timestamps": []}},
    ],
)
def test_what_other_signers_add_is_read_over(change: dict[str, Any]) -> None:
    """Absent logs, older keys and timestamps do not hinder reading; none of them is believed."""
    bundle = json.loads(EXAMPLE)
    material = bundle["verificationMaterial"] | change
    bundle["verificationMaterial"] = {k: v for k, v in material.items() if v is not None}
    found = decode_model_signature(json.dumps(bundle).encode())
    assert decode_model_signature(EXAMPLE).signed_bytes == found.signed_bytes


@pytest.mark.parametrize("keyid", ["", None, "any"])
def test_key_ids_say_nothing(keyid: str | None) -> None:
    """A signature's keyid may be empty, null or anything; absent too."""
    bundle = json.loads(EXAMPLE)
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = keyid
    assert decode_model_signature(EXAMPLE) == decode_model_signature(json.dumps(bundle).encode())
    del bundle["dsseEnvelope"]["signatures"][0]["keyid"]
    assert decode_model_signature(EXAMPLE) == decode_model_signature(json.dumps(bundle).encode())


def test_the_reference_writes_its_json_as_it_likes() -> None:
    """Printed for reading, with keys in any order and escapes, a statement says the same."""
    statement = make.statement()
    turned = dict(reversed(statement.items()))
    payload = json.dumps(turned, indent=2).encode()
    assert decode_model_signature(EXAMPLE).resources == (
        decode_model_signature(make.around(payload)).resources
    )


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_junk_is_malformed(data: bytes) -> None:
    """Bytes that are no bundle are malformed, never another error, as file and as payload."""
    for junk in (data, make.around(data)):
        with pytest.raises(Malformed):
            decode_model_signature(junk)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["../a"], ["/a"], ["a//b"], ["."], ["a/"]])
def test_nobody_signs_what_nobody_reads(names: list[str]) -> None:
    """A list of files that no reader takes is found before it is signed."""
    files = [Resource(name=name, algorithm="sha256", digest="00" * 32) for name in names]
    with pytest.raises(Malformed):
        model_payload("model", files)


def test_the_hint_is_of_the_pem() -> None:
    """The hint is SHA-256 of the public key's PEM text, lines of 64 and a newline at the end."""
    lines = base64.encodebytes(spki("pub")).decode().replace("\n", "")
    body = "\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    pem = f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
    assert sha256(pem.encode()).hex() == key_hint(spki("pub"))


def test_the_root_binds_no_names() -> None:
    """Files under exchanged names have the same root digest, which is why nothing rests on it."""
    a, b = (Resource(name=name, algorithm="sha256", digest="00" * 32) for name in "ab")
    assert root_digest([a]) == root_digest([b])


def test_the_example_is_signed() -> None:
    """The specification's model.sig is pub's signature over the model of parts.md."""
    found = decode_model_signature(EXAMPLE)
    verify(spki("pub"), found.signed_bytes, found.signature)
    assert list(examples.FILES) == [(r.name, r.digest) for r in found.resources]


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (("verificationMaterial", "x509CertificateChain", "certificates", 0, "rawBytes"), 65536),
        (("dsseEnvelope", "signatures", 0, "sig"), 768),
    ],
    ids=["a certificate", "a signature"],
)
def test_the_longest_certificate_and_signature(path: tuple[str | int, ...], most: int) -> None:
    """As many bytes as the document allows are read, and three more are not."""
    chain = encode_model_signature(
        examples.model_statement(), b"sig", spki=b"", certificates=(b"leaf",)
    )
    for size in (most, most + 3):
        bundle: Any = json.loads(chain)
        place = bundle
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = base64.b64encode(bytes(size)).decode()
        data = json.dumps(bundle).encode()
        if size == most:
            found = decode_model_signature(data)
            assert bytes(size) in {found.signature, *found.certificates}
        else:
            with pytest.raises(Malformed, match="length"):
                decode_model_signature(data)


def test_the_longest_name() -> None:
    """A name of 4096 characters is read, one of 4097 is not."""
    for size in (4096, 4097):
        file = Resource(name="a" * size, algorithm="sha256", digest="00" * 32)
        data = encode_model_signature(model_payload("m", [file]), b"sig", spki=b"")
        if size == 4096:
            assert (file,) == decode_model_signature(data).resources
        else:
            with pytest.raises(Malformed, match="length"):
                decode_model_signature(data)
