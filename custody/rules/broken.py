"""Was it logged that the glass was broken?  Protocol section 7, "Breaking the glass"."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from custody.encoding import Digest, format_time
from custody.errors import Malformed, Refused
from custody.formats.case import EntryProof, find
from custody.formats.envelope import Statement
from custody.formats.logentry import entry_of
from custody.formats.logpolicy import LogPolicy
from custody.formats.manifest import Manifest
from custody.formats.policy import Policy
from custody.formats.recovery import BreakGlass
from custody.rules.heads import goes_with
from custody.rules.logged import judge_head, links_by, moment_of
from custody.rules.manifest import SKEW
from custody.rules.situation import Situation
from custody.rules.trust import check_author
from custody.rules.verdicts import Ledger, Verdict, passed


def check_broken(
    broken: Statement[BreakGlass], policy: Policy, situation: Situation
) -> tuple[Verdict, ...]:
    """Judge whether the log that ``policy`` demands has a custodian's statement.

    A proof among the documents shows it (``recovery.logged``), with a head by that log and the
    witnesses demanded, which goes with what was seen of it.  Who signed the statement is another
    question.
    """
    ledger, log = Ledger(subject="break-glass"), policy.log_policy()
    if log is None:
        ledger.skip("recovery.logged", "the policy demands no log")
        return ledger.done()
    entry, fault = entry_of(broken.envelope), "is not shown to be logged, which the policy demands"
    for given in situation.documents.proofs:
        if given.entry != entry:
            continue
        try:
            by = _check_proof(given, log, situation)
        except (Malformed, Refused) as error:
            # Passed over: whoever can add a file could otherwise stop a recovery by a bad one.
            fault = f"is not shown to be logged: {error.reason}"
            continue
        said_at = broken.predicate.opened_at
        where = f"entry {given.proof.index} of {log.logs[0].key.name}"
        ledger.add("recovery.logged", True, f"the broken glass is {where}")
        if by is None:
            ledger.skip("recovery.log-time", "no witness states a time: it is claimed")
        else:
            ledger.add(
                "recovery.log-time",
                said_at <= by + SKEW,
                f"logged by {format_time(by)}",
                otherwise=f"says it was made {format_time(said_at)}, but was logged by "
                f"{format_time(by)}",
            )
        return ledger.done()
    ledger.add("recovery.logged", False, f"the statement that the glass was broken {fault}")
    return ledger.done()


def _check_proof(given: EntryProof, log: LogPolicy, situation: Situation) -> datetime | None:
    """Hold a proof against the log's head and history; return by when the statement was there."""
    signed, seen = given.proof.signed, situation.seen
    by = moment_of(judge_head(log, signed))
    given.proof.check_entry(given.entry.encode())
    if seen is not None and seen.checkpoint.origin == signed.checkpoint.origin:
        links = situation.links
        if links is None:
            links = links_by(log, situation.documents)
        if not goes_with(signed.checkpoint, seen.checkpoint, links):
            raise Refused(
                f"nothing proves that its proof's {signed.checkpoint.size} entries and the"
                f" {seen.checkpoint.size} seen here are one history: custody log consistency",
                check="recovery.continuity",
            )
    return by


def judge_rewraps(ledger: Ledger, manifest: Statement[Manifest], situation: Situation) -> None:
    """Judge whether each breaking of the glass that a manifest comes of was logged.

    Back to what was sealed anew: in the log of the policy in force, or of the version that each was
    re-wrapped under.
    """
    later: Statement[Manifest] | None = manifest
    while later is not None:
        core = later.predicate.core
        old = None if core.replaces is None else find(situation.documents.manifests, core.replaces)
        made_under = situation.trusted.version(core.policy_version)
        words = () if made_under is None else _words(later, made_under, situation)
        # The version is the publisher's to write: an old one would be a way round the log.
        policies = [situation.trusted.policy, *([] if made_under is None else [made_under])]
        demanding = [policy for policy in policies if policy.log_policy() is not None]
        if not words and (old is None or old.predicate.core.payload_id != core.payload_id):
            if demanding and core.replaces is not None and old is None:
                which = f"replaces {core.replaces[:16]}…, which is not here"
                ledger.skip("recovery.logged", f"{which}: whether it is re-wrapped is not shown")
            return
        if demanding:
            _judge_words(ledger, words, demanding, situation)
        later = old


def _judge_words(
    ledger: Ledger,
    words: Sequence[Statement[BreakGlass]],
    demanding: Sequence[Policy],
    situation: Situation,
) -> None:
    if not words:
        ledger.add(
            "recovery.logged",
            False,
            "re-wrapped, and no custodian's word that the glass was broken for it is here",
        )
        return
    judged = [check_broken(said, policy, situation) for said in words for policy in demanding]
    ledger.extend(next((verdicts for verdicts in judged if passed(verdicts)), judged[0]))


def _words(
    manifest: Statement[Manifest], policy: Policy, situation: Situation
) -> tuple[Statement[BreakGlass], ...]:
    """Return what custodians stated of the breaking of the glass that a manifest came of."""
    core = manifest.predicate.core
    made = (core.replaces, core.binding().hex(), core.environment)
    return tuple(
        broken
        for broken in situation.documents.broken
        if made == _about(broken.predicate) and _is_custodians(broken, policy)
    )


def _about(said: BreakGlass) -> tuple[Digest, Digest, Digest]:
    return said.manifest, said.replacement, said.environment


def _is_custodians(broken: Statement[BreakGlass], policy: Policy) -> bool:
    _, _, verdicts = check_author(
        broken, policy, role="custodian", check="recovery", subject="break-glass"
    )
    return passed(verdicts)
