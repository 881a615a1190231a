"""Write verify.txt: signatures beside the files of a model, and what is to be said of them.

Run as ``python -m tests.vectors.model.make_verify``.  Keys, certificates and signatures come out
the same every time.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from custody.encoding import key_id
from custody.formats.envelope import PAYLOAD_TYPE, pae
from tests.unit.formats.fixed import octets

Json = dict[str, Any]
Key = ec.EllipticCurvePrivateKey

HEADERS = ("files", "signature", "key", "authority", "identity", "at", "crl", "also", "expect")
FILES = {"a-b/x": "1", "a.bin": "2", "a/x": "3"}
START, DAY = datetime(2027, 1, 1, tzinfo=UTC), timedelta(days=1)
AT = "2027-04-11T00:00:00Z"
_HASHES: dict[int, hashes.HashAlgorithm] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}


def made_key(words: str, curve: ec.EllipticCurve | None = None) -> Key:
    """Return a key that follows from words."""
    chosen = curve or ec.SECP256R1()
    return ec.derive_private_key(int.from_bytes(octets(words), "big") >> 1, chosen)


SIGNER, OTHER = made_key("model signer"), made_key("another signer")
ROOT, MIDDLE = made_key("model root"), made_key("model intermediate")


def spki(key: Key) -> bytes:
    """Return the public half of a key, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: Key) -> bytes:
    """Return the public half of a key, PEM, as the library prints it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def text(data: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(data).decode()


def resource(name: str, content: str, algorithm: str = "sha256") -> Json:
    """List a file as a signer does."""
    raw = content.encode()
    if algorithm == "blake3":
        digest = blake3(raw).hexdigest()
    else:
        digest = hashlib.new(algorithm.partition("-")[0], raw).hexdigest()
    return {"name": name, "algorithm": algorithm, "digest": digest}


def statement(
    resources: Sequence[Json] | None = None, root: str | None = None, **serialization: object
) -> Json:
    """Write a statement of version 1.0, over `FILES` in code-point order if nothing is given."""
    if resources is None:
        resources = [resource(name, FILES[name]) for name in sorted(FILES)]
    whole = hashlib.sha256(b"".join(bytes.fromhex(r["digest"]) for r in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False} | serialization
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": root or whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": how, "resources": list(resources)},
    }


def old_statement() -> Json:
    """Write a statement as version 0.2 did."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": resource(name, FILES[name])["digest"]}}
            for name in FILES
        ],
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }


def old_bytes(payload: bytes) -> bytes:
    """Return what version 0.2 signed."""
    return f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()


def ecdsa(key: Key, message: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    """Sign, the same every time, by the curve's hash or another."""
    chosen = algorithm or _HASHES[key.curve.key_size]
    return key.sign(message, ec.ECDSA(chosen, deterministic_signing=True))


def bundle(
    said: Json,
    key: Key = SIGNER,
    *,
    material: Json | None = None,
    message: Callable[[bytes], bytes] = lambda payload: pae(PAYLOAD_TYPE, payload),
    algorithm: hashes.HashAlgorithm | None = None,
    change: Callable[[bytes], bytes] = lambda signature: signature,
    indent: int | None = None,
) -> bytes:
    """Sign a statement and write the ``model.sig``."""
    payload = json.dumps(said, indent=indent).encode()
    signature = change(ecdsa(key, message(payload), algorithm))
    hint = hashlib.sha256(pem(key)).hexdigest()
    written = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material or {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": text(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": text(signature), "keyid": ""}],
        },
    }
    return json.dumps(written).encode()


def chain(*certificates: bytes) -> Json:
    """Carry certificates, leaf first."""
    carried = [{"rawBytes": text(der)} for der in certificates]
    return {"x509CertificateChain": {"certificates": carried}, "tlogEntries": []}


