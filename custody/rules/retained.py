"""May a key that was kept for restarts still be used?

The TPM holds the boot state and whether the key was forgotten.  It knows no date and no policy:
what a quorum granted once, the policy in force may take back, and only these checks see it.
"""

from __future__ import annotations

from custody.encoding import Digest
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import Manifest
from custody.formats.request import Request
from custody.rules.manifest import check_manifest
from custody.rules.request import check_vouchers
from custody.rules.situation import Situation
from custody.rules.verdicts import Ledger, Verdict


def check_retained(
    request: Statement[Request],
    manifest: Statement[Manifest],
    *,
    enrolment: Statement[EnrolmentRecord],
    golden: Statement[GoldenSet],
    pcr_digest: Digest,
    situation: Situation,
) -> tuple[Verdict, ...]:
    """Judge, by the newest policy and lists here, a key that was kept by leave of ``request``."""
    said, policy = request.predicate, situation.trusted.policy
    ledger = Ledger(subject=f"kept key of {said.host}")
    ledger.add(
        "retained.manifest",
        said.terms.manifest == manifest.digest,
        "kept for this manifest",
        otherwise="kept for another manifest",
    )
    ledger.add(
        "retained.terms",
        said.terms.mode == "sealed",
        "the quorum consented to its being kept",
        otherwise="the quorum consented to one opening only",
    )
    ledger.add(
        "retained.mode",
        "sealed" in policy.modes,
        "the policy in force still lets hosts keep keys",
        otherwise="the policy in force no longer lets hosts keep keys",
    )
    ledger.add(
        "retained.trust-class",
        enrolment.predicate.trust_class in policy.host.trust_classes,
        f"trust class {enrolment.predicate.trust_class} is accepted",
        otherwise=f"trust class {enrolment.predicate.trust_class} is no longer accepted",
    )
    ledger.add(
        "retained.golden",
        golden.predicate.pcr_digest() == pcr_digest == said.terms.pcr_digest,
        f"kept for the boot state {golden.predicate.name}, epoch {golden.predicate.epoch}",
        otherwise="kept for another boot state than the request's",
    )
    ledger.extend(check_manifest(manifest, situation))
    ledger.extend(check_vouchers(enrolment, golden, said.host, situation))
    return ledger.done()
