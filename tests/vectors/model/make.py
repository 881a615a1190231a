"""Write malformed.txt: model signatures that are refused before any signature is checked.

Run as ``python -m tests.vectors.model.make``.  Every case is one change to ``example.sig``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.unit.formats.spec_examples import EXAMPLES

GOOD = EXAMPLES["model/example.sig"]
Case = tuple[str, str, bytes]
_UNREADABLE = "not an OMS v1.0 signature"


def _bundle(comment: str, reason: str, change: Callable[[dict[str, Any]], object]) -> Case:
    bundle = json.loads(GOOD)
    change(bundle)
    return comment, reason, json.dumps(bundle).encode()


def statement() -> dict[str, Any]:
    """Return the example's statement."""
    loaded: dict[str, Any] = json.loads(
        base64.b64decode(json.loads(GOOD)["dsseEnvelope"]["payload"])
    )
    return loaded


def around(payload: bytes) -> bytes:
    """Put a payload into the example."""
    bundle = json.loads(GOOD)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(bundle).encode()


def old_statement() -> dict[str, Any]:
    """Return the example's files as version 0.2 listed them."""
    new = statement()
    subjects = [
        {"name": file["name"], "digest": {"sha256": file["digest"]}}
        for file in new["predicate"]["resources"]
    ]
    return {
        "_type": new["_type"],
        "subject": subjects,
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }


def _payload(comment: str, reason: str, change: Callable[[dict[str, Any]], object]) -> Case:
    changed = statement()
    change(changed)
    return comment, reason, around(json.dumps(changed).encode())


def cases() -> Iterator[Case]:
    """Files, bundles, then statements."""
    yield "empty", _UNREADABLE, b""
    yield "cut short", _UNREADABLE, GOOD[:-1]
    yield "a byte at the end", _UNREADABLE, GOOD + b"x"
    yield "a byte order mark", _UNREADABLE, b"\xef\xbb\xbf" + GOOD
    yield "no UTF-8", _UNREADABLE, GOOD.replace(b'"hint":"', b'"hint":"\xff')
    key = b'"payloadType":"application/vnd.in-toto+json"'
    yield "a key of the envelope twice", "duplicate", GOOD.replace(key, key + b"," + key)
    media = b'"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"'
    yield "a key of the bundle twice", "duplicate", GOOD.replace(media, media + b"," + media)
    yield "1,000 lists in each other", "deep|" + _UNREADABLE, b"[" * 1000
    yield from _bundles()
    yield from _statements()


def _bundles() -> Iterator[Case]:
    def material(**fields: object) -> Callable[[dict[str, Any]], object]:
        return lambda b: b.update(verificationMaterial=fields)

    def signature(**fields: object) -> Callable[[dict[str, Any]], object]:
        return lambda b: b["dsseEnvelope"]["signatures"][0].update(fields)

    certificate = {"rawBytes": "MAA="}
    chain = {"certificates": [certificate]}
    yield _bundle("a field more", _UNREADABLE, lambda b: b.update(note=""))
    yield _bundle("no envelope", _UNREADABLE, lambda b: b.pop("dsseEnvelope"))
    yield _bundle("bundle version 0.1", _UNREADABLE, lambda b: b.update(mediaType="v0.1"))
    yield _bundle("no key and no certificate", "neither", material(tlogEntries=[]))
    both = material(publicKey={"hint": "00" * 32}, x509CertificateChain=chain)
    yield _bundle("a key and a certificate", "neither", both)
    yield _bundle("a key of which nothing is said", "nothing", material(publicKey={}))
    short = material(publicKey={"hint": "00"})
    yield _bundle("a hint that is no digest", _UNREADABLE, short)
    keyless = material(certificate=certificate, tlogEntries=[])
    yield _bundle("keyless, as Sigstore has it", "keyless", keyless)
    none = material(x509CertificateChain={"certificates": []})
    yield _bundle("an empty chain", _UNREADABLE, none)
    long = material(x509CertificateChain={"certificates": [certificate] * 9})
    yield _bundle("nine certificates", _UNREADABLE, long)
    odd = material(x509CertificateChain={"certificates": [{"rawBytes": "MAB="}]})
    yield _bundle("a certificate with bits in its padding", "canonical", odd)
    yield _bundle("no signature", _UNREADABLE, lambda b: b["dsseEnvelope"].update(signatures=[]))
    two = lambda b: b["dsseEnvelope"]["signatures"].append({"sig": "MAA="})  # noqa: E731
    yield _bundle("two signatures", _UNREADABLE, two)
    yield _bundle("a signature with a field more", _UNREADABLE, signature(cert=""))
    yield _bundle("a signature that is no base64", "something else", signature(sig="****"))
    yield _bundle("a signature in base64 for URLs", "something else", signature(sig="-_-_"))
    yield _bundle("a signature without padding", "something else", signature(sig="MAAAA"))
    yield _bundle("a signature with a newline", "something else", signature(sig="MAA=\n"))
    yield _bundle(
        "another payload type", _UNREADABLE, lambda b: b["dsseEnvelope"].update(payloadType="")
    )


