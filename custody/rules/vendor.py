"""Whether a vendor says that keys were made in its token, by a path to a root that is pinned.

Pure: which roots count, and when it is, are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from custody.crypto.certificates import read_csr
from custody.crypto.keyslots import is_oaep
from custody.crypto.pivattestation import (
    PivAttestation,
    is_piv_attestation,
    read_piv_attestation,
)
from custody.encoding import KeyId, key_id, sha256
from custody.errors import Refused
from custody.formats.admission import Admission
from custody.formats.vendor import KeyAttestation
from custody.rules.certificate_path import issued_by, walk_chain
from custody.rules.verdicts import Ledger, Verdict

CHECK = "admission.attestation"
#: How many certificates may lie between a root and the attestation of a key; Yubico has three.
MAX_BETWEEN = 4
#: Yubico YSA-2017-01: RSA keys that these make are factored from their public half.
_WEAK_RSA = ((4, 2, 6), (4, 3, 4))


def check_attestation(
    admission: Admission, *, roots: Sequence[bytes], now: datetime
) -> tuple[tuple[KeyAttestation, ...], tuple[Verdict, ...]]:
    """Judge the attestations that an admission brings, by pinned roots (DER).

    Returns the keys that were made in a YubiKey, each with what is said of it, and the verdicts:
    one for each attestation.  A key without one is not among them, which is no fault.
    """
    ledger = Ledger(subject=f"admission of {admission.principal}")
    keys: tuple[KeyAttestation, ...] = ()
    if not admission.attestation:
        ledger.skip(CHECK, "brings no vendor's attestation")
    with ledger.failing(CHECK):
        told = check_offered(admission)
        between = [der for der in admission.attestation if der not in told]
        paths = _paths_of(between, roots)
        found: dict[KeyId, KeyAttestation] = {}
        for der, said in told.items():
            _check_said(said, admission)
            found[key_id(said.spki)] = _attested(said, _root_of(der, paths, now))
        if len({key.serial for key in found.values()}) > 1:
            # One admission is of one token: a second one's keys would be taken for this one's.
            raise Refused("attests keys in several tokens", check=CHECK)
        keys = tuple(found.values())
        for key in keys:
            ledger.add(CHECK, True, f"key {key.key[:16]}… is {key.words()}")
    return keys, ledger.done()


def check_offered(admission: Admission) -> Mapping[bytes, PivAttestation]:
    """Return an admission's attestations of keys, by their certificates, and what they say.

    One that is of no key that is offered, and certificates that attest none: `Refused`.
    """
    told = {
        der: read_piv_attestation(der) for der in admission.attestation if is_piv_attestation(der)
    }
    if admission.attestation and not told:
        raise Refused("brings certificates, and no attestation of a key", check=CHECK)
    offered = {read_csr(admission.csr).spki, *(share.spki for share in admission.shares)}
    if any(said.spki not in offered for said in told.values()):
        raise Refused("attests a key that is not offered", check=CHECK)
    return told


def _check_said(said: PivAttestation, admission: Admission) -> None:
    if said.pin == "never":
        raise Refused(
            f"the key in slot {said.slot} asks for no PIN: whoever has the token has it",
            check=CHECK,
        )
    rsa = {share.spki for share in admission.shares if is_oaep(share.suite)}
    if said.spki in rsa and _WEAK_RSA[0] <= said.firmware <= _WEAK_RSA[1]:
        version = ".".join(map(str, said.firmware))
        raise Refused(
            f"RSA keys that firmware {version} makes are found from their public half", check=CHECK
        )


def _paths_of(
    between: Sequence[bytes], roots: Sequence[bytes]
) -> Mapping[bytes, tuple[bytes, ...]]:
    """Find a shortest path from a root to each certificate, by who signed it and no more."""
    found: dict[bytes, tuple[bytes, ...]] = {root: (root,) for root in roots}
    last = dict(found)
    for _ in range(MAX_BETWEEN):
        last = {
            der: (*path, der)
            for parent, path in last.items()
            for der in between
            if der not in found and issued_by(der, parent)
        }
        found |= last
    return found


def _root_of(der: bytes, paths: Mapping[bytes, tuple[bytes, ...]], now: datetime) -> bytes:
    path = next((path for parent, path in paths.items() if issued_by(der, parent)), None)
    if path is None:
        raise Refused("no path leads to a root that is pinned", check=CHECK)
    # Names, constraints and dates; a vendor publishes no revocation list for these.
    _, fault = walk_chain((*path, der), (), now, revocation="soft-fail")
    if fault:
        raise Refused(fault, check=CHECK)
    return path[0]


def _attested(said: PivAttestation, root: bytes) -> KeyAttestation:
    return KeyAttestation(
        key=key_id(said.spki),
        slot=said.slot,
        serial=said.serial,
        firmware=".".join(map(str, said.firmware)),
        pin=said.pin,
        touch=said.touch,
        root=sha256(root).hex(),
    )
