"""Breaking the glass: a bundle sealed anew to the officers in force.  Protocol section 7.

Two people on two machines: a custodian, with enough shares, makes the new envelope; the publisher
signs it.  Neither machine shows or writes the content key or any plaintext, and the custodian's
needs of the bundle nothing but its manifest.
"""

from __future__ import annotations

import hmac
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from custody.crypto.keyslots import slot_info, unwrap
from custody.crypto.parts import cek_commitment
from custody.crypto.quorum import tree_digest
from custody.crypto.recoverykey import RecoveryKeyPair
from custody.crypto.secret import fresh_secret, wipe
from custody.encoding import check_text, decode, encode
from custody.errors import Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import Core, Manifest
from custody.formats.recovery import BreakGlass, RecoveryRecord, Rewrapped, UsedShare
from custody.ops.bundle import CONTENTS, MANIFEST, PARTS, PAYLOAD, Bundle
from custody.ops.envelope_seal import seal_envelope
from custody.ops.folders import read_file, reading
from custody.ops.keys import Signer, TokenRandom
from custody.ops.landing import check_absent, disk_errors, new_directory
from custody.ops.recovery import check_record, check_share, rebuilt_key
from custody.ops.resume import SealSecrets
from custody.rules.manifest import check_manifest
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import require

_MAX_BYTES = 16 << 20
#: What a re-wrapped core may have of its own; all else is the old core's.
_NEW = ("policy_version", "tree", "recovery", "sealed_at", "replaces")


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What breaking the glass made: an envelope for the publisher to sign, and who did it."""

    rewrapped: bytes = field(repr=False)
    statement: bytes = field(repr=False)
    digest: str


def check_breakable(
    manifest: Statement[Manifest], record: Statement[RecoveryRecord], situation: Situation
) -> None:
    """Refuse a bundle that nobody may release, or that this recovery key does not open.

    A withdrawn bundle, or one past its date, does not come back by this door.
    """
    require(check_manifest(manifest, situation))
    core, policy = manifest.predicate.core, situation.trusted.policy
    sealed_for = situation.trusted.version(core.policy_version)
    if sealed_for is None or core.recovery is None:
        raise Refused("this bundle is sealed to no recovery key", check="recovery.none")
    check_record(record, sealed_for.recovery)
    if core.part_digest != policy.part_digest:
        raise Refused(
            f"its parts are digested with {core.part_digest}, which the policy takes no more",
            check="manifest.part-digest",
            hint="only sealing the model again helps",
        )


def break_glass(
    manifest: Statement[Manifest],
    shares: Sequence[str],
    passphrase: bytes,
    *,
    record: Statement[RecoveryRecord],
    reason: str,
    situation: Situation,
    signer: Signer,
    token_random: TokenRandom | None,
) -> Broken:
    """Open the content key by the recovery key, and seal it to the officers of the policy in force.

    ``signer`` is a custodian's, and states what was done, why and by which shares.
    """
    check_text(reason)
    check_breakable(manifest, record, situation)
    _check_signer(signer, situation, role="custodian")
    old = manifest.predicate
    core = _new_core(manifest, situation)
    with rebuilt_key(record, shares, passphrase) as key:
        cek = _open_cek(old, key)
    try:
        secrets = _secrets(old, cek, token_random)
        try:
            envelope = seal_envelope(core, secrets, situation)
        finally:
            secrets.wipe()
    finally:
        wipe(cek)
    used = [check_share(record, text)[0] for text in shares]
    stated = BreakGlass(
        environment=situation.trusted.genesis,
        manifest=manifest.digest,
        replacement=core.binding().hex(),
        recovery=record.predicate.key_id,
        record=record.digest,
        shares=tuple(
            UsedShare(group=share.group, member=share.member, holder=share.holder)
            for share in sorted(used, key=lambda s: (s.group, s.member))
        ),
        reason=reason,
        opened_at=situation.now,
    )
    statement = signer.statement(stated)
    return Broken(
        rewrapped=encode(Rewrapped(kind="custody/rewrapped/v1", core=core, envelope=envelope)),
        statement=statement,
        digest=decode_statement(BreakGlass, statement).digest,
    )


def _new_core(manifest: Statement[Manifest], situation: Situation) -> Core:
    policy = situation.trusted.policy
    return msgspec.structs.replace(
        manifest.predicate.core,
        policy_version=policy.version,
        tree=tree_digest(policy.quorum),
        recovery=None if policy.recovery is None else policy.recovery.key_id,
        sealed_at=situation.now,
        replaces=manifest.digest,
    )


def _open_cek(manifest: Manifest, key: RecoveryKeyPair) -> bytearray:
    core = manifest.core
    slot = next(s for s in manifest.envelope.slots if s.purpose == "recovery")
    info = slot_info(core.binding(), "recovery", "", key.key_id)
    cek = key.open(slot.sealed, info=info)
    wanted = bytes.fromhex(core.cek_commitment)
    if len(cek) != 32 or not hmac.compare_digest(
        cek_commitment(cek, bytes.fromhex(core.payload_id)), wanted
    ):
        wipe(cek)
        raise Refused(
            "its publisher sealed something else to the recovery key than the content key",
            check="recovery.cek",
        )
    return cek


def _secrets(manifest: Manifest, cek: bytearray, token_random: TokenRandom | None) -> SealSecrets:
    """Return the same content and contents keys, under a release secret that is new."""
    wrap = manifest.wrap("contents")
    contents = unwrap(cek, wrap.salt, wrap.sealed, C=manifest.core.binding(), purpose="contents")
    return SealSecrets(
        cek=bytearray(cek),
        release=fresh_secret(32, token_random),
        contents=bytearray(contents),
    )


def read_rewrapped(path: Path) -> Rewrapped:
    """Read what a custodian made for its publisher."""
    with reading(path):
        return decode(Rewrapped, read_file(path, max_bytes=_MAX_BYTES), max_bytes=_MAX_BYTES)


def check_rewrapped(
    old: Statement[Manifest],
    new: Rewrapped,
    broken: Statement[BreakGlass],
    situation: Situation,
) -> None:
    """Refuse to sign anything but the same payload, for the people of the policy in force.

    A custodian's statement must speak of exactly this envelope.  That its shares are those of the
    content key shows when officers and host open them; what is wrong then hurts this bundle alone.
    """
    _, _, verdicts = check_author(
        broken, situation.trusted.policy, role="custodian", check="recovery", subject="break-glass"
    )
    require(verdicts)
    said = broken.predicate
    if (said.manifest, said.replacement, said.environment) != (
        old.digest,
        new.core.binding().hex(),
        situation.trusted.genesis,
    ):
        raise Refused(
            "the custodian's statement is about another bundle or envelope", check="recovery.other"
        )
    kept = {name: getattr(old.predicate.core, name) for name in _NEW}
    if msgspec.structs.replace(new.core, **kept) != old.predicate.core:
        raise Refused("the new core is not of the same payload", check="recovery.core")
    if new.core.replaces != old.digest:
        raise Refused("the new core replaces another manifest", check="recovery.core")


def sign_rewrapped(
    bundle: Bundle,
    new: Rewrapped,
    broken: Statement[BreakGlass],
    target: Path,
    *,
    situation: Situation,
    signer: Signer,
) -> Statement[Manifest]:
    """Sign a re-wrapped manifest as its publisher, and lay the new bundle beside the old one.

    Ciphertext is the same, byte for byte: files are linked where the disk can, else copied.
    """
    check_absent(target)
    check_rewrapped(bundle.statement, new, broken, situation)
    _check_signer(signer, situation, role="publisher")
    if signer.key_id != new.core.publisher:
        # The model signature in the contents is by that key, and judges compare them.
        raise Refused(
            "another key published this bundle", check="manifest.publisher", where=str(bundle.path)
        )
    bundle.sealed_contents()
    data = signer.statement(Manifest(core=new.core, envelope=new.envelope))
    statement = decode_statement(Manifest, data)
    require(check_manifest(statement, situation))
    with new_directory(target, mode=0o755) as folder:
        for name in (CONTENTS, PARTS, PAYLOAD):
            with disk_errors(folder):
                _link(bundle.path / name, folder / name)
        (folder / MANIFEST).write_bytes(data)
    return statement


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _check_signer(signer: Signer, situation: Situation, *, role: str) -> None:
    policy = situation.trusted.policy
    holder, key = policy.holder(signer.key_id), policy.signing_key(signer.key_id)
    if holder is None or key is None or role not in holder.roles:
        raise Refused(f"the signing key is no {role}'s", check="recovery.signer")
    require(check_key(holder, key, situation))
