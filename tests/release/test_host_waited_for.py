"""A host opens by what holds once the PIN is given that it waited for, of a site's HSM or its own.

Real tokens (SoftHSM) and a TPM (swtpm), typed at a terminal.
"""

from __future__ import annotations

import pytest

from custody.encoding import utc_now
from custody.formats.envelope import decode_statement
from custody.formats.keyrequest import KeyRequest
from tests.release.test_changes import Years
from tests.release.test_key_host_commands import HOST, Hosted, both, hosted
from tests.release.test_site_commands import AT_HOST, sited
from tests.release.waiting import DAY, HOUR, Typed, forgetful, type_late

__all__ = ["hosted", "sited"]


@pytest.mark.parametrize("verb", ["open", "read"])
def test_a_sites_pin_given_late_opens_nothing_by_approvals_that_have_ended(
    sited: Years, verb: str
) -> None:
    """Approvals ended while the site's PIN was waited for: no model; its key is asked for nothing.

    Given in time, by the same approvals, it opens.
    """
    bundle, out, actor = sited.fresh("bundle"), sited.fresh("opened"), sited.world["fra1"]
    sited.seal(bundle, "--site", "fra1")
    request, _ = sited.ask(bundle)
    for who in ("sec1", "sec2"):
        sited.approve(who, bundle, request)
    where = (*AT_HOST, "--tpm", sited.tpm, "--site", forgetful(actor))
    more = ("--out", out) if verb == "open" else ("weights", "--receipt", out)
    words = ("host", verb, bundle, request, *more, "--answers", f"answers-{request}", *where)
    late = type_late(actor, *words, waits=30 * HOUR, piped=verb == "read")
    assert "PIN of token fra1" in late.shown
    assert "judged anew, as of the answer" in late.shown
    assert "missing: sec2" in late.shown
    assert (4, False) == (late.code, (sited.folder / out).exists())
    soon = type_late(actor, *words, waits=1, piped=verb == "read")
    assert (0, True) == (soon.code, (sited.folder / out).exists()), soon.shown


def late(years: Hosted, *words: str, waits: int, piped: bool = False) -> Typed:
    """Run a command of the host without a TPM, whose PIN is typed."""
    actor = years.world[HOST]
    home = forgetful(actor)
    return type_late(actor, "host", *words, waits=waits, home=home, piped=piped)


@pytest.fixture(scope="module")
def asked(hosted: Hosted) -> tuple[Hosted, str, str]:
    """A bundle, and a request that its officers have answered in both rounds.

    It is made by a PIN that was waited for.
    """
    bundle, request, begun = "by-key", "by-key.dsse", utc_now()
    hosted.seal(bundle)
    made = late(hosted, "request-by-key", bundle, "--out", request, waits=HOUR)
    assert 0 == made.code, made.shown
    said = decode_statement(KeyRequest, (hosted.folder / request).read_bytes()).predicate
    assert HOUR <= (said.requested_at - begun).total_seconds() < 2 * HOUR
    request = hosted.ask_by_key(bundle)
    both(hosted, bundle, request)
    return hosted, bundle, request


@pytest.mark.parametrize(
    ("days", "said"),
    [(2, "its deadline is past"), (800, "not in force at")],
    ids=["deadline", "policy"],
)
@pytest.mark.parametrize("verb", ["open-by-key", "read"])
def test_a_hosts_own_pin_given_late_opens_nothing_by_what_has_ended(
    asked: tuple[Hosted, str, str], verb: str, days: int, said: str
) -> None:
    """Of a host without a TPM: judged as of its PIN, and the request stays unopened."""
    years, bundle, request = asked
    opening = verb == "open-by-key"
    more = ("--out", "opened-late") if opening else ("weights", "--receipt", "opened-late")
    words = (verb, bundle, request, *more, "--answers", f"answers-{request}")
    done = late(years, *words, waits=days * DAY, piped=not opening)
    assert f"PIN of token {HOST}" in done.shown
    assert "judged anew, as of the answer" in done.shown
    assert said in done.shown
    assert (1, False) == (done.code, (years.folder / "opened-late").exists())


def test_nothing_is_given_up_under_a_policy_that_has_ended(
    asked: tuple[Hosted, str, str],
) -> None:
    """Nor is it signed by then that a request was given up; in time it opens after all."""
    years, bundle, request = asked
    done = late(years, "end-by-key", request, "--out", "ended.dsse", waits=800 * DAY)
    assert "not in force at" in done.shown
    assert (1, False) == (done.code, (years.folder / "ended.dsse").exists())
    words = (bundle, request, "--out", "opened-soon", "--answers", f"answers-{request}")
    soon = late(years, "open-by-key", *words, waits=1)
    assert 0 == soon.code, soon.shown
