"""The enrollers whose word on a boot state a TPM can check, by the policy alone."""

from __future__ import annotations

import msgspec

from custody.crypto.signature import load_ec_public
from custody.crypto.tpmretained import MAX_SHARES
from custody.errors import Malformed
from custody.formats.policy import Policy, SigningKey


class Authoriser(msgspec.Struct, frozen=True, kw_only=True):
    """An enroller and the keys a TPM can know him by: SPKIs on P-256, in key id order."""

    principal: str
    keys: tuple[bytes, ...]


def authorisers(policy: Policy) -> tuple[Authoriser, ...]:
    """Return the enrollers whose authorisations a TPM can check, by id."""
    found = []
    for person in sorted(policy.principals, key=lambda person: person.id):
        if "enroller" not in person.roles:
            continue
        keys = [key for key in person.keys if isinstance(key, SigningKey) and is_p256(key)]
        if keys:
            ordered = sorted(keys, key=lambda key: key.key_id)
            found.append(Authoriser(principal=person.id, keys=tuple(key.spki for key in ordered)))
    return tuple(found)


def authorisers_fault(policy: Policy) -> str:
    """Say why keys of this policy cannot be kept over updates, or nothing."""
    able, needed = len(authorisers(policy)), policy.thresholds.golden
    if not needed < able:
        return f"needs {needed} of {able} enrollers with a P-256 key: must be fewer than there are"
    if able > MAX_SHARES:
        return f"has {able} enrollers with a P-256 key; a TPM keeps {MAX_SHARES} shares"
    return ""


def is_p256(key: SigningKey) -> bool:
    """Say whether every TPM can check signatures by this key."""
    try:
        return load_ec_public(key.spki).curve.name == "secp256r1"
    except Malformed:
        return False
