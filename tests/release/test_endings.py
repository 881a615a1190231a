"""A request that can be opened no more says so, and how it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from custody.errors import Refused
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, incomplete, opened, refused


def test_a_dead_request_waits_for_nobody(cast: Cast, tmp_path: Path) -> None:
    """After a reboot it is the reboot that is told, not the answers that are missing."""
    bundle = cast.seal()
    request = cast.request(bundle)
    with incomplete(cast, "sec1", "sec2", "sec3", "lead1", "lead2"):
        cast.open(bundle, request, [], tmp_path / "out")
    cast.machine.reboot()
    cast.boot()
    with refused(cast, "tpm.rebooted"):
        cast.open(bundle, request, [], tmp_path / "out")


def test_what_a_forgotten_request_died_of_is_remembered(cast: Cast, tmp_path: Path) -> None:
    """The next request forgets a dead one, and still says that its boot is over."""
    bundle = cast.seal()
    request = cast.request(bundle)
    cast.machine.reboot()
    cast.boot()
    again = cast.request(bundle)
    assert [again.digest] == [entry.request for entry in cast.place.ledger.all()]
    with refused(cast, "tpm.rebooted"):
        cast.open(bundle, request, [], tmp_path / "out")


def test_an_opened_request_says_when_and_where_its_receipt_is(cast: Cast, tmp_path: Path) -> None:
    """Opening twice is refused with the moment of the first time and the receipt's path."""
    bundle, request, answers, _ = opened(cast)
    with pytest.raises(Refused) as caught:
        cast.open(bundle, request, answers, tmp_path / "again")
    assert "host.ended" == caught.value.check
    assert f"was opened at {NOW:%Y-%m-%dT%H:%M:%SZ}" in caught.value.reason
    assert f"custody host receipt {request.digest[:16]}" in str(caught.value.hint)


def test_denials_put_a_request_out_of_reach(cast: Cast, tmp_path: Path) -> None:
    """One denial of three leaves two to wait for; two of three leave nothing to wait for."""
    bundle = cast.seal()
    request = cast.request(bundle)
    denials = [cast.deny(bundle, request, who) for who in ("sec1", "sec2")]
    with incomplete(cast, "sec2", "sec3", "lead1", "lead2"):
        cast.open(bundle, request, denials[:1], tmp_path / "out")
    with refused(cast, "quorum.denied"):
        cast.open(bundle, request, denials, tmp_path / "out")


def test_a_complete_quorum_opens_over_any_denial(cast: Cast, tmp_path: Path) -> None:
    """Denials of those whom the quorum does without put nothing out of reach."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    answers += [cast.deny(bundle, request, who) for who in ("sec2", "lead1")]
    assert set(QUORUM) == set(cast.open(bundle, request, answers, tmp_path / "out").officers)
