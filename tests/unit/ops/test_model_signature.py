from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority, issue_certificate
from custody.errors import CustodyError, Refused
from custody.formats.contents import Contents, File
from custody.formats.model import Resource, decode_model_signature
from custody.ops.keys import Signer
from custody.ops.model_signature import (
    judge_contents,
    resources_of,
    sign_model,
    verify_model,
)

SIGNER, OTHER, CA = (Signer(ec.generate_private_key(ec.SECP256R1())) for _ in range(3))
FILES = tuple(
    Resource(name=name, algorithm="sha256", digest=f"{n:064x}")
    for n, name in enumerate(("a", "a-b/x", "a/x"))
)
NOW = datetime(2027, 1, 5, tzinfo=UTC)
AUTHORITY = issue_authority(CA.key, name="ca", not_before=NOW, not_after=NOW + timedelta(days=9))
SIGNED = sign_model(FILES, signer=SIGNER)


def _certificate(signer: Signer) -> bytes:
    return issue_certificate(
        CA.key,
        AUTHORITY,
        spki=signer.spki,
        principal="pub",
        display="",
        use="sign",
        not_before=NOW,
        not_after=NOW + timedelta(days=5),
    )


def test_what_is_signed_verifies() -> None:
    """A signature by a bare key, and one by a certificate, is good for its key and files."""
    chain = (_certificate(SIGNER), AUTHORITY)
    certified = sign_model(FILES, signer=SIGNER, certificates=chain, model_name="minilm")
    assert FILES == verify_model(SIGNED, FILES, spki=SIGNER.spki).resources
    found = verify_model(certified, FILES[::-1], spki=SIGNER.spki)
    assert ("minilm", chain) == (found.model_name, found.certificates)


@pytest.mark.parametrize(
    "files",
    [
        FILES[:-1],
        (*FILES, Resource(name="more", algorithm="sha256", digest="00" * 32)),
        (*FILES[:-1], Resource(name="a/x", algorithm="sha256", digest="ff" * 32)),
        tuple(
            Resource(name=one.name, algorithm="sha256", digest=two.digest)
            for one, two in zip(FILES, (FILES[1], FILES[0], FILES[2]), strict=True)
        ),
    ],
    ids=["one less", "one more", "one changed", "two exchanged"],
)
def test_other_files_are_refused(files: tuple[Resource, ...]) -> None:
    """A signature over any other set of names and digests is refused as model.files."""
    with pytest.raises(Refused) as error:
        verify_model(SIGNED, files, spki=SIGNER.spki)
    assert "model.files" == error.value.check


def test_another_key_is_refused() -> None:
    """A signature is refused by its hint, by its certificate, and without either by itself."""
    bare = json.loads(SIGNED)
    bare["verificationMaterial"]["publicKey"] = {"rawBytes": ""}
    certified = sign_model(FILES, signer=SIGNER, certificates=(_certificate(SIGNER),))
    for data, check in (
        (SIGNED, "model.key"),
        (certified, "model.key"),
        (json.dumps(bare).encode(), "signature"),
    ):
        with pytest.raises(Refused) as error:
            verify_model(data, FILES, spki=OTHER.spki)
        assert check == error.value.check


def test_a_certificate_of_another_key_is_not_put_in() -> None:
    """Signing with somebody else's certificate beside it is refused before it is written."""
    with pytest.raises(Refused) as error:
        sign_model(FILES, signer=SIGNER, certificates=(_certificate(OTHER),))
    assert "model.key" == error.value.check


def test_a_name_that_is_no_text_is_replaced() -> None:
    """A directory's name is informative: bytes that are no text, or none, do not stop signing."""
    for name, written in (("x\udcff", "x?"), ("", "model")):
        data = sign_model(FILES, signer=SIGNER, model_name=name)
        assert written == decode_model_signature(data).model_name


def test_a_high_s_of_another_tool_is_accepted() -> None:
    """The reference signs with either s: both verify, unlike in our own statements."""
    bundle = json.loads(SIGNED)
    entry = bundle["dsseEnvelope"]["signatures"][0]
    r, s = decode_dss_signature(base64.b64decode(entry["sig"]))
    turned = encode_dss_signature(r, ec.SECP256R1().group_order - s)
    entry["sig"] = base64.b64encode(turned).decode()
    assert turned == verify_model(json.dumps(bundle).encode(), FILES, spki=SIGNER.spki).signature


def test_a_changed_byte_is_refused_or_says_the_same() -> None:
    """Whatever byte of a model.sig is changed, it is refused or its signed bytes are the same."""
    signed = decode_model_signature(SIGNED).signed_bytes
    for at in range(len(SIGNED)):
        changed = SIGNED[:at] + bytes([SIGNED[at] ^ (1 << at % 8)]) + SIGNED[at + 1 :]
        try:
            found = verify_model(changed, FILES, spki=SIGNER.spki)
        except CustodyError:
            continue
        assert signed == found.signed_bytes


def test_files_of_a_bundle_are_listed() -> None:
    """Names and digests of a bundle's files are what a signature lists, sizes and places not."""
    file = File(name="a", size_bytes=3, sha256="00" * 32, offset=7)
    assert (Resource(name="a", algorithm="sha256", digest="00" * 32),) == resources_of([file])


def test_an_officer_is_told_who_signed_what_he_opened() -> None:
    """Opened contents are judged by the publisher's signature; closed ones not at all."""
    files = tuple(File(name=r.name, size_bytes=0, sha256=r.digest, offset=0) for r in FILES[1:])
    contents = Contents(
        kind="custody/contents/v1",
        name="m",
        version="1",
        notes="",
        base=None,
        frames=None,
        model_signature=sign_model(FILES[1:], signer=SIGNER),
        files=files,
        part_digests=None,
    )
    (good,) = judge_contents(contents, SIGNER.spki)
    assert ("model.signature", "pass") == (good.check, good.outcome)
    changed = replace(contents, files=files[1:])
    for bad in (
        judge_contents(contents, OTHER.spki),
        judge_contents(contents, None),
        judge_contents(changed, SIGNER.spki),
    ):
        assert [("model.signature", "fail")] == [(v.check, v.outcome) for v in bad]
    assert () == judge_contents(None, SIGNER.spki)