def certificate(
    key: Key,
    *,
    by: Key = ROOT,
    name: str = "publisher",
    issuer: str = "root",
    days: tuple[int, int] = (0, 365),
    ca: bool = False,
    usage: str | None = "sign",
    purposes: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.CODE_SIGNING,),
    san: str | None = None,
) -> bytes:
    """Certify a key; ``usage`` is what it may do: sign, agree, certify, or None to leave it out."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(octets(f"serial {name} {days}", 8), "big") >> 1)
        .not_valid_before(START + days[0] * DAY)
        .not_valid_after(START + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(hashlib.sha1(spki(key)).digest()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(hashlib.sha1(spki(by)).digest(), None, None),
            critical=False,
        )
    )
    if usage is not None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=usage == "sign",
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=usage == "agree",
                key_cert_sign=usage == "certify",
                crl_sign=usage == "certify",
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if san:
        names = x509.SubjectAlternativeName([x509.RFC822Name(san)])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(by, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def authority(
    key: Key = ROOT, name: str = "root", *, days: tuple[int, int] = (0, 3650), **more: Any
) -> bytes:
    """Make an authority; its own issuer unless told otherwise."""
    usual: Json = {"by": key, "issuer": name, "ca": True, "usage": "certify", "purposes": ()}
    more = usual | more
    return certificate(key, name=name, days=days, **more)


def crl(*serials: int, by: Key = ROOT, issuer: str = "root", days: tuple[int, int]) -> bytes:
    """List certificates that were revoked on day 50."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_named(issuer))
        .last_update(START + days[0] * DAY)
        .next_update(START + days[1] * DAY)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(hashlib.sha1(spki(by)).digest(), None, None),
            critical=False,
        )
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(START + 50 * DAY).build())
    signed = builder.sign(by, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(Encoding.DER)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def case(
    comment: str,
    expect: str,
    data: bytes,
    *,
    files: dict[str, str] | None = None,
    key: Key | None = SIGNER,
    **more: str,
) -> dict[str, str]:
    """Write one vector; ``expect`` is ``sound``, or the failed checks, a colon and a reason."""
    vector = {"comment": comment, "expect": expect, "files": json.dumps(files or FILES)}
    if key is not None:
        vector["key"] = text(spki(key))
    return vector | more | {"signature": text(data)}


def by_authority(
    comment: str,
    expect: str,
    *certificates: bytes,
    key: Key = SIGNER,
    anchor: bytes | None = None,
    identity: str = "CN=publisher",
    **more: str,
) -> dict[str, str]:
    """Write a vector of a signature by certificate."""
    given: Json = {"authority": text(anchor or authority()), "at": AT} | more
    if identity:
        given["identity"] = identity
    data = bundle(statement(), key, material=chain(*certificates), algorithm=hashes.SHA256())
    return case(comment, expect, data, key=None, **given)


def cases() -> Iterator[dict[str, str]]:
    """What holds, then what does not, by its check."""
    yield from _sound()
    yield from _old()
    yield from _shards()
    yield from _loose()
    yield from _keys()
    yield from _certificates()
    yield from _chains()
    yield from _contents()


def _sound() -> Iterator[dict[str, str]]:
    yield case("by a bare key", "sound", bundle(statement()))
    for curve in (ec.SECP384R1(), ec.SECP521R1()):
        key = made_key("model signer", curve)
        yield case(f"by a key on {curve.name}", "sound", bundle(statement(), key), key=key)
    order = [resource(name, FILES[name]) for name in ("a/x", "a-b/x", "a.bin")]
    yield case("in the reference's order, by components", "sound", bundle(statement(order)))
    yield case("laid out for reading", "sound", bundle(statement(), indent=2))
    carried = {"publicKey": {"rawBytes": text(pem(SIGNER)), "keyDetails": "x"}}
    yield case("with the key itself, as before 1.1", "sound", bundle(statement(), material=carried))
    yield case("with a high s", "sound", bundle(statement(), change=_high))
    leaf = chain(certificate(SIGNER))
    yield case("a certificate, checked by its key", "sound", bundle(statement(), material=leaf))
    for algorithm in ("blake2b", "blake3"):
        listed = [resource(name, FILES[name], algorithm) for name in FILES]
        said = statement(listed, hash_type=algorithm)
        yield case(f"by {algorithm}", "sound", bundle(said))


def _high(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    order = ec.SECP256R1().group_order
    return encode_dss_signature(r, max(s, order - s))


def _old() -> Iterator[dict[str, str]]:
    signed = bundle(old_statement(), message=old_bytes)
    yield case("of version 0.2, accepted", "sound", signed, also="v0.2")
    yield case("of version 0.2", "model.version: version 0.2", signed)
    yield case("of version 0.2, signed right", "sound", bundle(old_statement()), also="v0.2")
    large = made_key("model signer", ec.SECP384R1())
    carried = chain(certificate(large))
    data = bundle(
        old_statement(),
        large,
        material=carried,
        message=old_bytes,
        algorithm=hashes.SHA256(),
    )
    yield case("of version 0.2 by P-384 and SHA-256", "sound", data, key=large, also="v0.2")
    data = bundle(statement(), message=old_bytes)
    yield case("new, signed as version 0.2", "model.signature: wrong", data, also="v0.2")


def _shards() -> Iterator[dict[str, str]]:
    def shards(*names: str, size: float = 2.0, algorithm: str = "sha256-sharded-2") -> bytes:
        content = "abcde"
        listed = []
        for name in names:
            parts = name.split(":")
            begin, end = (int(parts[1]), int(parts[2])) if len(parts) == 3 else (0, 5)
            piece = resource(name, content[begin:end]) | {"algorithm": algorithm}
            listed.append(piece)
        return bundle(statement(listed, method="shards", shard_size=size))

    def sharded(comment: str, expect: str, data: bytes, content: str = "abcde") -> dict[str, str]:
        return case(comment, expect, data, files={"w": content})

    whole = ("w:0:2", "w:2:4", "w:4:5")
    yield sharded("shards as the reference spells them", "sound", shards(*whole))
    plain = shards(*whole, size=2, algorithm="sha256")
    yield sharded("shards as the specification spells them", "sound", plain)
    yield sharded("shards in another order", "sound", shards(*reversed(whole)))
    yield sharded("a file longer than its shards", "model.digest: w", shards(*whole), "abcdef")
    yield sharded("a file shorter than its shards", "model.digest: w", shards(*whole), "abcd")
    yield sharded("another byte in a shard", "model.digest: w", shards(*whole), "abxde")
    gap = "model.names: gap"
    yield sharded("a shard is missing", gap, shards("w:0:2", "w:4:5"))
    yield sharded("the first shard is missing", gap, shards("w:2:4", "w:4:5"))
    yield sharded("shards overlap", gap, shards("w:0:2", "w:1:3", "w:3:5"))
    yield sharded("a shard twice", gap, shards("w:0:2", *whole))
    yield sharded("shards of another size", gap, shards("w:0:3", "w:3:5"))
    yield sharded("a short shard in the middle", gap, shards("w:0:1", "w:1:3", "w:3:5"))
    yield sharded("a shard of nothing", gap, shards(*whole, "w:5:5"))
    yield sharded("a file among shards", "model.names: no shard", shards("w"))
    yield sharded("a range with a zero in front", "model.names: no shard", shards("w:0:02"))
    spelled = shards(*whole, algorithm="sha256-sharded-3")
    yield sharded("an algorithm of other shards", "model.algorithm: sha256-sharded-3", spelled)
    half = shards(*whole, size=2.5)
    yield sharded("shards of half bytes", "model.algorithm model.names: count of bytes", half)
    none = shards(*whole, size=0)
    yield sharded("shards of no size", "model.algorithm model.names: count of bytes", none)
    data = bundle(statement([resource("w:0:5", "abcde")]))
    yield case("a colon in a name is a name", "sound", data, files={"w:0:5": "abcde"})
    data = shards(*whole)
    files = {"w": "abcde", "empty": ""}
    yield case("shards hide empty files", "model.unsigned: empty", data, files=files)


def _loose() -> Iterator[dict[str, str]]:
    def named(*names: str) -> bytes:
        return bundle(statement([resource(name, "1") for name in names]))

    bad = resource("a.bin", "something else")
    twice = [bad, *(resource(name, FILES[name]) for name in sorted(FILES))]
    yield case("a file twice, the last good", "model.names: twice", bundle(statement(twice)))
    yield case("a file out of the model", "model.names: unsafe", named("../a.bin"))
    yield case("an absolute file", "model.names: unsafe", named("/etc/hostname"))
    yield case("an empty component", "model.names: unsafe", named("a//x"))
    yield case("a component that is a dot", "model.names: unsafe", named("a/./x"))
    yield case("a name that ends in a slash", "model.names: unsafe", named("a/"))
    yield case("a name with a zero byte", "model.names: unsafe", named("a\0"))
    yield case("no file at all", "model.names: no file", bundle(statement([])))
    root = statement(root="00" * 32)
    yield case("another root digest", "model.root: root digest", bundle(root))
    unknown = statement([resource("a.bin", "2", "sha512")], hash_type="sha512")
    yield case("a hash nobody knows", "model.algorithm: not known", bundle(unknown))
    mixed = statement([resource("a.bin", "2"), resource("a/x", "3", "blake3")])
    yield case("two hashes in one", "model.algorithm: blake3", bundle(mixed))
    short = statement(hash_type="blake2b")
    short["predicate"]["resources"] = [
        file | {"algorithm": "blake2b"} for file in short["predicate"]["resources"]
    ]
    yield case("a digest too short", "model.algorithm: not 'blake2b'", bundle(short))
    good = json.loads(bundle(statement()))
    two = json.loads(json.dumps(good))
    two["dsseEnvelope"]["signatures"] *= 2
    yield case("two signatures", "model.format: length", json.dumps(two).encode())
    bits = json.loads(json.dumps(good))
    sig = bits["dsseEnvelope"]["signatures"][0]
    raw = base64.b64decode(sig["sig"])[:70]
    sig["sig"] = text(raw)[:-3] + chr(ord(text(raw)[-3]) + 1) + "=="
    yield case("base64 with bits in its padding", "model.format: canonical", _dumps(bits))
    yield case("no JSON", "model.format: not an OMS", b"model.sig")
    keyless = bundle(statement(), material={"certificate": {"rawBytes": "MAA="}, "tlogEntries": []})
    yield case("keyless", "model.kind: keyless", keyless)


def _dumps(value: Json) -> bytes:
    return json.dumps(value).encode()


def _keys() -> Iterator[dict[str, str]]:
    yield case(
        "another key's hint",
        "model.key model.signature: another key",
        bundle(statement()),
        key=OTHER,
    )
    carried = {"publicKey": {"rawBytes": text(pem(OTHER))}}
    data = bundle(statement(), material=carried)
    yield case("another key carried", "model.key: another key", data)
    data = bundle(statement(), material=chain(certificate(OTHER)))
    yield case("another key's certificate", "model.key: another key", data)
    hint = {"publicKey": {"hint": hashlib.sha256(pem(SIGNER)).hexdigest()}}
    data = bundle(statement(), OTHER, material=hint)
    yield case("by another key than the hint's", "model.signature: wrong", data)
    data = bundle(statement(), algorithm=hashes.SHA512())
    yield case("P-256 with SHA-512", "model.signature: wrong", data)
    data = bundle(statement(), change=lambda signature: signature + b"\0")
    yield case("a byte behind the signature", "model.signature: DER", data)
    data = bundle(statement(), change=lambda _: bytes.fromhex("3006020100020100"))
    yield case("a signature of zeros", "model.signature: out of range", data)
    more: Json = {"authority": text(authority()), "identity": "CN=publisher", "at": AT}
    data = bundle(statement())
    yield case("a bare key for an authority", "model.kind: bare key", data, key=None, **more)


def _certificates() -> Iterator[dict[str, str]]:
    good = certificate(SIGNER, san="release@example.org")
    yield by_authority("by certificate", "sound", good)
    yield by_authority("by key, by its digest", "sound", good, identity=key_id(spki(SIGNER)))
    yield by_authority("by its alternative name", "sound", good, identity="SAN=release@example.org")
    yield by_authority("nobody in particular", "model.identity: no identity", good, identity="")
    yield by_authority("by somebody else", "model.identity: is not", good, identity="CN=alice")
    digest = key_id(spki(OTHER))
    yield by_authority("by another key", "model.identity: is not", good, identity=digest)
    yield by_authority(
        "by another address", "model.identity: is not", good, identity="SAN=example.org"
    )
    yield by_authority("expired", "model.validity: not at", certificate(SIGNER, days=(0, 99)))
    yield by_authority("not yet", "model.validity: not at", certificate(SIGNER, days=(101, 200)))
    early = certificate(SIGNER, days=(0, 99))
    yield by_authority("expired since", "sound", early, at="2027-02-01T00:00:00Z")
    server = certificate(SIGNER, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))
    yield by_authority("for a web server", "model.usage: code signing", server)
    anything = certificate(SIGNER, purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))
    yield by_authority("for anything", "model.usage: code signing", anything)
    yield by_authority("for no stated purpose", "sound", certificate(SIGNER, purposes=()))
    silent = certificate(SIGNER, usage=None)
    yield by_authority("not for signatures", "model.usage: digital", silent)
    agrees = certificate(SIGNER, usage="agree")
    yield by_authority("for key agreement", "model.usage: digital", agrees)
    odd = made_key("model signer", ec.SECP256K1())
    yield by_authority("on secp256k1", "model.curve: P-256", certificate(odd), key=odd)
    odd = made_key("model signer", ec.BrainpoolP256R1())
    yield by_authority("on brainpoolP256r1", "model.curve: P-256", certificate(odd), key=odd)


