"""THE pipeline: manifest, policy, request, answers, revocations and a moment, in; a release, out.

`custody host open` and `custody auditor verify` both call it, and there is no second copy of any
check.  A `VerifiedRelease` cannot be had in any other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from custody.errors import Incomplete, Refused
from custody.formats.approval import Approval, Denial
from custody.formats.asking import Asking
from custody.formats.envelope import Statement
from custody.formats.logged import Logged
from custody.formats.manifest import Manifest
from custody.rules.approvals import JudgedApproval, Tally, tally
from custody.rules.asking import check_asked
from custody.rules.logged import JudgedLogged, judge_logged
from custody.rules.manifest import check_manifest
from custody.rules.situation import Situation
from custody.rules.verdicts import Verdict, require

_TOKEN = object()


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What officers, and a log, said to one request, as it came.

    ``ended_at`` is for who looks back: when the host says that it opened.
    """

    approvals: Sequence[Statement[Approval]]
    denials: Sequence[Statement[Denial]]
    logged: Sequence[Statement[Logged]] = ()
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Every verdict on one release, and where its quorum stands.

    ``log`` is the log whose word is needed, None where none is; ``logged`` is what it said, the
    good first.
    """

    manifest: Statement[Manifest]
    request: Statement[Asking]
    verdicts: tuple[Verdict, ...]
    tally: Tally
    log: str | None = None
    logged: tuple[JudgedLogged, ...] = ()

    @property
    def unlogged(self) -> bool:
        """Whether the policy demands a log's word, and there is no good one."""
        return self.log is not None and not any(word.counts for word in self.logged)


class VerifiedRelease:
    """A release every check of which held.  Only `verified` makes one.

    ``approvals`` has one approval of each officer who gave any; ``spares`` the others that are
    good too, for when the share in the first one is not.  ``logged`` is a log's word on it, where
    one is needed.
    """

    __slots__ = ("approvals", "judgement", "logged", "manifest", "request", "spares")

    def __init__(self, token: object, judgement: Judgement) -> None:
        if token is not _TOKEN:
            raise AssertionError("internal: a verified release comes from the pipeline only")
        self.judgement = judgement
        self.manifest: Statement[Manifest] = judgement.manifest
        self.request: Statement[Asking] = judgement.request
        self.approvals: tuple[JudgedApproval, ...] = judgement.tally.counted
        self.spares = tuple(over for over in judgement.tally.passed_over if over.counts)
        self.logged: JudgedLogged | None = next(iter(judgement.logged), None)


def judge(
    manifest: Statement[Manifest],
    request: Statement[Asking],
    answers: Answers,
    situation: Situation,
) -> Judgement:
    """Judge a release, writing down every check, whatever the outcome."""
    # 1. The policy in force, by which everything else is judged.
    verdicts = [*situation.trusted.verdicts]
    # 2. The manifest: publisher, certificate, environment, withdrawal, expiry, sealing.
    verdicts += check_manifest(manifest, situation)
    # 3. The request: what it names, who vouches for the host, its evidence.
    verdicts += check_asked(request, manifest, situation)
    # 4. The log's word, where the policy demands one; what does not hold of it is passed over.
    log = situation.trusted.policy.log_key()
    said = [judge_logged(word, request, situation) for word in answers.logged] if log else []
    good = [word for word in said if word.counts]
    verdicts += [verdict for word in good for verdict in word.verdicts]
    # 5. The answers: which count, and what is missing.
    return Judgement(
        manifest=manifest,
        request=request,
        verdicts=tuple(verdicts),
        tally=tally(
            answers.approvals,
            answers.denials,
            request,
            manifest,
            situation,
            logged=good,
            ended_at=answers.ended_at,
        ),
        log=log.name if log else None,
        logged=(*good, *(word for word in said if not word.counts)),
    )


def verified(judgement: Judgement) -> VerifiedRelease:
    """Return the release if every check held, the quorum is complete, and the log has signed.

    Raises `Refused` with the first failed check or when too many have denied, `Incomplete` with
    who is missing.
    """
    check_agreed(judgement)
    if judgement.unlogged:
        # Of what there is, none is good; why the first is bad says more than that one is missing.
        for word in judgement.logged:
            require(word.verdicts)
        raise Incomplete(
            f"{judgement.log} has not signed these terms, which the policy demands",
            missing=("the log's signature",),
            where=f"request of {judgement.request.predicate.host}",
            hint="custody log countersign --help",
        )
    return VerifiedRelease(_TOKEN, judgement)


def check_agreed(judgement: Judgement) -> None:
    """Raise as `verified` does unless everything holds but, perhaps, the log's signature."""
    require(judgement.verdicts)
    tally, where = judgement.tally, f"request of {judgement.request.predicate.host}"
    if not tally.complete and tally.out_of_reach:
        deniers = sorted({d.officer for d in tally.denials if d.counts})
        raise Refused(
            f"quorum: out of reach, {', '.join(deniers)} denied these terms",
            check="quorum.denied",
            where=where,
            hint="it can be opened no more; ask again: custody host request",
        )
    if not tally.complete and tally.unconsented:
        raise unconsented(tally, where)
    if not tally.complete:
        words = "; ".join(f"{gap.needed} more of {', '.join(gap.among)}" for gap in tally.missing)
        raise Incomplete(
            f"quorum: {words} must approve",
            missing=[name for gap in tally.missing for name in gap.among],
            where=where,
            hint="custody officer status shows who has approved",
        )


def unconsented(tally: Tally, where: str) -> Incomplete:
    """Say who must consent before anybody opens a share."""
    gaps = tally.unconsented
    words = "; ".join(f"{gap.needed} more of {', '.join(gap.among)}" for gap in gaps)
    return Incomplete(
        f"consents: {words} must consent before anybody approves",
        missing=[name for gap in gaps for name in gap.among],
        where=where,
        hint="custody officer consent --help",
    )
