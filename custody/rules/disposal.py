"""Is a bundle superseded, and is this its publisher's word that it is gone?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from custody.encoding import Digest, format_time
from custody.formats.disposal import Disposal
from custody.formats.envelope import Statement
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """Why a bundle has had its time, and what replaces it, if anything does."""

    why: str
    replaced_by: Digest | None
    since: datetime


def superseded(
    manifest: Statement[Manifest],
    others: Iterable[Statement[Manifest]],
    policy: Policy,
    *,
    now: datetime,
) -> Superseded | None:
    """Say why a bundle has had its time, by what publishers signed; None: it has not."""
    core = manifest.predicate.core
    for other in sorted(others, key=lambda m: (m.predicate.core.sealed_at, m.digest)):
        newer = other.predicate.core
        if (
            newer.replaces == manifest.digest
            and newer.sealed_at >= core.sealed_at
            and newer.environment == core.environment
            and is_published(other, policy)
        ):
            why = f"replaced by {other.digest[:16]}…"
            return Superseded(why=why, replaced_by=other.digest, since=newer.sealed_at)
    if manifest.digest in policy.withdrawn:
        why = f"withdrawn by policy version {policy.version}"
        return Superseded(why=why, replaced_by=None, since=policy.issued_at)
    if core.not_after <= now:
        why = f"not to be released after {format_time(core.not_after)}"
        return Superseded(why=why, replaced_by=None, since=core.not_after)
    return None


def is_published(manifest: Statement[Manifest], policy: Policy) -> bool:
    """Tell whether the publisher that a manifest names, one of the policy's, signed it."""
    keyid, _, verdicts = check_author(
        manifest, policy, role="publisher", check="manifest", subject="manifest"
    )
    return passed(verdicts) and keyid == manifest.predicate.core.publisher


def check_disposal(
    statement: Statement[Disposal], manifest: Statement[Manifest], policy: Policy
) -> tuple[Verdict, ...]:
    """Judge a publisher's word that the bundle of ``manifest`` is gone."""
    keyid, _, verdicts = check_author(
        statement, policy, role="publisher", check="disposal", subject="disposal"
    )
    ledger = Ledger(subject="disposal")
    ledger.extend(verdicts)
    said, core = statement.predicate, manifest.predicate.core
    ledger.add(
        "disposal.manifest",
        (said.manifest, said.environment, keyid)
        == (manifest.digest, core.environment, core.publisher),
        "is its publisher's word about this bundle",
        otherwise="is about another bundle, or by another than its publisher",
    )
    return ledger.done()
