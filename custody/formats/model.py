"""Model signatures, OpenSSF Model Signing v1.0.  Format: model.md.

A ``model.sig`` is a Sigstore bundle v0.3 with one DSSE signature over an in-toto statement that
lists every file of the model.  What is written here is what the reference verifier takes; what
is read is held to the specification where the reference is loose.  Unlike our own documents it
need not be canonical: the reference writes white space and keys in an order of the day.

`read_model_signature` reads every form the reference has written, to be judged by
`rules.model`; `decode_model_signature` only the one that a bundle carries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from custody.encoding import Digest, Record, check_nesting, encode, first_line, sha256
from custody.errors import Malformed
from custody.formats.envelope import PAYLOAD_TYPE, STATEMENT_TYPE, SubjectDigest, pae

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_SIGNATURE_BYTES = 1 << 28
MAX_CHAIN = 8

#: Base64 as it stands in the file: the library would read forms that others read otherwise.
_Base64 = Annotated[str, msgspec.Meta(min_length=1)]
_CertificateText = Annotated[str, msgspec.Meta(min_length=4, max_length=87384)]
_SignatureText = Annotated[str, msgspec.Meta(min_length=4, max_length=1024)]
_Path = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
#: 32 bytes, or the 64 of BLAKE2b.
_FileDigest = Annotated[str, msgspec.Meta(pattern=r"\A(?:[0-9a-f]{64}){1,2}\Z")]
_Word = Annotated[str, msgspec.Meta(max_length=64)]

Version = Literal["1.0", "0.2"]
Material = Literal["key", "certificate", "keyless"]


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One signed file: name relative to the model, ``/``-separated.

    Where shards are signed the name ends in ``:START:END``, in bytes.
    """

    name: _Path
    algorithm: _Word
    digest: _FileDigest


class Serialization(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How the signer went from files to resources.  The reference writes sizes as floats."""

    method: Literal["files", "shards"]
    hash_type: _Word
    allow_symlinks: bool
    ignore_paths: Annotated[tuple[_Path, ...], msgspec.Meta(max_length=65536)] | None = None
    shard_size: int | float | None = None


class _ModelPredicate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    resources: tuple[Resource, ...]
    serialization: Serialization


class _ModelSubject(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: SubjectDigest


class _ModelStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[_ModelSubject, ...]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = msgspec.field(
        name="predicateType"
    )
    predicate: _ModelPredicate


class _OldStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of versions 0.1 and 0.2, before there was a specification."""

    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[_ModelSubject, ...]
    predicate_type: Literal["https://model_signing/Digests/v0.1"] = msgspec.field(
        name="predicateType"
    )
    predicate: Any = None


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    predicate_type: Literal[
        "https://model_signing/signature/v1.0", "https://model_signing/Digests/v0.1"
    ] = msgspec.field(name="predicateType")


class _PublicKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    hint: Digest | None = None
    raw_bytes: str | None = None


class _Certificate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    raw_bytes: _CertificateText


class _Chain(msgspec.Struct, frozen=True, kw_only=True):
    certificates: Annotated[
        tuple[_Certificate, ...], msgspec.Meta(min_length=1, max_length=MAX_CHAIN)
    ]


class _Material(Record, frozen=True, omit_defaults=True):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = msgspec.field(name="x509CertificateChain", default=None)
    certificate: Any = None
    tlog_entries: tuple[Any, ...] | None = None
    timestamp_verification_data: Any = None


class _Signature(Record, frozen=True, omit_defaults=True):
    sig: _SignatureText
    keyid: str | None = None


class _Envelope(Record, frozen=True):
    payload: _Base64
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=1)]


