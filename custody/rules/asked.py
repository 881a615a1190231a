"""What every request must hold to, whatever kind of host asks."""

from __future__ import annotations

from custody.crypto.keyslots import STRENGTH
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.manifest import Manifest
from custody.rules.logged import check_checkpoint
from custody.rules.manifest import SKEW
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger


def check_asked_for(
    ledger: Ledger,
    statement: Statement[Asking],
    manifest: Statement[Manifest],
    situation: Situation,
) -> None:
    """Judge what a request names: manifest, policy, environment, mode, suite, time, checkpoint."""
    request = statement.predicate
    policy = situation.trusted.policy
    ledger.add(
        "request.manifest",
        request.terms.manifest == manifest.digest,
        "asks for this manifest",
        otherwise=f"asks for another manifest, {request.terms.manifest[:16]}…, than this bundle's",
    )
    ledger.add(
        "request.policy",
        request.terms.policy == situation.trusted.digest,
        f"made under policy version {policy.version}",
        otherwise="made under another policy than the newest known here",
    )
    ledger.add(
        "request.environment",
        request.environment == situation.trusted.genesis,
        f"for {policy.environment}",
        otherwise="for another environment",
    )
    ledger.add(
        "request.mode",
        request.terms.mode in policy.modes,
        f"mode {request.terms.mode} is allowed",
        otherwise=f"mode {request.terms.mode} is not allowed by the policy",
    )
    ledger.add(
        "request.suite",
        STRENGTH.index(request.suite) >= STRENGTH.index(policy.weakest_suite),
        f"suite {request.suite} is strong enough",
        otherwise=f"suite {request.suite} is weaker than {policy.weakest_suite}",
    )
    ledger.add(
        "request.time",
        request.requested_at <= situation.now + SKEW,
        "not made in the future",
        otherwise="made in the future, by the host's own clock",
    )
    ledger.extend(check_checkpoint(statement, situation))
