"""Breaking the glass: a bundle sealed anew to the officers in force.  Protocol section 7.

Two people on two machines: a custodian, with enough shares, makes the new envelope; the publisher
signs it.  Neither machine shows or writes the content key or any plaintext, and the custodian's
needs of the bundle nothing but its manifest.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from custody.crypto.keyslots import slot_info, unwrap
from custody.crypto.parts import cek_commitment
from custody.crypto.quorum import tree_digest
from custody.crypto.recoverykey import RecoveryKeyPair
from custody.crypto.secret import fresh_secret, wipe
from custody.encoding import KeyId, check_text, encode
from custody.errors import Refused
from custody.formats.envelope import Statement, decode_statement
from custody.formats.manifest import Core, Manifest
from custody.formats.recovery import BreakGlass, RecoveryRecord, Rewrapped, UsedShare
from custody.ops.envelope_seal import check_officers, seal_envelope
from custody.ops.folders import reading
from custody.ops.keys import Signer, TokenRandom
from custody.ops.recovery import check_record, check_share, rebuilt_key
from custody.ops.resume import SealSecrets
from custody.rules.manifest import check_manifest
from custody.rules.people import check_key
from custody.rules.site import IN_FORCE, choose_site, core_site
from custody.rules.situation import Situation
from custody.rules.trust import require_signatory
from custody.rules.verdicts import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """What breaking the glass made: an envelope for the publisher to sign, and who did it."""

    rewrapped: bytes = field(repr=False)
    statement: bytes = field(repr=False)
    digest: str


def check_breakable(
    manifest: Statement[Manifest],
    record: Statement[RecoveryRecord],
    situation: Situation,
    *,
    site: str | None,
) -> None:
    """Refuse a bundle that nobody may release, or seal anew, or that this key does not open.

    All that the files say without a share: nobody types his words to learn it.

    A withdrawn bundle, or one past its date, does not come back by this door; one whose site was
    closed does, for another site.
    """
    require(v for v in check_manifest(manifest, situation) if v.check != IN_FORCE)
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
    choose_site(situation, site)
    check_officers(situation)


def check_breaker(key: KeyId, reason: str, situation: Situation) -> None:
    """Refuse who is no custodian with a certificate that holds, and a reason that cannot be signed.

    ``key`` is his signing key's id.
    """
    with reading("reason"):
        check_text(reason)
    found = require_signatory(
        situation.trusted.policy, key, role="custodian", check="recovery.signer"
    )
    require(check_key(*found, situation))


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
    site: str | None = None,
) -> Broken:
    """Open the content key by the recovery key, and seal it to the officers of the policy in force.

    ``signer`` is a custodian's, and states what was done, why and by which shares.  ``site`` is
    the site of that policy it is for, needed where there are several: the old one's HSM is not
    asked, and K_site is new.
    """
    check_breaker(signer.key_id, reason, situation)
    check_breakable(manifest, record, situation, site=site)
    with rebuilt_key(record, shares, passphrase) as key:
        made = rewrap(manifest, key, situation=situation, token_random=token_random, site=site)
    used = [check_share(record, text)[0] for text in shares]
    stated = BreakGlass(
        author=signer.key_id,
        environment=situation.trusted.genesis,
        manifest=manifest.digest,
        replacement=made.core.binding().hex(),
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
        rewrapped=encode(made),
        statement=statement,
        digest=decode_statement(BreakGlass, statement).digest,
    )


def rewrap(
    manifest: Statement[Manifest],
    key: RecoveryKeyPair,
    *,
    situation: Situation,
    token_random: TokenRandom | None,
    site: str | None = None,
) -> Rewrapped:
    """Make the envelope for the officers in force, around the content key of a checked manifest."""
    core = _new_core(manifest, situation, site)
    cek = _open_cek(manifest.predicate, key)
    try:
        secrets = _secrets(manifest.predicate, cek, token_random)
        try:
            envelope = seal_envelope(core, secrets, situation, token_random)
        finally:
            secrets.wipe()
    finally:
        wipe(cek)
    return Rewrapped(kind="custody/rewrapped/v1", core=core, envelope=envelope)


def _new_core(manifest: Statement[Manifest], situation: Situation, site: str | None) -> Core:
    policy = situation.trusted.policy
    return msgspec.structs.replace(
        manifest.predicate.core,
        policy_version=policy.version,
        tree=tree_digest(policy.quorum),
        site=core_site(choose_site(situation, site)),
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
