"""A policy in words, for the people who sign it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from custody.crypto.certificates import read_certificate
from custody.crypto.keyslots import is_oaep
from custody.encoding import format_time, sha256
from custody.errors import Malformed
from custody.formats.policy import Policy, Principal, Role, ShareKey, SigningKey
from custody.formats.policy_text import format_quorum
from custody.rules.authorisers import authorisers

_HOUR = 3600
_DAY = 86400
_ROLES = get_args(Role)


def describe(policy: Policy) -> tuple[str, ...]:
    """Say all that a policy says, one fact a line."""
    return tuple(_facts(policy))


def describe_changes(old: Policy, new: Policy) -> tuple[str, ...]:
    """Say what ``new`` changes: lines that begin with - (no longer) or + (now).

    Facts are compared as they are shown, so nothing that is shown can change unseen.
    """
    before, after = list(_facts(old)), list(_facts(new))
    gone = [f"- {line}" for line in before if line not in after]
    come = [f"+ {line}" for line in after if line not in before]
    return (*gone, *come)


def _facts(policy: Policy) -> Iterator[str]:
    yield f"environment {policy.environment}, version {policy.version}"
    yield f"in force {format_time(policy.issued_at)} to {format_time(policy.expires_at)}"
    yield f"a release needs {format_quorum(policy.quorum)}"
    needs = policy.thresholds
    yield f"a new policy needs {_count(needs.root, 'custodian')}"
    yield f"a host's record needs {_count(needs.enrolment, 'enroller')}"
    yield f"a golden set needs {_count(needs.golden, 'enroller')}"
    yield f"people's keys are in {' or '.join(policy.token_classes)} tokens"
    for person in sorted(policy.principals, key=lambda p: (min(map(_ROLES.index, p.roles)), p.id)):
        yield from _person(person)
    yield from _host(policy)
    limits = policy.limits
    yield f"a request lives at most {_span(limits.request_window_seconds)}"
    yield f"an approval lives at most {_span(limits.approval_seconds)}"
    yield f"a revocation list counts for at most {_span(limits.crl_max_age_seconds)}"
    yield f"releases are {' or '.join(policy.modes)}"
    if "sealed-updatable" in policy.modes:
        who = ", ".join(each.principal for each in authorisers(policy))
        yield f"a kept key opens in later boot states by leave of {needs.golden} of {who}"
    yield f"parts are digested by {policy.part_digest}"
    yield f"share keys are {policy.weakest_suite} or stronger"
    if is_oaep(policy.weakest_suite):
        sha1 = ", with SHA-1, whose collisions are no way in" * ("SHA1" in policy.weakest_suite)
        yield f"tokens that only have RSA are taken{sha1}"
    yield f"a publisher {'may' if policy.self_approval else 'may not'} approve his own models"
    yield from _log(policy)
    yield from _sites(policy)
    yield from _recovery(policy)
    yield from (f"withdrawn: manifest {digest}" for digest in policy.withdrawn)


def _log(policy: Policy) -> Iterator[str]:
    if policy.logged is None:
        yield "a release needs no log"
        return
    yield "a release needs the signature of a log, and these count:"
    yield from (f"  {line}" for line in policy.logged)


def _sites(policy: Policy) -> Iterator[str]:
    if not policy.sites:
        yield "a bundle needs no site's HSM"
        return
    names = " or ".join(site.id for site in policy.sites)
    yield f"a bundle opens only with the HSM of {names}, whichever it was sealed for"


def _recovery(policy: Policy) -> Iterator[str]:
    found = policy.recovery
    if found is None:
        yield "no recovery key: what its officers lose is lost"
        return
    yield f"recovery key {found.key_id}, {found.suite}, opens every bundle; epoch {found.epoch}"
    yield f"  it takes the shares of {format_quorum(found.among)}, set {found.set_id}"
    yield f"  as recorded in statement {found.record}"


def _person(person: Principal) -> Iterator[str]:
    yield f"{called(person)}: {', '.join(person.roles)}"
    for key in person.keys:
        yield f"  {person.id} {_use(key)} key {key.key_id}, {key.token_class} token"


def called(person: Principal) -> str:
    """Say who somebody is: by his name in the policy, and by that for people if it is another."""
    return person.id if person.name == person.id else f"{person.id}, {person.name}"


def _use(key: SigningKey | ShareKey) -> str:
    return "signing" if isinstance(key, SigningKey) else f"share ({key.suite})"


def _host(policy: Policy) -> Iterator[str]:
    host = policy.host
    yield f"a host's boot state is PCRs {', '.join(map(str, host.pcrs))} of bank {host.bank}"
    may = "must" if host.event_log == "required" else "may"
    yield f"a host {may} explain its boot state by an event log"
    tpms = [kind for kind in host.trust_classes if kind != "hsm-key"]
    yield f"a host's TPM is {' or '.join(tpms)}" if tpms else "no host with a TPM is taken"
    if "hsm-key" in host.trust_classes:
        yield (
            "HOSTS WITHOUT A TPM are taken, by keys in an HSM: boot state unknown, burn not "
            "provable, officers consent first"
        )
    yield from _named("TPM vendor", host.vendor_roots)
    for vendor in host.vendor_crls:
        yield f"TPMs below the vendor root with key {vendor} need fresh revocation lists"
    yield from (f"a host shows further evidence of type {kind}" for kind in host.further)
    yield from _named("certificate authority", policy.authorities)


def _named(what: str, certificates: Iterable[bytes]) -> Iterator[str]:
    for der in certificates:
        try:
            certificate = read_certificate(der)
        except Malformed:
            yield f"{what} that cannot be read, {sha256(der).hex()}"
            continue
        subject = certificate.subject.rfc4514_string()
        yield f"{what} {subject}, certificate {sha256(der).hex()}"


def _span(seconds: int) -> str:
    for unit, name in ((_DAY, "day"), (_HOUR, "hour"), (60, "minute")):
        if seconds % unit == 0 and seconds >= unit:
            return _count(seconds // unit, name)
    return _count(seconds, "second")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
