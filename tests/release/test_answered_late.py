"""An officer at a terminal: what ended while it waited for him, and what he has said before.

Real tokens (SoftHSM), typed at a pty.  Only the clock is moved: hours go by between the question
and its answer.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

import pytest

from custody.encoding import utc_now
from custody.formats.approval import Approval, Denial
from custody.formats.envelope import decode_statement
from custody.formats.keyrequest import Consent
from tests.release.test_key_host_commands import Hosted, hosted
from tests.release.waiting import HOUR, Typed, type_late

__all__ = ["hosted"]


def typed(years: Hosted, who: str, *words: str, waits: int, answer: str = "y") -> Typed:
    """Run an officer's command at a terminal, where each question waits ``waits`` seconds."""
    return type_late(years.world[who], "officer", *words, waits=waits, answer=answer)


@pytest.fixture
def asked(hosted: Hosted) -> tuple[Hosted, str, str]:
    """A bundle and a request for it."""
    bundle = hosted.fresh("late")
    hosted.seal(bundle)
    return hosted, bundle, hosted.ask_by_key(bundle)


def answers(years: Hosted, request: str, kind: str) -> list[Path]:
    """List the answers of one kind to a request."""
    return sorted((years.folder / f"answers-{request}").glob(f"*.{kind}.dsse"))


def words(verb: str, bundle: str, request: str, *more: str) -> tuple[str, ...]:
    """Write an officer's command without ``--yes``."""
    return (verb, bundle, request, "--out", f"answers-{request}", *more)


def test_a_yes_given_late_opens_no_share_by_consents_that_have_ended(
    asked: tuple[Hosted, str, str],
) -> None:
    """Shown while a quorum's consents held, answered when they do no more: nothing is approved."""
    years, bundle, request = asked
    for who in ("sec1", "sec2"):
        years.run(who, "officer", *words("consent", bundle, request), "--hours", "0.5", "--yes")
    late = typed(years, "sec1", *words("approve", bundle, request), waits=HOUR)
    assert "approve 1 request? [y/N]: y" in late.shown
    assert "judged anew, as of the answer" in late.shown
    assert "must consent before anybody approves" in late.shown
    assert (4, []) == (late.code, answers(years, request, "approval"))
    soon = typed(years, "sec1", *words("approve", bundle, request), waits=1)
    assert (0, 1) == (soon.code, len(answers(years, request, "approval")))
    assert "judged anew" not in soon.shown


@pytest.mark.parametrize("verb", ["consent", "approve"])
def test_a_yes_given_late_answers_no_request_whose_deadline_is_past(
    asked: tuple[Hosted, str, str], verb: str
) -> None:
    """A terminal left open past the request's deadline gives no answer to it."""
    years, bundle, request = asked
    if verb == "approve":
        for who in ("sec1", "sec2"):
            years.answer(who, "consent", bundle, request)
    late = typed(years, "sec1", *words(verb, bundle, request), waits=100 * HOUR)
    assert "its deadline is past" in late.shown
    kind = {"consent": "consent", "approve": "approval"}[verb]
    mine = [path for path in answers(years, request, kind) if ".sec1." in path.name]
    assert (1, []) == (late.code, mine if verb == "consent" else answers(years, request, kind))


@pytest.mark.parametrize("verb", ["consent", "deny"])
def test_a_yes_given_late_is_under_no_policy_that_has_ended(
    asked: tuple[Hosted, str, str], verb: str
) -> None:
    """Nor is anything answered by a policy that ended meanwhile; a denial neither."""
    years, bundle, request = asked
    more = ("--reason", "no") if verb == "deny" else ()
    if verb == "deny":
        # Then there is a question to wait at.
        years.answer("sec1", "consent", bundle, request)
    late = typed(years, "sec1", *words(verb, bundle, request, *more), waits=800 * 24 * HOUR)
    assert "not in force at" in late.shown.partition("[y/N]: y")[2]
    kind = "denial" if verb == "deny" else "consent"
    left = answers(years, request, kind)
    assert (1, []) == (late.code, left)


def test_answers_bear_the_time_of_the_yes(asked: tuple[Hosted, str, str]) -> None:
    """Ten minutes at a question are no part of an answer's life, and no answer is dated back."""
    years, bundle, request = asked
    begun = utc_now()
    typed(years, "sec2", *words("consent", bundle, request), waits=600)
    typed(years, "sec2", *words("deny", bundle, request, "--reason", "no"), waits=1200)
    (consent,), (denial,) = (answers(years, request, kind) for kind in ("consent", "denial"))
    given = decode_statement(Consent, consent.read_bytes()).predicate
    assert timedelta(seconds=600) <= given.consented_at - begun < timedelta(seconds=900)
    assert timedelta(hours=24) == given.expires_at - given.consented_at
    refused = decode_statement(Denial, denial.read_bytes()).predicate
    assert timedelta(seconds=1200) <= refused.denied_at - begun < timedelta(seconds=1500)


def test_nobody_withdraws_his_yes_without_being_told(asked: tuple[Hosted, str, str]) -> None:
    """Who consented or approved before is told in words before he denies, and asked."""
    years, bundle, request = asked
    for who in ("sec1", "sec2"):
        years.answer(who, "consent", bundle, request)
    deny = words("deny", bundle, request, "--reason", "on second thoughts")
    no = typed(years, "sec2", *deny, waits=0, answer="n")
    told = "you consented to mainframe's request; denied, that counts no more where both are seen"
    assert told in no.shown.partition("withdraw your consent? [y/N]: ")[0]
    assert (1, []) == (no.code, answers(years, request, "denial"))
    years.answer("sec1", "approve", bundle, request)
    assert 1 == len(answers(years, request, "approval"))
    both = typed(years, "sec1", *deny, waits=0, answer="n")
    asks = both.shown.partition("withdraw your consent and approval? [y/N]: ")
    assert told in asks[0]
    assert told.replace("consented to", "approved") in asks[0]
    stranger = years.run("sec3", "officer", *deny)
    assert "you " not in stranger.stderr


def test_a_yes_of_another_home_is_known_by_the_files(asked: tuple[Hosted, str, str]) -> None:
    """An officer with a second token, or a new home, is told by what lies among the answers; and
    with --json as an event.
    """
    years, bundle, request = asked
    for who in ("sec1", "sec2"):
        years.answer(who, "consent", bundle, request)
    years.answer("sec1", "approve", bundle, request)
    rmtree(years.world["sec1"].home / "answers")
    deny = words("deny", bundle, request, "--reason", "no")
    refused = years.run("sec1", "officer", *deny, code=1).stderr
    assert "nobody is there to ask: withdraw your consent and approval?" in refused
    elsewhere = ("deny", bundle, request, "--reason", "no", "--out", "elsewhere")
    shown = years.run(
        "sec1", "officer", *elsewhere, "--answers", f"answers-{request}", "--yes", "--json"
    )
    events = [json.loads(line) for line in shown.stderr.splitlines()]
    said = [event["text"] for event in events if event["event"] == "message"]
    assert [True, True] == [text.startswith("you ") for text in said[:2]]
    (approval,) = answers(years, request, "approval")
    assert decode_statement(Approval, approval.read_bytes()).predicate.request
    assert 1 == len(json.loads(shown.stdout)["files"])
