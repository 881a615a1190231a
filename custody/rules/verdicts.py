"""Verdicts: what was checked, how it came out, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from custody.errors import Malformed, Refused

Outcome = Literal["pass", "fail", "not-applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One check with a stable id.  ``subject`` names what it was about, where that is not plain."""

    check: str
    outcome: Outcome
    reason: str
    subject: str = ""


@dataclass(slots=True)
class Ledger:
    """Collects verdicts; what was not written down was not checked."""

    verdicts: list[Verdict] = field(default_factory=list)
    subject: str = ""

    def add(  # the outcome is what it is told: no default can turn a check off
        self,
        check: str,
        ok: bool,  # noqa: FBT001
        reason: str,
        *,
        otherwise: str | None = None,
    ) -> bool:
        """Write down one check: ``reason`` if it held, ``otherwise`` if not.  Returns ``ok``."""
        self.verdicts.append(
            Verdict(
                check=check,
                outcome="pass" if ok else "fail",
                reason=reason if ok else otherwise or reason,
                subject=self.subject,
            )
        )
        return ok

    def skip(self, check: str, reason: str) -> None:
        """Write down that a check does not apply, and why."""
        self.verdicts.append(
            Verdict(check=check, outcome="not-applicable", reason=reason, subject=self.subject)
        )

    def extend(self, verdicts: Iterable[Verdict]) -> None:
        """Take over the verdicts of another rule."""
        self.verdicts.extend(verdicts)

    @contextmanager
    def failing(self, check: str) -> Iterator[None]:
        """Turn a refusal or malformed bytes inside the block into a failed ``check``.

        Any other exception is a fault of ours and goes up: it must never read as "passed".
        """
        try:
            yield
        except (Refused, Malformed) as error:
            self.add(check, False, error.reason)

    @property
    def failed(self) -> tuple[Verdict, ...]:
        """The checks that did not hold."""
        return tuple(v for v in self.verdicts if v.outcome == "fail")

    def done(self) -> tuple[Verdict, ...]:
        """Return the verdicts; an empty list is a fault, never a pass."""
        if not self.verdicts:
            raise AssertionError("internal: a rule made no check")
        return tuple(self.verdicts)


def passed(verdicts: Iterable[Verdict]) -> bool:
    """Tell whether something was checked and nothing failed."""
    outcomes = [verdict.outcome for verdict in verdicts]
    return "pass" in outcomes and "fail" not in outcomes


def require(verdicts: Iterable[Verdict]) -> None:
    """Raise `Refused` with the first failed check; an empty list is refused too."""
    listed = list(verdicts)
    for verdict in listed:
        if verdict.outcome == "fail":
            where = verdict.subject or None
            raise Refused(verdict.reason, check=verdict.check, where=where)
    if not passed(listed):
        raise Refused("nothing was checked", check="verdicts.empty")