def _chains() -> Iterator[dict[str, str]]:
    def below(**more: Any) -> tuple[bytes, bytes]:
        middle: Json = {"by": ROOT, "issuer": "root"} | more
        leaf = certificate(SIGNER, by=MIDDLE, issuer="middle")
        return leaf, authority(MIDDLE, "middle", **middle)

    yield by_authority("through an intermediate", "sound", *below())
    yield by_authority("with the root carried too", "sound", *below(), authority())
    leaf, middle = below()
    yield by_authority("the intermediate is missing", "model.chain: no authority", leaf)
    yield by_authority("from an intermediate named", "sound", leaf, anchor=middle)
    stranger = authority(made_key("a stranger"))
    good = certificate(SIGNER)
    yield by_authority(
        "of a stranger of the same name", "model.chain: no auth", good, anchor=stranger
    )
    late = authority(days=(0, 50))
    yield by_authority("an expired authority", "model.chain: not valid", good, anchor=late)
    yield by_authority("an expired intermediate", "model.chain: not valid", *below(days=(0, 50)))
    yield by_authority("an issuer that is none", "model.chain: no certificate", *below(ca=False))
    yield by_authority("an issuer for signatures", "model.chain: may not", *below(usage="sign"))
    web = below(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))
    yield by_authority("an issuer for web servers", "model.chain: restricted", *web)
    yield by_authority("its own authority", "model.chain: no authority", good, anchor=good)
    serial = x509.load_der_x509_certificate(good).serial_number
    clean, revoked = crl(1, days=(90, 120)), crl(serial, days=(90, 120))
    yield by_authority("with a list it is not on", "sound", good, crl=text(clean))
    yield by_authority("revoked", "model.revoked: revoked", good, crl=text(revoked))
    before = "2027-02-01T00:00:00Z"
    yield by_authority("revoked later", "sound", good, at=before, crl=text(revoked))
    old = text(crl(1, days=(10, 20)))
    yield by_authority("a list too old", "model.revoked: not recent enough", good, crl=old)
    other = text(crl(1, by=OTHER, days=(90, 120)))
    yield by_authority(
        "a list by somebody else", "model.revoked: could not be verified", good, crl=other
    )


