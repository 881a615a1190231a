"""Whether a bundle takes a site's HSM to open, where the policy says that it must.

Where a policy lists sites, the content key is under R ‖ K_site, and K_site is sealed to keys in one
site's HSM: officers' shares, all of them, open nothing without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from custody.encoding import KeyId
from custody.errors import Refused
from custody.formats.manifest import Core
from custody.formats.policy import Policy, Principal, ShareKey
from custody.rules.people import check_key
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, passed

#: What a re-wrapping mends, and so does not ask of the bundle it is made from.
IN_FORCE = "manifest.site-in-force"


def share_keys(person: Principal) -> tuple[ShareKey, ...]:
    """Return the keys that secrets are sealed to."""
    return tuple(key for key in person.keys if isinstance(key, ShareKey))


def site_of(policy: Policy, recipients: Sequence[KeyId]) -> Principal | None:
    """Return the one site of ``policy`` all of these keys belong to."""
    wanted = set(recipients)
    for site in policy.sites:
        if wanted <= {key.key_id for key in share_keys(site)}:
            return site
    return None


def usable_keys(site: Principal, situation: Situation) -> tuple[ShareKey, ...]:
    """Return a site's share keys whose certificates hold now."""
    return tuple(key for key in share_keys(site) if passed(check_key(site, key, situation)))


def choose_site(situation: Situation, name: str | None) -> tuple[ShareKey, ...]:
    """Return the keys to seal K_site to: of the site named, or of the only one; () where none is.

    Several sites and no name, a name that is no site's, and a site without a key whose certificate
    holds are `Refused` (``seal.site``).
    """
    sites = situation.trusted.policy.sites
    names = ", ".join(site.id for site in sites)
    if name is None and len(sites) > 1:
        raise Refused(
            f"it can be sealed for one site only, of {names}",
            check="seal.site",
            hint="say which: --site NAME",
        )
    if name is None and not sites:
        return ()
    site = next((site for site in sites if name in (None, site.id)), None)
    if site is None:
        raise Refused(
            f"{name} is no site of the policy; sites: {names or 'none'}", check="seal.site"
        )
    usable = usable_keys(site, situation)
    if not usable:
        raise Refused(
            f"site {site.id} has no share key with a certificate in force",
            check="seal.site",
            hint="renew its certificate, or revocation list, before sealing",
        )
    return usable


def core_site(keys: Sequence[ShareKey]) -> tuple[KeyId, ...] | None:
    """Return how a core names these keys."""
    return tuple(sorted(key.key_id for key in keys)) or None


def check_site(core: Core, sealed_for: Policy, situation: Situation, ledger: Ledger) -> None:
    """Judge whose HSM it takes: by the policy it was sealed for, and by the one in force."""
    fault = _sealing_fault(core, sealed_for)
    site = site_of(sealed_for, core.site or ())
    ledger.add(
        "manifest.site",
        not fault,
        f"takes the HSM of site {site.id}" if core.site and site else "takes no site's HSM",
        otherwise=fault,
    )
    policy = situation.trusted.policy
    if not policy.sites:
        ledger.skip(IN_FORCE, "the policy in force demands no site's HSM")
        return
    fault = _in_force_fault(core, situation)
    ledger.add(
        IN_FORCE, not fault, "a site of the policy in force holds its other half", otherwise=fault
    )


def _sealing_fault(core: Core, sealed_for: Policy) -> str:
    if core.site is None:
        if sealed_for.sites:
            return "opens without a site's HSM, which its policy demands"
        return ""
    if site_of(sealed_for, core.site) is None:
        return f"sealed to key {core.site[0][:16]}, which is not of one site of its policy"
    return ""


def unlisted_fault(core: Core, policy: Policy) -> str:
    """Say why a policy in force would let nobody release a bundle, by whom it lists; or nothing.

    A site that was closed, or whose HSM was stolen, is struck off or revoked: what was sealed for
    it takes that HSM and no other, and is sealed or re-wrapped anew.
    """
    if not policy.sites:
        return ""
    if core.site is None:
        return "opens without a site's HSM, which the policy in force demands"
    listed = {key.key_id for site in policy.sites for key in share_keys(site)}
    if not listed & set(core.site):
        return "sealed for a site that the policy in force does not list"
    return ""


def _in_force_fault(core: Core, situation: Situation) -> str:
    policy = situation.trusted.policy
    fault = unlisted_fault(core, policy)
    if fault:
        return fault
    usable = {key.key_id for site in policy.sites for key in usable_keys(site, situation)}
    if not usable & set(core.site or ()):
        return "sealed for a site none of whose keys has a certificate in force"
    return ""
