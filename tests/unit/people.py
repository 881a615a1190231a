"""An environment in memory for unit tests: people with software keys, and a sound policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority
from custody.crypto.signature import public_bytes
from custody.formats.envelope import Predicate, Statement, decode_statement, encode_statement
from custody.formats.policy import (
    HostRequirements,
    Limits,
    Policy,
    Principal,
    Role,
    ShareKey,
    SigningKey,
    Thresholds,
)
from custody.formats.policy_text import parse_quorum
from custody.ops.keys import Signer

NOW = datetime(2027, 1, 5, 12, 0, 0, tzinfo=UTC)

PEOPLE: dict[str, Role] = {
    "cas": "custodian",
    "cyd": "custodian",
    "ida": "custodian",
    "erik": "enroller",
    "esme": "enroller",
    "ewan": "enroller",
    "sec1": "officer",
    "sec2": "officer",
    "sec3": "officer",
    "pub": "publisher",
}


@cache
def key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the software key of that name, the same one all through a test run."""
    return ec.generate_private_key(ec.SECP256R1())


def signer(name: str) -> Signer:
    """Return a person as a signer."""
    return Signer(key(name))


@cache
def authority() -> bytes:
    """Return a certificate authority (DER)."""
    return issue_authority(
        key("ca"),
        name="test authority",
        not_before=NOW - timedelta(days=30),
        not_after=NOW + timedelta(days=3650),
    )


def principal(name: str, role: Role) -> Principal:
    """Return what a policy says about a person."""
    keys: list[SigningKey | ShareKey] = [
        SigningKey(spki=public_bytes(key(name).public_key()), token_class="software")
    ]
    if role == "officer":
        share = public_bytes(key(f"{name} share").public_key())
        keys.append(ShareKey(spki=share, suite="P256", mlkem=None, token_class="software"))
    return Principal(id=name, name=name.title(), roles=(role,), keys=tuple(keys))


def policy(**changes: object) -> Policy:
    """Return a sound version 1, with any field changed."""
    made = Policy(
        environment="production",
        genesis=None,
        version=1,
        issued_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(days=300),
        principals=tuple(principal(name, PEOPLE[name]) for name in sorted(PEOPLE)),
        token_classes=("software",),
        authorities=(authority(),),
        quorum=parse_quorum("2 of (sec1, sec2, sec3)"),
        thresholds=Thresholds(root=2, enrolment=2, golden=2),
        host=HostRequirements(
            bank="sha256",
            pcrs=(0, 2, 4, 7),
            trust_classes=("software",),
            vendor_roots=(authority(),),
            event_log="required",
            vendor_crls=(),
            further=(),
        ),
        limits=Limits(
            request_window_seconds=6 * 3600,
            approval_seconds=24 * 3600,
            crl_max_age_seconds=8 * 86400,
        ),
        modes=("once",),
        part_digest="blake3",
        weakest_suite="P256",
        self_approval=False,
        withdrawn=(),
        logged=None,
        recovery=None,
    )
    return replace(made, **changes)


def following(previous: Statement[Policy], **changes: object) -> Policy:
    """Return the next version."""
    old = previous.predicate
    genesis = old.genesis or previous.digest
    return replace(old, genesis=genesis, version=old.version + 1, **changes)


def signed(predicate: Predicate, *names: str) -> bytes:
    """Sign a many-signer statement."""
    return encode_statement(predicate, [signer(name).signature(predicate) for name in names])


def signed_policy(made: Policy, *names: str) -> Statement[Policy]:
    """Sign a policy, by two custodians unless others are named."""
    return decode_statement(Policy, signed(made, *(names or ("ida", "cas"))))
