"""The envelope of a manifest: every secret of a bundle, sealed.  Protocol section 3.7."""

from __future__ import annotations

import os
from collections.abc import Sequence

from custody.crypto.keyslots import commitment, seal, slot_info, wrap
from custody.crypto.quorum import LeafShare, check_shares, leaves, split
from custody.crypto.secret import fresh_secret, wipe
from custody.encoding import KeyId
from custody.errors import Refused
from custody.formats.manifest import Core, KeySlot, LeafCommitment, SecretEnvelope, Wrap
from custody.formats.policy import Policy, Principal, ShareKey
from custody.ops.keys import TokenRandom
from custody.ops.resume import SealSecrets
from custody.ops.site_half import SITE_SECRET_BYTES
from custody.rules.people import check_key
from custody.rules.site import share_keys, site_of
from custody.rules.situation import Situation
from custody.rules.verdicts import require


def seal_envelope(
    core: Core, secrets: SealSecrets, situation: Situation, token_random: TokenRandom | None
) -> SecretEnvelope:
    """Share R down the tree in force and seal every secret, each bound to the core.

    The core must be of the policy in force.  Where it names a site's keys, K_site is drawn here,
    with ``token_random``, and forgotten.  An officer without a key whose certificate holds is
    `Refused` (``seal.officer``).
    """
    policy = situation.trusted.policy
    binding = core.binding()
    shares = split(policy.quorum, secrets.release)
    try:
        check_shares(policy.quorum, shares, secrets.release)
        slots, commitments = _share_slots(binding, shares, situation)
    finally:
        wipe(*(share.value for share in shares))
    slots += _contents_slots(binding, secrets.contents, situation)
    slots += _recovery_slot(binding, secrets.cek, policy)
    if core.site is None:
        cek = wrap(secrets.release, secrets.cek, C=binding, purpose="cek")
    else:
        half = fresh_secret(SITE_SECRET_BYTES, token_random)
        both = secrets.release + half
        try:
            slots += _site_slots(binding, half, core.site, policy)
            cek = wrap(both, secrets.cek, C=binding, purpose="cek")
        finally:
            wipe(half, both)
    contents = wrap(secrets.cek, secrets.contents, C=binding, purpose="contents")
    return SecretEnvelope(
        slots=tuple(sorted(slots, key=lambda s: (s.purpose, s.leaf, s.recipient))),
        commitments=tuple(sorted(commitments, key=lambda c: c.leaf)),
        wraps=(
            Wrap(purpose="cek", salt=cek[0], sealed=cek[1]),
            Wrap(purpose="contents", salt=contents[0], sealed=contents[1]),
        ),
    )


def check_officers(situation: Situation) -> None:
    """Refuse (``seal.officer``) to seal to a tree of which some officer has no key that holds.

    Known from the files alone: before a model is read, or holders of shares type their words.
    """
    for leaf in leaves(situation.trusted.policy.quorum):
        _officer_keys(leaf.principal, situation)


def _share_slots(
    binding: bytes, shares: Sequence[LeafShare], situation: Situation
) -> tuple[list[KeySlot], list[LeafCommitment]]:
    policy = situation.trusted.policy
    holders = {leaf.path: leaf.principal for leaf in leaves(policy.quorum)}
    slots: list[KeySlot] = []
    commitments: list[LeafCommitment] = []
    for share in shares:
        salt = os.urandom(32)
        secret = share.value + salt
        commitments.append(
            LeafCommitment(
                leaf=share.path,
                commitment=commitment(binding, share.path, share.x, share.value, salt).hex(),
            )
        )
        for key in _officer_keys(holders[share.path], situation):
            info = slot_info(binding, "share", share.path, key.key_id)
            slots.append(
                KeySlot(
                    purpose="share",
                    leaf=share.path,
                    recipient=key.key_id,
                    suite=key.suite,
                    sealed=seal(key.suite, key.spki, key.mlkem, secret, info=info),
                )
            )
        wipe(secret)
    return slots, commitments


def _officer_keys(name: str, situation: Situation) -> list[ShareKey]:
    """Return the share keys that an officer's share is sealed to; none is `Refused`."""
    policy = situation.trusted.policy
    usable = _usable_keys(policy, name, situation)
    if not usable:
        raise Refused(
            f"officer {name} has no share key with a certificate in force",
            check="seal.officer",
            hint=_remedy(policy.principal(name), situation),
        )
    return usable


def _remedy(person: Principal | None, situation: Situation) -> str:
    """Say what lets bundles be sealed again: no renewal helps a key that was revoked."""
    keys = _share_keys(person)
    if person is not None and keys and all(_revoked(person, key, situation) for key in keys):
        return (
            f"{person.id}'s key was revoked: custodians sign a policy without him, "
            "or with a new key of his"
        )
    return "renew his certificate, or revocation list, before sealing"


def _revoked(person: Principal, key: ShareKey, situation: Situation) -> bool:
    return any(
        verdict.check == "certificate.revoked" and verdict.outcome == "fail"
        for verdict in check_key(person, key, situation)
    )


def _usable_keys(policy: Policy, name: str, situation: Situation) -> list[ShareKey]:
    """Return the share keys of a person whose certificates hold now."""
    person = policy.principal(name)
    return [key for key in _share_keys(person) if _holds(person, key, situation)]


def _share_keys(person: Principal | None) -> list[ShareKey]:
    return [key for key in person.keys if isinstance(key, ShareKey)] if person else []


def _holds(person: Principal | None, key: ShareKey, situation: Situation) -> bool:
    if person is None:
        return False
    try:
        require(check_key(person, key, situation))
    except Refused:
        return False
    return True


def _contents_slots(binding: bytes, contents_key: bytearray, situation: Situation) -> list[KeySlot]:
    """Seal the contents key to every officer, and to every auditor who holds a key."""
    policy = situation.trusted.policy
    slots = []
    for person in policy.principals:
        if not {"officer", "auditor"} & set(person.roles):
            continue
        for key in _usable_keys(policy, person.id, situation):
            info = slot_info(binding, "contents", "", key.key_id)
            slots.append(
                KeySlot(
                    purpose="contents",
                    leaf="",
                    recipient=key.key_id,
                    suite=key.suite,
                    sealed=seal(key.suite, key.spki, key.mlkem, contents_key, info=info),
                )
            )
    return slots


def _site_slots(
    binding: bytes, half: bytearray, recipients: Sequence[KeyId], policy: Policy
) -> list[KeySlot]:
    """Seal K_site to each of one site's keys."""
    site = site_of(policy, recipients)
    if site is None:
        raise AssertionError("internal: a core names keys that are no site's")
    return [
        KeySlot(
            purpose="site",
            leaf="",
            recipient=key.key_id,
            suite=key.suite,
            sealed=seal(
                key.suite,
                key.spki,
                key.mlkem,
                half,
                info=slot_info(binding, "site", "", key.key_id),
            ),
        )
        for key in share_keys(site)
        if key.key_id in recipients
    ]


def _recovery_slot(binding: bytes, cek: bytearray, policy: Policy) -> list[KeySlot]:
    """Seal CEK to the recovery key, where there is one."""
    key = policy.recovery
    if key is None:
        return []
    info = slot_info(binding, "recovery", "", key.key_id)
    return [
        KeySlot(
            purpose="recovery",
            leaf="",
            recipient=key.key_id,
            suite=key.suite,
            sealed=seal(key.suite, key.spki, key.mlkem, cek, info=info),
        )
    ]
