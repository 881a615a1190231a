"""What makes a policy sound, judged before anybody signs it and each time it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from custody.crypto.certificates import read_certificate, spki_of
from custody.crypto.keyslots import STRENGTH, check_recipient, is_oaep
from custody.crypto.notekeys import NoteKey
from custody.crypto.quorum import leaves, lint, minimal_sets
from custody.crypto.signature import load_ec_public
from custody.encoding import key_id
from custody.errors import Malformed, Refused
from custody.formats.policy import Policy, Principal, ShareKey, SigningKey
from custody.rules.quorum import signing_tree
from custody.rules.recovery import check_recovery
from custody.rules.tokenkey import token_key
from custody.rules.verdicts import Ledger, Verdict

#: Thirteen months: a year and time to renew it.
MAX_LIFE = timedelta(days=397)
#: Debug and application registers can be reset by software at any time (TCG PC Client PTP, 4.6.1).
RESETTABLE_PCRS = frozenset({16, 23})


def check_policy(policy: Policy) -> tuple[Verdict, ...]:
    """Judge one policy by itself: keys, people, tree, thresholds, host requirements.

    The checks need no clock and no other file; who signed it is for `rules.trust`.
    """
    ledger = Ledger(subject=f"policy {policy.environment}/{policy.version}")
    _check_life(policy, ledger)
    _check_keys(policy, ledger)
    _check_people(policy, ledger)
    _check_sites(policy, ledger)
    _check_hsm_hosts(policy, ledger)
    _check_logged(policy, ledger)
    _check_thresholds(policy, ledger)
    _check_updatable(policy, ledger)
    check_recovery(policy, ledger)
    _check_host(policy, ledger)
    return ledger.done()


def _check_life(policy: Policy, ledger: Ledger) -> None:
    life = policy.expires_at - policy.issued_at
    ledger.add(
        "policy.life",
        timedelta(0) < life <= MAX_LIFE,
        "lives at most thirteen months",
        otherwise="expires before it is issued, or lives longer than thirteen months",
    )
    ledger.add(
        "policy.genesis",
        (policy.genesis is None) == (policy.version == 1),
        "version 1 names the environment, later versions name version 1",
        otherwise="only version 1 has no genesis",
    )
    withdrawn = list(policy.withdrawn)
    ledger.add("policy.withdrawn", withdrawn == sorted(set(withdrawn)), "withdrawn list is sorted")


def _check_keys(policy: Policy, ledger: Ledger) -> None:
    spkis = [key.spki for person in policy.principals for key in person.keys]
    # The log's key fills a leaf of its own in H's policy: an officer's would fill two.
    spkis += [log.public for log in _logs(policy)]
    counts = Counter(map(token_key, spkis))
    repeated = [key_id(spki) for spki in spkis if counts[token_key(spki)] > 1]
    ledger.add(
        "policy.keys-distinct",
        not repeated,
        "every key belongs to one principal and has one use",
        otherwise=f"key {repeated[0][:16] if repeated else ''} is listed twice, or its negative,"
        " which is the same key of a token",
    )
    with ledger.failing("policy.keys-valid"):
        for person in policy.principals:
            for key in person.keys:
                _check_key(person, key)
        ledger.add("policy.keys-valid", True, "every key is a named curve its use allows")
    strange = sorted(
        {
            f"{person.id}'s {key.token_class} token"
            for person in policy.principals
            for key in person.keys
            if key.token_class not in policy.token_classes
        }
    )
    ledger.add(
        "policy.token-classes",
        not strange,
        f"people's keys are in tokens of the classes it takes: {', '.join(policy.token_classes)}",
        otherwise=f"it does not take {strange[0] if strange else ''}",
    )
    with ledger.failing("policy.authorities"):
        for der in policy.authorities:
            read_certificate(der)
        ledger.add("policy.authorities", True, "every authority is a certificate")


def _check_key(person: Principal, key: SigningKey | ShareKey) -> None:
    if isinstance(key, SigningKey):
        curve = load_ec_public(key.spki).curve.name
        # TPM2_PolicySigned takes officers' signatures, and every TPM knows P-256.
        if curve != "secp256r1" and ("officer" in person.roles or curve != "secp384r1"):
            raise Malformed(f"signing key of {person.id} is on {curve}")
        return
    try:
        check_recipient(key.suite, key.spki, key.mlkem)
    except Malformed as error:
        raise Malformed(
            f"share key of {person.id} does not fit suite {key.suite}: {error.reason}"
        ) from error


def _logs(policy: Policy) -> tuple[NoteKey, ...]:
    try:
        log = policy.log_key()
    except Malformed:
        return ()
    return () if log is None else (log,)


def _check_people(policy: Policy, ledger: Ledger) -> None:
    ids = [person.id for person in policy.principals]
    ledger.add("policy.principals", ids == sorted(set(ids)), "principals are sorted, each once")
    faults = lint(policy.quorum)
    ledger.add(
        "policy.quorum",
        not faults,
        "quorum tree is sound",
        otherwise=f"quorum tree: {faults[0] if faults else ''}",
    )
    if faults:
        # A tree that is none has no leaves to look at, and would end the judging with an error: a
        # stranger's policy must come out as failed, or the good one beside it is never gone on to.
        ledger.skip("policy.officers", "the quorum tree is not sound")
        ledger.skip("policy.tokens", "the quorum tree is not sound")
        return
    fault = next(
        filter(None, (_officer_fault(policy, leaf.principal) for leaf in leaves(policy.quorum))), ""
    )
    ledger.add(
        "policy.officers", not fault, "every leaf is an officer with both keys", otherwise=fault
    )
    fault = _tokens_fault(policy)
    ledger.add(
        "policy.tokens",
        not fault,
        "a TPM can be shown every choice of officers and their tokens",
        otherwise=f"quorum tree, with every signing key of every officer: {fault}",
    )


def _tokens_fault(policy: Policy) -> str:
    """Say what is wrong with the tree that H's policy is made of, or nothing.

    An officer with several tokens is a node of its own there: a sound tree can have too many
    minimal sets, or be too deep, once everybody has two, and then nobody could ask for anything.
    """
    try:
        minimal_sets(signing_tree(policy)[0])
    except (Malformed, Refused) as error:
        return error.reason
    return ""


def _officer_fault(policy: Policy, name: str) -> str:
    person = policy.principal(name)
    if person is None or "officer" not in person.roles:
        return f"{name} is in the quorum tree but is not an officer"
    if not any(isinstance(key, SigningKey) for key in person.keys):
        return f"officer {name} has no signing key"
    shares = [key for key in person.keys if isinstance(key, ShareKey)]
    if not shares:
        return f"officer {name} has no share key"
    if _is_any_weaker(shares, policy):
        return f"officer {name} has a share key weaker than {policy.weakest_suite}"
    return ""


def _is_any_weaker(shares: Sequence[ShareKey], policy: Policy) -> bool:
    weakest = STRENGTH.index(policy.weakest_suite)
    return any(STRENGTH.index(key.suite) < weakest for key in shares)


def _check_sites(policy: Policy, ledger: Ledger) -> None:
    if not policy.sites:
        ledger.skip("policy.sites", "bundles need no site's HSM")
        return
    fault = next(filter(None, (_site_fault(policy, site) for site in policy.sites)), "")
    ledger.add(
        "policy.sites",
        not fault,
        f"sites hold share keys and nothing else: {', '.join(s.id for s in policy.sites)}",
        otherwise=fault,
    )


def _site_fault(policy: Policy, site: Principal) -> str:
    # One token that is officer and site would be both factors at once.
    if site.roles != ("site",):
        return f"site {site.id} has another role besides"
    shares = [key for key in site.keys if isinstance(key, ShareKey)]
    if not shares:
        return f"site {site.id} has no share key"
    if _is_any_weaker(shares, policy):
        return f"site {site.id} has a share key weaker than {policy.weakest_suite}"
    return ""


def _check_hsm_hosts(policy: Policy, ledger: Ledger) -> None:
    if not policy.hosts:
        ledger.skip("policy.hsm-hosts", "every host shows a TPM")
        return
    fault = next(filter(None, (_hsm_host_fault(policy, host) for host in policy.hosts)), "")
    ledger.add(
        "policy.hsm-hosts",
        not fault,
        f"hosts without a TPM hold keys and no other role: {', '.join(h.id for h in policy.hosts)}",
        otherwise=fault,
    )


def _hsm_host_fault(policy: Policy, host: Principal) -> str:
    if "hsm-key" not in policy.host.trust_classes:
        return f"host {host.id} has no TPM, and the policy takes no hosts by keys in an HSM"
    # An officer's token that is the host besides would give itself what it asks for.
    if host.roles != ("host",):
        return f"host {host.id} has another role besides"
    shares = [key for key in host.keys if isinstance(key, ShareKey)]
    if not shares or len(shares) == len(host.keys):
        return f"host {host.id} has no signing key, or no share key"
    if any(is_oaep(key.suite) for key in shares):
        return f"host {host.id} has a share key that only decrypts"
    if _is_any_weaker(shares, policy):
        return f"host {host.id} has a share key weaker than {policy.weakest_suite}"
    return ""


def _check_logged(policy: Policy, ledger: Ledger) -> None:
    if policy.logged is None:
        ledger.skip("policy.logged", "releases need no log")
        return
    with ledger.failing("policy.logged"):
        log = policy.log_key()
        ledger.add("policy.logged", log is not None, f"releases are logged by {log and log.name}")


def _check_thresholds(policy: Policy, ledger: Ledger) -> None:
    # A threshold equal to the number of people is one lost token away from an environment
    # that nobody can ever change again.
    for check, role, needed in (
        ("policy.root-threshold", "custodian", policy.thresholds.root),
        ("policy.enrolment-threshold", "enroller", policy.thresholds.enrolment),
        ("policy.golden-threshold", "enroller", policy.thresholds.golden),
    ):
        able = sum(
            role in person.roles and any(isinstance(k, SigningKey) for k in person.keys)
            for person in policy.principals
        )
        ledger.add(
            check,
            needed < able,
            f"{needed} of {able} {role}s",
            otherwise=f"needs {needed} of {able} {role}s: must be fewer than there are",
        )


def _check_updatable(policy: Policy, ledger: Ledger) -> None:
    if "sealed-updatable" not in policy.modes:
        ledger.skip("policy.updatable", "no key is kept over updates of the boot state")
        return
    # Imported here because who seals by another policy needs none of what TPMs keep.
    from custody.rules.authorisers import authorisers_fault  # noqa: PLC0415

    fault = authorisers_fault(policy)
    ledger.add(
        "policy.updatable",
        not fault,
        "enough enrollers have keys by which a TPM can check what they authorise",
        otherwise=f"sealed-updatable: {fault}",
    )


def _check_host(policy: Policy, ledger: Ledger) -> None:
    pcrs = list(policy.host.pcrs)
    ledger.add(
        "policy.pcrs",
        pcrs == sorted(set(pcrs)) and not RESETTABLE_PCRS & set(pcrs),
        "registers are ascending and none can be reset by software",
        otherwise="registers repeat, are out of order, or include 16 or 23, which software resets",
    )
    with ledger.failing("policy.vendor-roots"):
        for der in policy.host.vendor_roots:
            read_certificate(der)
        ledger.add("policy.vendor-roots", True, "every vendor root is a certificate")
    with ledger.failing("policy.vendor-crls"):
        roots = {key_id(spki_of(der)) for der in policy.host.vendor_roots}
        crls = list(policy.host.vendor_crls)
        ledger.add(
            "policy.vendor-crls",
            crls == sorted(set(crls)) and set(crls) <= roots,
            "revocation lists are demanded of vendor roots that are here, each once",
            otherwise="revocation lists are demanded of keys that repeat, are out of order, or are "
            "no vendor root's",
        )
    further = list(policy.host.further)
    ledger.add(
        "policy.further", further == sorted(set(further)), "further evidence is sorted, each once"
    )