def _contents() -> Iterator[dict[str, str]]:
    good = bundle(statement())
    yield case("a file less", "model.missing: a/x", good, files={"a-b/x": "1", "a.bin": "2"})
    yield case("a file more", "model.unsigned: evil.py", good, files=FILES | {"evil.py": ""})
    yield case("a file changed", "model.digest: a.bin", good, files=FILES | {"a.bin": "3"})
    swapped = {"a-b/x": "2", "a.bin": "1", "a/x": "3"}
    yield case("two files exchanged", "model.digest: a-b/x", good, files=swapped)
    ignoring = bundle(statement(ignore_paths=["logs", ".git", "./.github/"]))
    yield case("nothing where the signer looked away", "sound", ignoring)
    for path in ("logs/evil.py", ".git/hooks/x", ".github/x"):
        dropped = FILES | {path: "x"}
        expect = f"model.ignored: {path}"
        yield case(f"dropped in {path}", expect, ignoring, files=dropped)
        top = path.partition("/")[0]
        allowed = f"unsigned={top}"
        yield case(f"allowed in {top}", "sound", ignoring, files=dropped, also=allowed)
    everything = bundle(statement(ignore_paths=["."]))
    more = FILES | {"x": "1"}
    yield case("everything ignored", "model.unsigned: x", everything, files=more)
    near = FILES | {"logs2": "x"}
    yield case("a name like an ignored one", "model.unsigned: logs2", ignoring, files=near)
    yield case(
        "another allowed",
        "model.ignored: logs/x",
        ignoring,
        files=FILES | {"logs/x": ""},
        also="unsigned=log",
    )


def main() -> None:
    """Write the file."""
    lines = [
        "# A model.sig (base64) beside the files of a model (JSON: name to text).  key: SPKI it is",
        "# checked by; or authority, identity, at, crl.  also: what the verifier allows besides.",
        "# expect: sound, or the checks that fail, a colon and part of a reason.",
    ]
    for vector in cases():
        lines += ["", *(f"{name}: {value}" for name, value in vector.items())]
    path = Path(__file__).with_name("verify.txt")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
