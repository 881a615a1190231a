"""A host opens by what holds once the PIN is given that it waited for, of a site's HSM or its own.

Real tokens (SoftHSM) and a TPM (swtpm), typed at a terminal.
"""

from __future__ import annotations

import pytest

from tests.release.test_changes import Years
from tests.release.test_site_commands import AT_HOST, sited
from tests.release.waiting import HOUR, forgetful, type_late

__all__ = ["sited"]


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
