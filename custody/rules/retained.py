"""May a key that was kept for restarts still be used?

The TPM holds the boot state and whether the key was forgotten.  It knows no date and no policy:
what a quorum granted once, the policy in force may take back, and only these checks see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from custody.crypto.tpmretained import EPOCHS, Line
from custody.encoding import Digest
from custody.formats.enrolment import EnrolmentRecord
from custody.formats.envelope import Statement
from custody.formats.goldenset import GoldenSet
from custody.formats.manifest import Manifest
from custody.formats.request import Request
from custody.rules.manifest import check_manifest
from custody.rules.request import check_vouchers
from custody.rules.situation import Situation
from custody.rules.trust import count_signers
from custody.rules.verdicts import Ledger, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterState:
    """That the host is in a later boot state than the one its key was kept in, and by whose leave.

    ``needed`` of ``among`` must have authorised it; ``enrollers`` have.
    """

    line: Line
    needed: int
    among: tuple[str, ...]
    enrollers: tuple[str, ...]


def check_retained(
    request: Statement[Request],
    manifest: Statement[Manifest],
    *,
    enrolment: Statement[EnrolmentRecord],
    golden: Statement[GoldenSet],
    pcr_digest: Digest,
    later: LaterState | None,
    situation: Situation,
) -> tuple[Verdict, ...]:
    """Judge, by the newest policy and lists here, a key that was kept by leave of ``request``.

    ``golden`` is the boot state the host is in, ``pcr_digest`` that of the state the key was kept
    in; ``later`` is None where they are the same.
    """
    ledger = Ledger(subject=f"kept key of {request.predicate.host}")
    ledger.add(
        "retained.manifest",
        request.predicate.terms.manifest == manifest.digest,
        "kept for this manifest",
        otherwise="kept for another manifest",
    )
    _check_leave(ledger, request, enrolment, situation)
    _check_state(ledger, request, golden, pcr_digest, later, situation)
    ledger.extend(check_manifest(manifest, situation))
    ledger.extend(check_vouchers(enrolment, golden, request.predicate.host, situation))
    return ledger.done()


def check_kept(
    request: Statement[Request],
    *,
    enrolment: Statement[EnrolmentRecord],
    golden: Statement[GoldenSet],
    pcr_digest: Digest,
    later: LaterState | None,
    situation: Situation,
) -> tuple[Verdict, ...]:
    """Judge what `check_retained` does, as far as the manifest itself is not needed for it."""
    said = request.predicate
    ledger = Ledger(subject=f"kept key of {said.host}")
    _check_leave(ledger, request, enrolment, situation)
    _check_state(ledger, request, golden, pcr_digest, later, situation)
    ledger.add(
        "manifest.withdrawn",
        said.terms.manifest not in situation.trusted.policy.withdrawn,
        "not withdrawn",
        otherwise="withdrawn by the policy in force",
    )
    ledger.extend(check_vouchers(enrolment, golden, said.host, situation))
    return ledger.done()


def _check_leave(
    ledger: Ledger,
    request: Statement[Request],
    enrolment: Statement[EnrolmentRecord],
    situation: Situation,
) -> None:
    said, policy = request.predicate, situation.trusted.policy
    ledger.add(
        "retained.terms",
        said.terms.keeps_key,
        "the quorum consented to its being kept",
        otherwise="the quorum consented to one opening only",
    )
    ledger.add(
        "retained.mode",
        said.terms.mode in policy.modes,
        f"the policy in force still has the mode {said.terms.mode}",
        otherwise=f"the policy in force no longer has the mode {said.terms.mode}",
    )
    ledger.add(
        "retained.trust-class",
        enrolment.predicate.trust_class in policy.host.trust_classes,
        f"trust class {enrolment.predicate.trust_class} is accepted",
        otherwise=f"trust class {enrolment.predicate.trust_class} is no longer accepted",
    )


def _check_state(
    ledger: Ledger,
    request: Statement[Request],
    golden: Statement[GoldenSet],
    pcr_digest: Digest,
    later: LaterState | None,
    situation: Situation,
) -> None:
    if later is None:
        _check_first_state(ledger, request, golden, pcr_digest)
    else:
        _check_later_state(ledger, request, golden, later, situation)


def _check_first_state(
    ledger: Ledger, request: Statement[Request], golden: Statement[GoldenSet], pcr_digest: Digest
) -> None:
    said = golden.predicate
    ledger.add(
        "retained.golden",
        golden.digest == request.predicate.golden
        and said.pcr_digest() == pcr_digest == request.predicate.terms.pcr_digest,
        f"kept for the boot state {said.name}, epoch {said.epoch}",
        otherwise="kept for another boot state than the request's",
    )
    ledger.skip("retained.line", "it is in the boot state it was released to")
    ledger.skip("retained.authorised", "the quorum released it to this boot state itself")


def _check_later_state(
    ledger: Ledger,
    request: Statement[Request],
    golden: Statement[GoldenSet],
    later: LaterState,
    situation: Situation,
) -> None:
    said, line = golden.predicate, later.line
    ledger.add(
        "retained.golden",
        request.predicate.terms.mode == "sealed-updatable",
        "the quorum consented to boot states that enrollers authorise later",
        otherwise="the quorum consented to one boot state only",
    )
    ledger.add(
        "retained.line",
        said.environment == line.environment.hex() == situation.trusted.genesis
        and said.name == line.name
        and line.epoch < said.epoch
        and line.covers(said.epoch),
        f"epoch {said.epoch} of {said.name} follows epoch {line.epoch}",
        otherwise=f"epoch {said.epoch} of {said.name} is not among the {EPOCHS - 1} that follow "
        f"epoch {line.epoch} of {line.name}",
    )
    ledger.add(
        "retained.registers",
        said.selection() == situation.trusted.policy.host.pcrs,
        "it is over exactly the policy's registers",
        otherwise="it is over other registers than the policy's",
    )
    who = ", ".join(sorted(later.enrollers)) or "nobody"
    ledger.add(
        "retained.authorised",
        len(set(later.enrollers)) >= later.needed,
        f"authorised for kept keys by {who}",
        otherwise=f"epoch {said.epoch} of {said.name} was authorised for kept keys by {who}; "
        f"it needs {later.needed} of {', '.join(later.among)}",
    )


def later_states(
    line: Line, pcr_digest: Digest, situation: Situation
) -> tuple[Statement[GoldenSet], ...]:
    """Return the vouched golden sets a host may be in by these values, newest epoch first.

    A draft or a forgery in the folder must not be chosen, nor hide what is good.
    """
    found = [
        golden
        for golden in followers(line, situation)
        if golden.predicate.pcr_digest() == pcr_digest and line.covers(golden.predicate.epoch)
    ]
    return tuple(sorted(found, key=lambda golden: -golden.predicate.epoch))


def followers(line: Line, situation: Situation) -> Iterator[Statement[GoldenSet]]:
    """Give the golden sets that enough enrollers say follow a line's first epoch."""
    policy = situation.trusted.policy
    for golden in situation.documents.golden_sets:
        said = golden.predicate
        if (said.environment, said.name) != (line.environment.hex(), line.name):
            continue
        if said.epoch <= line.epoch or said.selection() != policy.host.pcrs:
            continue
        needed = policy.thresholds.golden
        if not count_signers(golden.envelope, policy, role="enroller", needed=needed).missing:
            yield golden
