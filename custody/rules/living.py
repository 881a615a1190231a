"""Whether a policy leaves enough people able to act: judged before anybody signs it.

`rules.policy` counts who is listed.  Here it is asked whose keys still are good: a policy whose
every lead is revoked is sound by itself, and would lock everybody out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from custody.crypto.quorum import leaves, missing, satisfied
from custody.formats.policy import Policy, Principal, Role, ShareKey, SigningKey
from custody.rules.certificates import check_certificate
from custody.rules.verdicts import Ledger, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """The certificates and lists (DER) that keys are judged by, and the moment."""

    certificates: Sequence[bytes]
    crls: Sequence[bytes]
    now: datetime


def key_faults(
    policy: Policy, person: Principal, key: SigningKey | ShareKey, papers: Papers
) -> tuple[Verdict, ...]:
    """List what is wrong with the certificate of a key by that policy; nothing if it is good."""
    verdicts = check_certificate(
        key.spki,
        use="sign" if isinstance(key, SigningKey) else "share",
        principal=person.id,
        certificates=papers.certificates,
        authorities=policy.authorities,
        crls=papers.crls,
        crl_floor={},
        crl_max_age_seconds=policy.limits.crl_max_age_seconds,
        moment=papers.now,
    )
    return tuple(verdict for verdict in verdicts if verdict.outcome == "fail")


def officer_fault(policy: Policy, person: Principal, papers: Papers) -> str:
    """Say why an officer could approve nothing that is sealed today, or nothing."""
    for use, kind in (("signing", SigningKey), ("share", ShareKey)):
        faults = [
            key_faults(policy, person, key, papers) for key in person.keys if isinstance(key, kind)
        ]
        if faults and all(faults):
            return f"{person.id}'s {use} key: {faults[0][0].reason}"
    return ""


def living_officers(policy: Policy, papers: Papers) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the officers of the tree who could approve, and what keeps the others from it."""
    living, faults = set(), []
    for leaf in leaves(policy.quorum):
        person = policy.principal(leaf.principal)
        fault = officer_fault(policy, person, papers) if person else f"{leaf.principal} is missing"
        if fault:
            faults.append(fault)
        else:
            living.add(leaf.principal)
    return frozenset(living), tuple(faults)


def check_living(policy: Policy, papers: Papers) -> tuple[Verdict, ...]:
    """Judge whether a policy could still be used and changed by those whose keys are good."""
    ledger = Ledger(subject=f"policy {policy.environment}/{policy.version}")
    living, faults = living_officers(policy, papers)
    paths = [leaf.path for leaf in leaves(policy.quorum) if leaf.principal in living]
    gaps = missing(policy.quorum, paths)
    lacking = "; ".join(f"{gap.needed} more of {', '.join(gap.among)}" for gap in gaps)
    ledger.add(
        "policy.living-officers",
        not gaps,
        f"officers whose keys are good can release: {', '.join(sorted(living))}",
        otherwise=f"nobody could release anything: it would take {lacking}"
        + "".join(f"; {fault}" for fault in faults[:3]),
    )
    _check_sites(policy, papers, ledger)
    needs = policy.thresholds
    vouching = max(needs.enrolment, needs.golden)
    roles: tuple[tuple[str, Role, int, str], ...] = (
        ("policy.living-custodians", "custodian", needs.root, "sign the next policy"),
        ("policy.living-enrollers", "enroller", vouching, "let a host in"),
    )
    for check, role, needed, harm in roles:
        able = able_signers(policy, role, papers)
        ledger.add(
            check,
            len(able) >= needed,
            f"{len(able)} {role}s have a key that is not revoked",
            otherwise=f"nobody could {harm}: it takes {needed} {role}s, and only {len(able)} have a"
            " key that is not revoked",
        )
    return ledger.done()


def _check_sites(policy: Policy, papers: Papers, ledger: Ledger) -> None:
    if not policy.sites:
        ledger.skip("policy.living-sites", "bundles need no site's HSM")
        return
    living = [
        site.id
        for site in policy.sites
        if any(
            isinstance(key, ShareKey) and not key_faults(policy, site, key, papers)
            for key in site.keys
        )
    ]
    ledger.add(
        "policy.living-sites",
        bool(living),
        f"there is an HSM to seal to: {', '.join(living)}",
        otherwise="nothing could be sealed: no site has a share key whose certificate holds",
    )


def able_signers(policy: Policy, role: Role, papers: Papers) -> tuple[str, ...]:
    """Return who in a role has a signing key that is not revoked.

    Their statements count by the policy alone, so that a certificate that has merely ended takes
    nobody's voice; who is revoked has lost his token.
    """
    return tuple(
        person.id
        for person in policy.principals
        if role in person.roles
        and any(
            isinstance(key, SigningKey)
            and all(
                fault.check != "certificate.revoked"
                for fault in key_faults(policy, person, key, papers)
            )
            for key in person.keys
        )
    )


def needed_officers(policy: Policy, living: frozenset[str]) -> tuple[str, ...]:
    """Return the officers each of whom the living cannot do without."""
    paths = {leaf.path: leaf.principal for leaf in leaves(policy.quorum)}
    return tuple(
        name
        for name in sorted(living)
        if not satisfied(policy.quorum, [p for p, who in paths.items() if who in living - {name}])
    )
