"""What a host would run that has thrown away every check of ours.

`take_everything` replaces the rules by yes-to-everything; `force` makes the adapter drive the TPM
past what `tpmpolicy.steps` calls incomplete; `force_combine` adds up whatever shares there are.
What still refuses is the TPM, or arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest

from custody.crypto import shamir, tpmpolicy
from custody.crypto.quorum import Node, Person, Threshold
from custody.crypto.tpmpolicy import Signed, Step
from custody.errors import CustodyError
from custody.formats.envelope import Statement
from custody.formats.manifest import Manifest
from custody.formats.request import Request
from custody.keys.hostapi import HostPolicyPlan
from custody.ops.receipts import Burnt
from custody.rules import release
from custody.rules.approvals import JudgedApproval, Tally
from custody.rules.release import Answers, Judgement, VerifiedRelease
from custody.rules.situation import Situation

#: A tree's steps, as `tpmpolicy.steps` gives them.
Steps = Callable[..., tuple[Step, ...]]
#: What to do about a leaf that has not signed.
#: ``omit``     run PolicyOR over the branches anyway
#: ``repeat``   show another officer's signature twice, then PolicyOR
#: ``relabel``  show another officer's signature as the missing one's
#: ``no-or``    leave out the PolicyOR of a node that is not satisfied, and use the key
#: ``or-only``  sign nothing, run every PolicyOR
Trick = Literal["omit", "repeat", "relabel", "no-or", "or-only"]
TRICKS: tuple[Trick, ...] = ("omit", "repeat", "relabel", "no-or", "or-only")


def take_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace `judge` and `verified` by yes, and the burn by nothing."""

    def judge(
        manifest: Statement[Manifest],
        request: Statement[Request],
        answers: Answers,
        situation: Situation,
    ) -> Judgement:
        # Not `answers`: choosing those of this request is a check of ours, too.
        counted = tuple(
            JudgedApproval(
                statement=approval,
                officer="anybody",
                key=approval.envelope.signatures[0].keyid,
                verdicts=(),
            )
            for approval in situation.documents.approvals
        )
        everything = Tally(counted=counted, passed_over=(), denials=(), missing=())
        return Judgement(manifest=manifest, request=request, verdicts=(), tally=everything)

    def verified(judgement: Judgement) -> VerifiedRelease:
        return VerifiedRelease(release._TOKEN, judgement)

    monkeypatch.setattr("custody.ops.released.judge", judge)
    monkeypatch.setattr("custody.ops.released.verified", verified)
    monkeypatch.setattr("custody.ops.open.burn", lambda *_, **__: Burnt(0, b""))


def forced(trick: Trick) -> Steps:
    """Return a `tpmpolicy.steps` that never finds anything incomplete."""

    def steps(
        tree: Node, have: Collection[str], *, names: Mapping[str, bytes], ref: bytes
    ) -> tuple[Step, ...]:
        done: list[Step] = []
        _Force(tpmpolicy._Fold(names, ref), frozenset(have), trick).walk(
            tree, "", tpmpolicy.EMPTY, done
        )
        return tuple(done)

    return steps


class _Force:
    def __init__(self, fold: tpmpolicy._Fold, have: frozenset[str], trick: Trick) -> None:
        self.fold, self.have, self.trick = fold, have, trick

    def walk(self, node: Node, path: str, start: bytes, done: list[Step]) -> bytes:
        """Append the steps; return the digest the policy would have had after them."""
        if isinstance(node, Person):
            if self.trick != "or-only":
                if path in self.have:
                    done.append(Signed(path))
                elif self.trick in {"repeat", "relabel"} and self.have:
                    # `relabelled` loads the missing officer's key beside another's signature.
                    done.append(Signed(path if self.trick == "relabel" else min(self.have)))
            return self.fold.digest(node, path, start)
        # The subset that comes closest, so that nothing but what is missing stands in the way.
        chosen = max(
            tpmpolicy._subsets(node),
            key=lambda subset: sum(
                self._signed(node.of[index], tpmpolicy._below(path, index)) for index in subset
            ),
        )
        digest = start
        for index in chosen:
            digest = self.walk(node.of[index], tpmpolicy._below(path, index), digest, done)
        skip = self.trick == "no-or" and not tpmpolicy._holds(node, path, self.have)
        position = list(tpmpolicy._subsets(node)).index(chosen)
        branches = self.fold._branches(node, path, start)
        if not skip:
            done += tpmpolicy.join_steps(branches, position)
        return tpmpolicy.join(branches)

    def _signed(self, node: Node, path: str) -> float:
        """Say how much of a branch is signed, from 0 to 1."""
        if isinstance(node, Person):
            return float(path in self.have)
        parts = [
            self._signed(child, tpmpolicy._below(path, index))
            for index, child in enumerate(node.of)
        ]
        return sum(sorted(parts, reverse=True)[: node.k]) / node.k


def force(monkeypatch: pytest.MonkeyPatch, trick: Trick) -> None:
    """Make the TPM adapter run the policy with what signatures there are."""
    monkeypatch.setattr(tpmpolicy, "steps", forced(trick))
    if trick == "relabel":
        from custody.keys import tpm_hostkey

        real = tpm_hostkey._policy_signed

        def relabelled(link: Any, session: Any, plan: HostPolicyPlan, leaf: str) -> None:
            if leaf not in plan.signatures:
                borrowed = plan.signatures[min(plan.signatures)]
                plan = replace(plan, signatures={**plan.signatures, leaf: borrowed})
            real(link, session, plan, leaf)

        monkeypatch.setattr(tpm_hostkey, "_policy_signed", relabelled)


def refused_by_tpm(error: BaseException | None) -> bool:
    """Tell whether the first cause of an error is a response code that the TPM itself gave."""
    from tpm2_pytss import TSS2_Exception

    from custody.keys.tpm_errors import code

    while error is not None:
        if isinstance(error, TSS2_Exception):
            return code(error) != 0
        error = error.__cause__
    return False


def reason(error: CustodyError) -> str:
    """Say what refused, for a failing assertion."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(repr(cause))
        cause = cause.__cause__
    return " <- ".join(causes)


def force_combine(node: Node, shares: Mapping[str, bytes], path: str = "") -> bytearray:
    """Add up whatever shares there are; a node that has none is guessed to be zeros."""
    if isinstance(node, Person):
        return bytearray(shares.get(path, bytes(32)))
    points = [
        (index + 1, force_combine(child, shares, below))
        for index, child in enumerate(node.of)
        if _any_below(child, below := tpmpolicy._below(path, index), shares)
    ]
    if not points:
        return bytearray(32)
    if node.k == 1:
        return points[0][1]
    if len(points) == 1:
        points.append((255, bytearray(32)))
    return shamir.combine(points[: node.k])


def _any_below(node: Node, path: str, shares: Mapping[str, bytes]) -> bool:
    if isinstance(node, Person):
        return path in shares
    return any(
        _any_below(child, tpmpolicy._below(path, index), shares)
        for index, child in enumerate(node.of)
    )


def flat(k: int, *names: str) -> Threshold:
    """Return k-of-n over persons."""
    return Threshold(k=k, of=tuple(Person(principal=name) for name in names))
