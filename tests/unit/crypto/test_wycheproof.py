"""The primitives under this package, against Wycheproof's attacks on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from tests.unit.crypto.vectors import SHARED


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (group, test) of a Wycheproof file; skip where the shared vectors are not present."""
    path = SHARED / "wycheproof" / name
    if not path.exists():
        pytest.skip(f"Wycheproof's {name} is not here: it lies in ../shared/vectors/wycheproof")
    for group in json.loads(path.read_text(encoding="utf-8"))["testGroups"]:
        for test in group["tests"]:
            yield group, test


def fields(test: dict[str, Any], *names: str) -> list[bytes]:
    """Return the named hexadecimal fields."""
    return [bytes.fromhex(test[name]) for name in names]


def test_aes_gcm() -> None:
    """AES-256-GCM in place, as parts use it: valid ones agree, invalid ones are refused."""
    seen = {"valid": 0, "invalid": 0}
    for group, test in cases("aes_gcm_test.json"):
        # Parts and wraps have 256-bit keys, 96-bit nonces and 128-bit tags, and nothing else.
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        key, nonce, aad, plain, sealed, tag = fields(test, "key", "iv", "aad", "msg", "ct", "tag")
        seen[test["result"]] += 1
        size = len(sealed)
        buffer = bytearray(sealed + tag)
        view = memoryview(buffer)
        if test["result"] == "valid":
            AESGCM(key).decrypt_into(nonce, view, aad, view[:size])
            assert plain == buffer[:size], test["tcId"]
            AESGCM(key).encrypt_into(nonce, view[:size], aad, view)
            assert sealed + tag == buffer, test["tcId"]
        else:
            with pytest.raises(InvalidTag):
                AESGCM(key).decrypt_into(nonce, view, aad, view[:size])
    assert min(seen.values()) >= 20


def test_hkdf_sha512() -> None:
    """HKDF-SHA512 agrees, whole as wraps use it and by its expand step as parts do."""
    seen = 0
    for _, test in cases("hkdf_sha512_test.json"):
        ikm, salt, info, okm = fields(test, "ikm", "salt", "info", "okm")
        size = test["size"]
        if test["result"] == "valid":
            seen += 1
            whole = HKDF(hashes.SHA512(), length=size, salt=salt, info=info)
            assert okm == whole.derive(ikm), test["tcId"]
            secret = HKDF.extract(hashes.SHA512(), salt, ikm)
            assert okm == HKDFExpand(hashes.SHA512(), size, info).derive(secret), test["tcId"]
        else:
            with pytest.raises(ValueError, match="larger"):
                HKDF(hashes.SHA512(), length=size, salt=salt, info=info)
    assert seen >= 60