class _Bundle(Record, frozen=True):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class ModelSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded ``model.sig``.  Nothing that it says is checked yet.

    ``certificates`` is DER, leaf first, and empty where a bare key signed.  A bare key is told
    of by ``key_hint``, before version 1.1 by ``key_bytes`` (its PEM text), or not at all.
    """

    material: Material
    version: Version
    model_name: str
    root: Digest | None
    resources: tuple[Resource, ...]
    serialization: Serialization
    key_hint: str | None
    key_bytes: bytes | None
    certificates: tuple[bytes, ...]
    payload: bytes
    signature: bytes

    @property
    def ignore_paths(self) -> tuple[str, ...]:
        """Paths below which the signer looked at nothing."""
        return self.serialization.ignore_paths or ()

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return pae(PAYLOAD_TYPE, self.payload)

    @property
    def old_signed_bytes(self) -> bytes:
        """What version 0.2 signed instead: by mistake Python's spelling of the payload."""
        head = f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(self.payload)} "
        return head.encode() + repr(self.payload).encode()


def root_digest(resources: Sequence[Resource]) -> Digest:
    """Digest the raw file digests in listed order.  It binds no names: never gate on it alone."""
    return sha256(*(bytes.fromhex(resource.digest) for resource in resources)).hex()


def key_pem(spki: bytes) -> bytes:
    """Return the PEM text of a public key (RFC 7468 section 13)."""
    body = base64.b64encode(spki).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    return pem.encode()


def key_hint(spki: bytes) -> str:
    """Return the hint the reference looks for: SHA-256 of the PEM text of the public key."""
    return hashlib.sha256(key_pem(spki)).hexdigest()


def model_payload(
    model_name: str, resources: Sequence[Resource], *, ignore_paths: Sequence[str] = ()
) -> bytes:
    """Write the statement that is signed: resources in code-point order, by SHA-256.

    ``model_name`` is informative and not empty; ``ignore_paths`` is what a verifier may find
    beside the resources.  Raises `Malformed` for names no reader takes.
    """
    check_names([resource.name for resource in resources])
    ordered = tuple(sorted(resources, key=lambda resource: resource.name))
    subject = _ModelSubject(name=model_name, digest=SubjectDigest(sha256=root_digest(ordered)))
    serialization = Serialization(
        method="files",
        hash_type="sha256",
        allow_symlinks=False,
        ignore_paths=tuple(sorted(ignore_paths)),
    )
    return encode(
        _ModelStatement(
            type_=STATEMENT_TYPE,
            subject=(subject,),
            predicate_type=PREDICATE_TYPE,
            predicate=_ModelPredicate(resources=ordered, serialization=serialization),
        )
    )


def encode_model_signature(
    payload: bytes, signature: bytes, *, spki: bytes, certificates: Sequence[bytes] = ()
) -> bytes:
    """Write ``model.sig``: certificate chain (leaf first) where there is one, else the key hint."""
    if certificates:
        chain = _Chain(certificates=tuple(_Certificate(raw_bytes=_text(c)) for c in certificates))
        material = _Material(x509_certificate_chain=chain, tlog_entries=())
    else:
        material = _Material(public_key=_PublicKey(hint=key_hint(spki)), tlog_entries=())
    envelope = _Envelope(
        payload=_text(payload),
        payload_type=PAYLOAD_TYPE,
        signatures=(_Signature(sig=_text(signature), keyid=""),),
    )
    return encode(
        _Bundle(media_type=MEDIA_TYPE, verification_material=material, dsse_envelope=envelope)
    )


def decode_model_signature(data: bytes) -> ModelSignature:
    """Read a ``model.sig`` that a bundle may carry; raise `Malformed` on anything loose.

    That is version 1.0, every file by its SHA-256, by a key or a certificate chain.
    """
    signature = read_model_signature(data)
    if signature.material == "keyless":
        raise Malformed("model signature is keyless, which needs a network to verify")
    if signature.version != "1.0":
        raise Malformed("model signature is of version 0.2, not an OMS v1.0 signature")
    how = signature.serialization
    if (how.method, how.hash_type, how.shard_size) != ("files", "sha256", None):
        raise Malformed("model signature is not over whole files by SHA-256")
    if any(r.algorithm != "sha256" or len(r.digest) != 64 for r in signature.resources):
        raise Malformed("model signature is not over whole files by SHA-256")
    check_names([resource.name for resource in signature.resources])
    check_root(signature)
    return signature