def _statements() -> Iterator[Case]:
    def resources(
        change: Callable[[list[dict[str, Any]]], object],
    ) -> Callable[[dict[str, Any]], object]:
        return lambda s: change(s["predicate"]["resources"])

    def serialization(**fields: object) -> Callable[[dict[str, Any]], object]:
        return lambda s: s["predicate"]["serialization"].update(fields)

    def renamed(name: str) -> Callable[[dict[str, Any]], object]:
        return resources(lambda listed: listed[0].update(name=name))

    root = "root digest"
    other_type = lambda s: s.update(predicateType="Digests/v0.1")  # noqa: E731
    yield _payload("of another predicate", _UNREADABLE, other_type)
    yield "of version 0.2", "version 0.2", around(json.dumps(old_statement()).encode())
    yield _payload("a field of the statement more", _UNREADABLE, lambda s: s.update(note=""))
    yield _payload(
        "a field of the predicate more", _UNREADABLE, lambda s: s["predicate"].update(a=1)
    )
    yield _payload("two subjects", root, lambda s: s["subject"].append(s["subject"][0]))
    yield _payload("no subject", root, lambda s: s.update(subject=[]))
    other = {"sha256": "00" * 32}
    yield _payload("another root digest", root, lambda s: s["subject"][0].update(digest=other))
    yield _payload("files in another order than the root's", root, resources(list.reverse))
    yield _payload("a file less than the root's", root, resources(list.pop))
    yield _payload("no file", "no file", resources(list.clear))
    yield _payload("a file twice", "twice", resources(lambda listed: listed.append(listed[0])))
    yield _payload("a file out of the model", "unsafe", renamed("../x"))
    yield _payload("an absolute file", "unsafe", renamed("/x"))
    yield _payload("a model that is one file", "unsafe", renamed("."))
    yield _payload("a name that ends in a slash", "unsafe", renamed("x/"))
    yield _payload("a name with a component too few", "unsafe", renamed("x//y"))
    yield _payload("an empty name", _UNREADABLE, renamed(""))
    yield _payload("a name with a zero byte", "unsafe", renamed("x\0"))
    blake = resources(lambda listed: listed[0].update(algorithm="blake3"))
    yield _payload("a file by BLAKE3", "whole files by SHA-256", blake)
    capitals = resources(lambda listed: listed[0].update(digest="AB" * 32))
    yield _payload("a digest in capitals", _UNREADABLE, capitals)
    shards = serialization(method="shards", shard_size=10**9)
    yield _payload("by shards", "whole files by SHA-256", shards)
    yield _payload("by whole files with a shard size", "whole", serialization(shard_size=1))
    yield _payload("by BLAKE2b", "whole files by SHA-256", serialization(hash_type="blake2b"))
    yield _payload("by no known method", _UNREADABLE, serialization(method="tree"))
    yield _payload("a field of the serialization more", _UNREADABLE, serialization(a=1))
    payload = json.dumps(statement()).encode()
    twice = payload.replace(b'"predicateType"', b'"predicate":{},"predicateType"', 1)
    yield "a predicate twice", "duplicate|" + _UNREADABLE, around(twice)
    digest = b'"digest": "'
    first = payload.replace(digest, digest + b"00" * 32 + b'", "digest": "', 1)
    yield "a digest twice", "duplicate", around(first)


def main() -> None:
    """Write the file."""
    lines = [
        "# Model signatures that are refused before any signature is checked: each is one change",
        "# to example.sig.  reason: part of ours, | between alternatives; file: base64 of it.",
    ]
    for comment, reason, data in cases():
        lines += ["", f"comment: {comment}", f"reason: {reason}"]
        lines += [f"file: {base64.b64encode(data).decode()}"]
    path = Path(__file__).with_name("malformed.txt")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
