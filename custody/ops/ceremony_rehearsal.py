"""The policy of a ceremony, tried out with keys of nobody before any key is made.

A draft by which nobody could release, or change anything ever again, is refused at its step; by
then everybody's tokens are full of keys.  All that its checks look at is known before: who comes,
in which role, with what kind of share key.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority
from custody.crypto.keyslots import HpkeSuite, SuiteName, curve_of, is_hpke
from custody.crypto.oaepslots import parameters_of
from custody.crypto.signature import public_bytes
from custody.errors import Incomplete, Refused
from custody.formats.ceremony import (
    AUTHORITY,
    Admit,
    Enrol,
    MakePolicy,
    Script,
    Seat,
    SplitRecovery,
    Step,
)
from custody.formats.policy import ATTESTED, Principal, RecoveryKey, ShareKey, SigningKey
from custody.formats.policy_draft import Draft
from custody.formats.policy_text import parse_quorum
from custody.ops.policies import build_policy, read_draft
from custody.ops.transcript import HeldScript
from custody.rules.ceremony_script import SHARING, admitted_by
from custody.rules.policy import check_policy
from custody.rules.verdicts import require

_STRONGEST: SuiteName = "MLKEM1024_P384"
_MLKEM_BYTES = 1568
_LIFE = timedelta(days=3650)


def rehearse(held: HeldScript, *, beside: Path, now: datetime) -> str:
    """Try the policy of a script out; return what came of it in words, "" where none is made.

    ``beside`` is where its draft lies.  What the step would refuse is `Refused` by the same check,
    a draft that is not there `Incomplete`, but where people are brought: it may follow them.
    """
    steps = held.script.steps
    step = next((step for step in steps if isinstance(step, MakePolicy)), None)
    if step is None:
        return ""
    before = steps[: steps.index(step)]
    path = beside / step.draft
    brought = any(isinstance(earlier, Admit) and earlier.files for earlier in before)
    if brought and not path.is_file():
        return f"{step.draft} is not here yet: it is judged at its step, with who is brought"
    if not path.is_file():
        raise Incomplete(
            "is not here yet",
            missing=(f"{step.draft}, beside the script",),
            where=step.draft,
            hint="the policy is tried out before any key is made",
        )
    draft = read_draft(path)
    splits = [earlier for earlier in before if isinstance(earlier, SplitRecovery)]
    _check(draft, held.script, step, splits)
    if brought:
        parse_quorum(draft.quorum)
        return f"{step.draft} can be judged when all admissions that are brought are here"
    people = [_stand_in(held.script, name, draft) for name in admitted_by(before)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, AUTHORITY).write_bytes(_authority(now))
        policy = build_policy(
            _ours(draft, beside), folder=Path(folder), people=people, previous=None, now=now
        )
    if splits:
        require(check_policy(replace(policy, recovery=_recovery(splits[0]))))
    return f"{step.draft} was tried out with keys of nobody: it can be signed"


def _check(draft: Draft, script: Script, step: MakePolicy, splits: Sequence[SplitRecovery]) -> None:
    """Refuse what the checks of a policy do not see: who signs it, for what, with which key."""
    where = step.draft
    if draft.environment != script.environment:
        raise Refused(f"is of {draft.environment}", check="policy.environment", where=where)
    if draft.thresholds.root > len(step.signers):
        # Nobody believes a version that fewer signed, and no later one follows from it.
        raise Refused(
            f"needs {draft.thresholds.root} custodians, and {len(step.signers)} sign it",
            check="policy.root-threshold",
            where=where,
        )
    _check_classes(draft, script.steps[: script.steps.index(step)], where)
    if splits and draft.recovery is None:
        raise Refused(
            "names no recovery key, and one is made before it",
            check="ceremony.policy",
            where=where,
        )


def _check_classes(draft: Draft, before: Sequence[Step], where: str) -> None:
    """Refuse a draft that does not take keys as the script has vendors attest them."""
    admits = [step for step in before if isinstance(step, Admit)]
    people = admitted_by(before)
    enrols = [step for step in before if isinstance(step, Enrol) and step.who in people]
    said = {step.who: step.attestation for step in enrols}
    said |= {name: step.attestation for step in admits for name in step.files}
    takes = ATTESTED in draft.token_classes
    for name, attestation in said.items():
        if attestation is not None and not takes:
            raise Refused(
                f"takes no key that a vendor attests (vendor-attested), as the script has it of"
                f" {name}",
                check="policy.token-classes",
                where=where,
            )
        if attestation != "required" and draft.token_classes == (ATTESTED,):
            raise Refused(
                f"takes only keys that vendors attest, which the script does not require of {name}",
                check="policy.token-classes",
                where=where,
            )


def _ours(draft: Draft, beside: Path) -> Draft:
    """Name files that are there before a ceremony; what it makes is stood in for."""
    host = replace(
        draft.host,
        vendor_roots=tuple(str(beside.absolute() / name) for name in draft.host.vendor_roots),
        vendor_crls=tuple(str(beside.absolute() / name) for name in draft.host.vendor_crls),
    )
    return replace(draft, authorities=(AUTHORITY,), host=host, logged=None, recovery=None)


def _stand_in(script: Script, name: str, draft: Draft) -> Principal:
    """Write what a policy would list of somebody, with fresh keys."""
    seat = script.seat(name)
    enrol = next(s for s in script.steps if isinstance(s, Enrol) and s.who == name)
    # Of which kind a token is only the token says, or its vendor.
    own = next((kind for kind in draft.token_classes if kind != ATTESTED), ATTESTED)
    kind = ATTESTED if enrol.attestation == "required" else own
    keys: list[SigningKey | ShareKey] = [SigningKey(spki=_fresh("P256"), token_class=kind)]
    suite = _suite(seat, enrol)
    if suite is not None:
        mlkem = bytes(_MLKEM_BYTES) if suite == _STRONGEST else None
        keys.append(ShareKey(spki=_fresh(suite), suite=suite, mlkem=mlkem, token_class=kind))
    return Principal(id=name, name=seat.display or name, roles=(seat.role,), keys=tuple(keys))


def _suite(seat: Seat, enrol: Enrol) -> SuiteName | None:
    if seat.role == "publisher" or (enrol.suite is None and seat.role not in SHARING):
        return None
    return _STRONGEST if enrol.suite is None or enrol.suite == "strongest" else enrol.suite


def _fresh(suite: SuiteName) -> bytes:
    parameters = parameters_of(suite)
    if parameters is not None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=parameters.modulus_bits)
        return public_bytes(key.public_key())
    return _curve_key(suite) if is_hpke(suite) else b""


def _curve_key(suite: HpkeSuite) -> bytes:
    curve = ec.SECP256R1() if curve_of(suite) == "secp256r1" else ec.SECP384R1()
    return public_bytes(ec.generate_private_key(curve).public_key())


def _authority(now: datetime) -> bytes:
    return issue_authority(
        ec.generate_private_key(ec.SECP256R1()),
        name="a rehearsal",
        not_before=now,
        not_after=now + _LIFE,
    )


def _recovery(split: SplitRecovery) -> RecoveryKey:
    return RecoveryKey(
        epoch=split.epoch,
        suite=split.suite,
        spki=_curve_key(split.suite),
        mlkem=bytes(_MLKEM_BYTES) if split.suite == _STRONGEST else None,
        set_id=0,
        among=split.tree,
        record="00" * 32,
    )
