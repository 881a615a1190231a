"""What a host's TPM shows at a request's end, and what an auditor makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from custody.crypto.bind import bind
from custody.encoding import key_id
from custody.errors import Incomplete, Refused
from custody.formats.burn import Burn
from custody.formats.envelope import (
    Signature,
    Statement,
    decode_statement,
    encode_statement,
    statement_digest,
)
from custody.formats.evidence import pack_quote, spki
from custody.formats.receipt import Receipt
from custody.formats.request import Request
from custody.ops.open import interrupted
from custody.ops.outstanding import DEATHS, Death
from custody.ops.receipts import attested_receipt, burn, end_dead, give_up
from custody.rules.burn import check_burn
from custody.rules.verdicts import passed
from tests.release.cast import NOW, Cast
from tests.release.expect import QUORUM, audit, case_of, failed, opened

File = tuple[str, bytes]


def certified(cast: Cast, said: Burn, index: int) -> bytes:
    """Have the TPM certify a counter as it stands, for whatever a host would say."""
    made = cast.tpm.certify_counter(index, bind("burn", bytes.fromhex(statement_digest(said))))
    keyid = key_id(spki(cast.tpm.ak_public()))
    sig = pack_quote(made.attest, made.signature)
    return encode_statement(said, [Signature(keyid=keyid, sig=sig)])


def ended(cast: Cast, request: Statement[Request]) -> list[File]:
    """Read what the host kept about a request's end."""
    place = cast.place
    return [
        ("receipt.dsse", place.receipt_path(request.digest).read_bytes()),
        ("burn.dsse", place.burn_path(request.digest).read_bytes()),
    ]


def test_an_opening_is_shown_to_be_burned(cast: Cast) -> None:
    """With its burn receipt a release is opened and burned; without, that is not shown."""
    bundle, request, answers, done = opened(cast)
    report = audit(cast, case_of(cast, bundle, request, answers, done))
    assert report.sound
    assert "opened-and-burned" == report.releases[0].outcome
    assert done.burn_data == cast.place.burn_path(request.digest).read_bytes()
    receipt = ("receipt.dsse", done.receipt_data)
    report = audit(cast, case_of(cast, bundle, request, answers, None, receipt))
    assert report.sound
    assert "opened-not-burned" == report.releases[0].outcome


@pytest.mark.parametrize("rebooted", [False, True])
def test_a_request_given_up_was_never_opened(cast: Cast, *, rebooted: bool) -> None:
    """A cancelled request leaves a receipt and a burn, also after the boot it died with."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    if rebooted:
        cast.machine.reboot()
        cast.boot()
    entry = cast.place.ledger.find(request.digest)
    give_up(entry, cast.tpm, cast.place, now=NOW)
    files = ended(cast, request)
    report = audit(cast, case_of(cast, bundle, request, answers, None, *files))
    assert set() == failed(report)
    assert "never-opened" == report.releases[0].outcome
    report = audit(cast, case_of(cast, bundle, request, answers, None, files[0]))
    assert "failed" == report.releases[0].outcome


def test_an_opening_that_a_reboot_interrupted_is_burned_later(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off between model and burn, the host burns in a later boot."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.open.burn", _cut)
        with pytest.raises(KeyboardInterrupt):
            cast.open(bundle, request, answers, tmp_path / "out")
    cast.machine.reboot()
    cast.boot()
    cast.machine.power_cut()
    entry = cast.place.ledger.find(request.digest)
    assert interrupted(entry, tmp_path / "out", cast.place)
    burn(entry, cast.tpm, cast.place, now=NOW)
    with pytest.raises(Incomplete):
        cast.place.ledger.find(request.digest)
    report = audit(cast, case_of(cast, bundle, request, answers, None, *ended(cast, request)))
    assert set() == failed(report)
    assert "opened-and-burned" == report.releases[0].outcome


def test_the_next_request_burns_what_a_reboot_interrupted(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that goes on to ask for something else first has not forgotten the burn."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.open.burn", _cut)
        with pytest.raises(KeyboardInterrupt):
            cast.open(bundle, request, answers, tmp_path / "out")
    cast.machine.reboot()
    cast.boot()
    cast.request(bundle)
    with pytest.raises(Refused) as refused:
        cast.place.find(request.digest)
    assert "host.ended" == refused.value.check
    report = audit(cast, case_of(cast, bundle, request, answers, None, *ended(cast, request)))
    assert set() == failed(report)
    assert "opened-and-burned" == report.releases[0].outcome


@pytest.mark.parametrize("cause", DEATHS)
def test_a_request_that_died_unopened_is_burned_by_the_next(cast: Cast, cause: Death) -> None:
    """Dead of a reboot or of age, a request leaves the proof that it was never opened."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    if cause == "tpm.rebooted":
        cast.machine.reboot()
        cast.boot()
    else:
        _let_pass(cast, request)
    again = cast.request(bundle)
    assert [again.digest] == [entry.request for entry in cast.place.ledger.all()]
    said = decode_statement(Receipt, cast.place.receipt_path(request.digest).read_bytes())
    assert ("failed", DEATHS[cause]) == (said.predicate.outcome, said.predicate.reason)
    report = audit(cast, case_of(cast, bundle, request, answers, None, *ended(cast, request)))
    assert set() == failed(report)
    assert "never-opened" == report.releases[0].outcome
    with pytest.raises(Refused) as refused:
        cast.place.find(request.digest)
    assert cause == refused.value.check