def read_model_signature(data: bytes) -> ModelSignature:
    """Read any ``model.sig`` the reference has written, or raise `Malformed`.

    Only its structure is checked: names, algorithms, root digest, keys and signature are not.
    """
    if len(data) > MAX_SIGNATURE_BYTES:
        raise Malformed(f"model signature is larger than the {MAX_SIGNATURE_BYTES} bytes allowed")
    bundle = _read(data, _Bundle)
    _check_single_reading(data)
    payload = _octets(bundle.dsse_envelope.payload)
    material, hint, key, certificates = _signer(bundle.verification_material)
    version, subject, root, resources, serialization = _statement(payload)
    _check_single_reading(payload)
    return ModelSignature(
        material=material,
        version=version,
        model_name=subject,
        root=root,
        resources=resources,
        serialization=serialization,
        key_hint=hint,
        key_bytes=key,
        certificates=certificates,
        payload=payload,
        signature=_octets(bundle.dsse_envelope.signatures[0].sig),
    )


def _statement(
    payload: bytes,
) -> tuple[Version, str, Digest | None, tuple[Resource, ...], Serialization]:
    if _read(payload, _Kind).predicate_type == PREDICATE_TYPE:
        statement = _read(payload, _ModelStatement)
        if len(statement.subject) != 1:
            raise Malformed("model signature has another number of root digests than one")
        subject, predicate = statement.subject[0], statement.predicate
        return (
            "1.0",
            subject.name,
            subject.digest.sha256,
            predicate.resources,
            predicate.serialization,
        )
    old = _read(payload, _OldStatement)
    resources = tuple(
        Resource(name=subject.name, algorithm="sha256", digest=subject.digest.sha256)
        for subject in old.subject
    )
    files = Serialization(method="files", hash_type="sha256", allow_symlinks=False)
    return "0.2", "", None, resources, files


def _signer(
    material: _Material,
) -> tuple[Material, str | None, bytes | None, tuple[bytes, ...]]:
    if material.certificate is not None:
        return "keyless", None, None, ()
    key, chain = material.public_key, material.x509_certificate_chain
    if (key is None) == (chain is None):
        raise Malformed("model signature names neither a key nor a certificate, or both")
    if chain is not None:
        return "certificate", None, None, tuple(_octets(c.raw_bytes) for c in chain.certificates)
    if key is None or (key.hint is None and key.raw_bytes is None):
        raise Malformed("model signature says nothing about its key")
    return "key", key.hint, None if key.raw_bytes is None else _octets(key.raw_bytes), ()


M = TypeVar("M")


def _read(data: bytes, kind: type[M]) -> M:
    check_nesting(data)
    try:
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(f"not an OMS v1.0 signature: {first_line(error)}") from error
    return document


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _octets(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("model signature holds something else than base64") from error
    if _text(data) != text:
        raise Malformed("model signature holds base64 in a form that is not canonical")
    return data


def _check_single_reading(data: bytes) -> None:
    """Refuse duplicate keys: parsers differ on which of the two counts."""

    def unique(pairs: list[tuple[str, object]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise Malformed("model signature has a duplicate key")

    try:
        json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Malformed("model signature is not JSON") from error


def check_root(signature: ModelSignature) -> None:
    """Raise `Malformed` unless the subject's digest follows from the resources."""
    if signature.root != root_digest(signature.resources):
        raise Malformed("root digest does not follow from the listed files")


def check_names(names: Sequence[str]) -> None:
    """Raise `Malformed` for a list of names that is empty, or names a file twice or elsewhere."""
    if not names:
        # The reference signs an empty model; the specification asks for at least one file.
        raise Malformed("model signature lists no file")
    if len(set(names)) != len(names):
        # The reference keeps the last of two; a list with a bad digest first would pass there.
        raise Malformed("model signature lists a file twice")
    for name in names:
        if not is_safe(name):
            raise Malformed(f"model signature lists an unsafe name {name[:240]!r}")


def is_safe(name: str) -> bool:
    """Tell whether a name is relative and stays where it is relative to."""
    return "\0" not in name and all(piece not in ("", ".", "..") for piece in name.split("/"))
