"""The policy vectors, read; and a policy session in a few lines, to run steps against."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from custody.crypto.quorum import Person, Threshold, leaves
from custody.crypto.signature import public_bytes
from custody.crypto.tpmpolicy import Conditions, Or, Signed, Step, officer_key_name
from custody.formats.evidence import counter_public, nv_name
from tests.unit.crypto.vectors import Vector

HEADERS = (
    "tree",
    "terms",
    "pcr-digest",
    "counter",
    "deadline-ms",
    "reset-count",
    "restart-count",
    "quorum",
    "policy",
)
COUNTER_INDEX = 0x01800C00
Tree = Person | Threshold


def officer_key(number: int) -> ec.EllipticCurvePrivateKey:
    """Return the private key of the n-th leaf's officer."""
    return ec.derive_private_key(number, ec.SECP256R1())


def officers_of(tree: Tree) -> dict[str, bytes]:
    """Return the SPKI of every leaf's officer."""
    return {
        leaf.path: public_bytes(officer_key(number).public_key())
        for number, leaf in enumerate(leaves(tree), start=1)
    }


@dataclass(frozen=True)
class Case:
    """One vector."""

    tree: Tree
    terms: bytes
    conditions: Conditions
    quorum: bytes
    policy: bytes


def case(vector: Vector) -> Case:
    """Read one vector."""
    return Case(
        tree=msgspec.json.decode(vector["tree"], type=Tree),
        terms=bytes.fromhex(vector["terms"]),
        conditions=Conditions(
            pcrs=(0, 2, 4, 7),
            pcr_digest=bytes.fromhex(vector["pcr-digest"]),
            nv_name=nv_name(counter_public(COUNTER_INDEX).pack()),
            counter=int(vector["counter"]),
            deadline_ms=int(vector["deadline-ms"]),
            reset_count=int(vector["reset-count"]),
            restart_count=int(vector["restart-count"]),
        ),
        quorum=bytes.fromhex(vector["quorum"]),
        policy=bytes.fromhex(vector["policy"]),
    )


@dataclass
class Session:
    """A policy session as part 3 section 23 describes it, for PolicySigned and PolicyOR."""

    officers: dict[str, bytes]
    ref: bytes
    digest: bytes = bytes(32)
    signed: list[str] = field(default_factory=list)

    def run(self, step: Step) -> None:
        """Run one step; PolicyOR fails as in a TPM when the session is in none of its branches."""
        match step:
            case Signed(leaf):
                self.signed.append(leaf)
                name = officer_key_name(self.officers[leaf])
                first = hashlib.sha256(self.digest + b"\x00\x00\x01\x60" + name).digest()
                self.digest = hashlib.sha256(first + self.ref).digest()
            case Or(branches):
                if self.digest not in branches or not 2 <= len(branches) <= 8:
                    raise ValueError("TPM_RC_VALUE")
                joined = bytes(32) + b"\x00\x00\x01\x71" + b"".join(branches)
                self.digest = hashlib.sha256(joined).digest()