def _let_pass(cast: Cast, request: Statement[Request]) -> None:
    from tpm2_pytss.constants import ESYS_TR

    with cast.tpm_link("let a deadline pass") as link:
        link.esys.clock_set(request.predicate.terms.deadline_ms, ESYS_TR.OWNER)


def test_a_burn_that_the_tpm_refuses_is_said_and_stops_nobody(cast: Cast) -> None:
    """Once TPM2_Clear took the counter, why nothing is burned is told, and the host goes on."""
    request = cast.request(cast.seal())
    with cast.tpm_link("clear it") as link:
        from tpm2_pytss.constants import ESYS_TR

        link.esys.clear(ESYS_TR.LOCKOUT)
    (said,) = end_dead(cast.tpm, cast.place, now=NOW)
    assert (request.digest, "tpm.rebooted") == (said.entry.request, said.cause)
    assert said.unburnt
    assert () == cast.place.ledger.all()
    assert not cast.place.burn_path(request.digest).exists()


def _cut(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_giving_up_does_not_take_an_opening_back(cast: Cast) -> None:
    """Cancelling a request whose receipt says opened burns it, and leaves the receipt."""
    bundle = cast.seal()
    request = cast.request(bundle)
    entry = cast.place.ledger.find(request.digest)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    done = cast.open(bundle, request, answers, cast.folder / "out")
    cast.place.ledger.keep(entry)
    give_up(entry, cast.tpm, cast.place, now=NOW)
    assert done.receipt_data == cast.place.receipt_path(request.digest).read_bytes()


def test_a_counter_that_did_not_move_shows_nothing(cast: Cast) -> None:
    """The TPM certifies N as well; only a value above it is taken for a burn."""
    bundle = cast.seal()
    request = cast.request(bundle)
    entry = cast.place.ledger.find(request.digest)
    said = Burn(request=request.digest, receipt="ab" * 32, counter=entry.counter, burned_at=NOW)
    early = certified(cast, said, entry.counter_index)
    cast.tpm.increment(entry.counter_index)
    late = certified(cast, said, entry.counter_index)
    verdicts = check_burn(decode_statement(Burn, early), request)
    assert ["burn.value"] == [v.check for v in verdicts if v.outcome == "fail"]
    assert passed(check_burn(decode_statement(Burn, late), request))


def test_another_requests_counter_shows_nothing(cast: Cast) -> None:
    """A burn of one request, told of another one of the same host, is refused by its counter."""
    bundle = cast.seal()
    first, second = cast.request(bundle), cast.request(bundle)
    entries = [cast.place.ledger.find(request.digest) for request in (first, second)]
    cast.tpm.increment(entries[1].counter_index)
    counter = first.predicate.terms.counter
    said = Burn(request=first.digest, receipt="ab" * 32, counter=counter, burned_at=NOW)
    data = certified(cast, said, entries[1].counter_index)
    verdicts = check_burn(decode_statement(Burn, data), first)
    assert "burn.counter" in {v.check for v in verdicts if v.outcome == "fail"}


def test_a_burn_must_name_a_receipt_that_is_shown(cast: Cast) -> None:
    """A host that opened, and shows a receipt of a failure instead, is found out by its burn."""
    bundle = cast.seal()
    request = cast.request(bundle)
    entry = cast.place.ledger.find(request.digest)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    done = cast.open(bundle, request, answers, cast.folder / "out")
    lie = attested_receipt(
        entry,
        outcome="failed",
        reason="",
        approvals=(),
        bad_shares=(),
        tpm=cast.tpm,
        now=NOW,
    )
    files = [("receipt.dsse", lie), ("burn.dsse", done.burn_data)]
    report = audit(cast, case_of(cast, bundle, request, answers, None, *files))
    assert {"burn.receipt"} == failed(report)
    assert not report.sound


def test_a_cleared_tpm_burns_nothing(cast: Cast) -> None:
    """What a TPM says of its counters since it was cleared is no answer to an older request."""
    bundle = cast.seal()
    request = cast.request(bundle)
    entry = cast.place.ledger.find(request.digest)
    with cast.tpm_link("clear it") as link:
        from tpm2_pytss.constants import ESYS_TR

        link.esys.clear(ESYS_TR.LOCKOUT)
    again = cast.tpm.allocate_counter(())
    assert (entry.counter_index, True) == (again.index, again.value > entry.counter)
    give_up(entry, cast.tpm, cast.place, now=NOW)
    report = audit(cast, case_of(cast, bundle, request, [], None, *ended(cast, request)))
    assert {"receipt.boot", "burn.boot", "burn.receipt"} >= failed(report) >= {"burn.boot"}
    assert "never-opened" != report.releases[0].outcome
