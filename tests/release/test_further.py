"""Evidence of another kind, from a host's request to an auditor: demanded, judged, or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from custody.cli._ui import Screen
from custody.cli._words import show_review
from custody.errors import Refused
from custody.formats.envelope import Statement
from custody.formats.request import Further, Request
from custody.ops.approve import review_requests
from custody.ops.bundle import Bundle
from custody.ops.request import request_release
from custody.rules.further import FurtherVerifier
from custody.rules.request import check_request
from tests.release.cast import Cast
from tests.release.expect import QUORUM, audit, case_of, refused

GPU = "tag:example.com,2027:gpu"
SHOWN = (Further(type=GPU, evidence=b"good H100"),)


class Saying:
    """A verifier of the tests alone."""

    def verify(self, evidence: bytes, *, request: Statement[Request], now: datetime) -> str:
        if not evidence.startswith(b"good "):
            raise Refused("says that it is bad", check="test.evidence")
        return evidence.decode().removeprefix("good ")


def ask(
    cast: Cast,
    bundle: Bundle,
    *further: Further,
    verifiers: Mapping[str, FurtherVerifier] | None = None,
) -> Statement[Request]:
    """Ask for a bundle, with more evidence than the TPM's."""
    return request_release(
        bundle.statement,
        situation=replace(cast.situation("host"), verifiers=verifiers or {}),
        tpm=cast.tpm,
        place=cast.place,
        event_log=cast.event_log,
        further=further,
    ).statement


def demand(cast: Cast) -> None:
    """Put a policy in force that demands it."""
    host = msgspec.structs.replace(cast.make_policy().host, further=(GPU,))
    cast.next_policy(host=host)


def test_what_nobody_demands_and_nobody_can_judge_is_said_so(cast: Cast, tmp_path: Path) -> None:
    """A release goes on with it, and the audit says that it was not judged."""
    bundle = cast.seal()
    request = ask(cast, bundle, *SHOWN)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    report = audit(cast, case_of(cast, bundle, request, answers, opened))
    assert report.sound
    (said,) = [v for v in report.releases[0].verdicts if v.check == "further.verifier"]
    assert ("not-applicable", f"{GPU}: not judged") == (said.outcome, said.reason)


def test_an_officer_reads_that_it_was_not_judged(
    cast: Cast, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody looked at is not left out of what he reads before he consents."""
    bundle = cast.seal()
    request = ask(cast, bundle, *SHOWN)
    review = review_requests(bundle, [request], situation=cast.situation("sec1"))
    show_review(Screen(as_json=False), review, checks=False)
    assert f"further    {GPU}: not judged\n" in capsys.readouterr().out


def test_what_is_demanded_must_be_there_and_be_judged(cast: Cast) -> None:
    """A host that shows nothing, or whose judges have no verifier, makes no request."""
    demand(cast)
    bundle = cast.seal()
    with refused(cast, "further.demanded"):
        ask(cast, bundle, verifiers={GPU: Saying()})
    with refused(cast, "further.verifier"):
        ask(cast, bundle, *SHOWN)
    bad = Further(type=GPU, evidence=b"bad")
    with refused(cast, "further.evidence"):
        ask(cast, bundle, bad, verifiers={GPU: Saying()})


@pytest.mark.parametrize("verifiers", [{}, {GPU: Saying()}], ids=["none", "one"])
def test_each_judge_brings_his_own_verifier(
    cast: Cast, verifiers: Mapping[str, FurtherVerifier]
) -> None:
    """That the host could judge it helps no officer who cannot."""
    demand(cast)
    bundle = cast.seal()
    request = ask(cast, bundle, *SHOWN, verifiers={GPU: Saying()})
    situation = replace(cast.situation("sec1"), verifiers=verifiers)
    verdicts = check_request(request, bundle.statement, situation)
    failed = {v.check for v in verdicts if v.outcome == "fail"}
    assert (set() if verifiers else {"further.verifier"}) == failed
