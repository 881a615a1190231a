"""What an auditor is shown, and what he must not believe."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import msgspec
import pytest

from custody.crypto.bind import bind
from custody.encoding import encode, key_id
from custody.formats.case import Documents, merge, sort_documents
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
from custody.lab import firmware
from custody.ops.audit import audit_case
from custody.ops.audit_contents import open_contents
from custody.ops.bundle import Bundle
from custody.ops.collect import collect
from tests.release.cast import NOW, PCRS, Cast, as_approval, person
from tests.release.collected import judged
from tests.release.expect import (
    QUORUM,
    audit,
    case_of,
    changed,
    failed,
    opened,
    refused,
    requoted,
    spoil,
)


def test_spoilt_copies_do_not_spoil_an_audit(cast: Cast) -> None:
    """Copies of a case's files with bad signatures do not make a sound release unsound."""
    bundle, request, answers, done = opened(cast)
    request_data = encode(request.envelope)
    files = [
        *(f for answer in answers for f in (answer,)),
        (bundle.path / "manifest.dsse").read_bytes(),
        done.receipt_data,
        request_data,
        *cast.policies,
    ]
    copies = [(f"{side}-{n}.dsse", spoil(d)) for n, d in enumerate(files) for side in "0z"]
    case = case_of(cast, bundle, request, answers, done)
    for mixed in (merge(sort_documents(copies), case), merge(case, sort_documents(copies))):
        report = audit(cast, mixed)
        assert set() == failed(report)
        assert ["opened-and-burned"] == [release.outcome for release in report.releases]


def test_another_publishers_copy_of_a_manifest_spoils_no_audit(cast: Cast) -> None:
    """The same text by the key of another publisher is not the manifest, and hides it nowhere."""
    cast.people["pub2"] = person("pub2", "publisher")
    cast.certify(cast.people["pub2"])
    cast.next_policy()
    bundle, request, answers, done = opened(cast)
    copy = cast.people["pub2"].signer.statement(bundle.statement.predicate)
    other = sort_documents([("0.dsse", copy)])
    case = case_of(cast, bundle, request, answers, done)
    for mixed in (merge(other, case), merge(case, other)):
        assert set() == failed(audit(cast, mixed))


def test_one_junk_request_does_not_hide_the_others(cast: Cast) -> None:
    """A request under a policy nobody has is judged unsound by itself; the others are judged."""
    bundle, request, answers, done = opened(cast)
    terms = msgspec.structs.replace(request.predicate.terms, policy="ab" * 32)
    junk = requoted(cast, request, terms=terms)
    case = merge(case_of(cast, bundle, request, answers, done), Documents(requests=(junk,)))
    report = audit(cast, case)
    sound = {release.request: release.sound for release in report.releases}
    assert {request.digest: True, junk.digest: False} == sound
    assert "case.policy" in failed(report)


def test_a_strangers_approval_does_not_move_the_moment(cast: Cast) -> None:
    """A forged approval from next year does not make everybody's approvals expired."""
    bundle, request, answers, _ = opened(cast)
    cast.people["mallory"] = person("mallory", "officer")
    later = NOW + timedelta(days=250)
    forged = changed(
        cast, answers[0], "mallory", approved_at=later, expires_at=later + timedelta(hours=1)
    )
    report = audit(cast, case_of(cast, bundle, request, [*answers, forged]))
    assert NOW == report.releases[0].at
    assert "approved" == report.releases[0].outcome


def test_a_late_approval_does_not_spoil_an_opening(cast: Cast) -> None:
    """An approval given days after the opening leaves the opening judged at its own time."""
    bundle, request, answers, done = opened(cast)
    later = NOW + timedelta(days=3)
    late = changed(
        cast, answers[0], "sec1", approved_at=later, expires_at=later + timedelta(hours=1)
    )
    report = audit(cast, case_of(cast, bundle, request, [*answers, late], done))
    assert report.sound
    assert NOW == report.releases[0].at


def test_an_opening_must_be_explained_by_its_approvals(cast: Cast) -> None:
    """A receipt whose approvals are not all in the case is no proof of a lawful opening."""
    bundle, request, answers, done = opened(cast)
    report = audit(cast, case_of(cast, bundle, request, answers[:2], done))
    assert not report.sound
    assert "receipt.approvals" in failed(report)
    other = cast.approve(bundle, request, "lead1")
    report = audit(cast, case_of(cast, bundle, request, [*answers[:2], other], done))
    assert {"receipt.approvals"} == failed(report)


def test_a_receipt_by_another_key_is_none(cast: Cast) -> None:
    """A receipt counts only with a quote by the AK of its request, over itself."""
    bundle, request, answers, done = opened(cast)
    said = done.receipt.predicate
    forged = encode_statement(said, [cast.people["sec1"].signer.signature(said)])
    moved = msgspec.structs.replace(said, finished_at=said.finished_at + timedelta(hours=1))
    stolen = encode_statement(moved, done.receipt.envelope.signatures)
    for data, check in ((forged, "receipt.signature"), (stolen, "receipt.binding")):
        found = replace(done, receipt_data=data)
        report = audit(cast, case_of(cast, bundle, request, answers, found))
        assert check in failed(report)
        assert report.releases[0].receipt is None


def receipt_of(
    cast: Cast,
    request: Statement[Request],
    outcome: Literal["opened", "failed"],
    *answers: bytes,
    pcrs: tuple[int, ...] = PCRS,
    **changes: object,
) -> bytes:
    """Write what a host may claim that owns its software: its TPM quotes whatever it likes."""
    receipt = Receipt(
        request=request.digest,
        manifest=request.predicate.terms.manifest,
        terms=request.predicate.terms.digest().hex(),
        outcome=outcome,
        reason="",
        approvals=tuple(sorted(as_approval(answer).digest for answer in answers)),
        bad_shares=(),
        counter=request.predicate.terms.counter,
        finished_at=NOW,
    )
    receipt = msgspec.structs.replace(receipt, **changes)
    quote = cast.tpm.quote(bind("receipt", bytes.fromhex(statement_digest(receipt))), pcrs)
    keyid = key_id(spki(request.predicate.ak_public))
    signature = Signature(keyid=keyid, sig=pack_quote(quote.attest, quote.signature))
    return encode_statement(receipt, [signature])


def test_a_receipt_of_a_short_quorum_is_unlawful(cast: Cast) -> None:
    """A host that claims to have opened on too few approvals convicts itself."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM[:2]]
    extra = ("receipt.dsse", receipt_of(cast, request, "opened", *answers))
    report = audit(cast, case_of(cast, bundle, request, answers, None, extra))
    assert "opened-not-burned" == report.releases[0].outcome
    assert not report.sound


def test_an_opening_is_not_taken_back(cast: Cast) -> None:
    """No further receipt, neither of a failure nor of a lawful opening, hides an unlawful one."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    short = receipt_of(cast, request, "opened", *answers[:2])
    lawful = receipt_of(cast, request, "opened", *answers)
    for later in (receipt_of(cast, request, "failed"), lawful):
        extra = (("1.dsse", short), ("2.dsse", later))
        report = audit(cast, case_of(cast, bundle, request, answers, None, *extra))
        assert "opened-not-burned" == report.releases[0].outcome
        assert {"receipt.approvals"} == failed(report)


def judge_flawed(
    cast: Cast, bundle: Bundle, request: Statement[Request], answers: list[bytes], flawed: bytes
) -> tuple[str, str, set[str]]:
    """Audit one receipt as a heap and as one file, which must say the same; return what."""
    case = case_of(cast, bundle, request, answers, None, ("r.dsse", flawed))
    said = []
    for report in (audit(cast, case), judged(collect(case, pin=cast.pin).data, cast.pin)):
        (release,) = report.releases
        told = release.receipt.predicate.outcome if release.receipt else ""
        said.append((release.outcome, told, failed(report)))
    heap, file = said
    # A file that lacks a receipt which says nothing is sound: nothing was done that it must tell.
    assert heap == file or ("", "") == (heap[1], file[1])
    return heap


def test_a_receipt_from_another_boot_state_explains_no_opening(cast: Cast) -> None:
    """A quote over other registers, or made after one has changed, or in a later boot, owns up to
    an opening all the same, and is not sound.
    """
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    few = receipt_of(cast, request, "opened", *answers, pcrs=PCRS[:1])
    cast.machine.transmit(firmware.pcr_extend(PCRS[0], bytes(32)))
    late = receipt_of(cast, request, "opened", *answers)
    cast.machine.reboot()
    cast.boot()
    after = receipt_of(cast, request, "opened", *answers)
    for data, check in ((few, "receipt.state"), (late, "receipt.state"), (after, "receipt.boot")):
        found = judge_flawed(cast, bundle, request, answers, data)
        assert ("opened-not-burned", "opened", {check}) == found


FLAWS: dict[str, dict[str, object]] = {
    "another manifest": {"manifest": "ab" * 32},
    "other terms": {"terms": "ab" * 32},
    "another counter": {"counter": 2**40},
}


@pytest.mark.parametrize("name", FLAWS)
def test_an_opening_is_not_taken_back_by_a_second_fault(cast: Cast, name: str) -> None:
    """What a host's own TPM attests of an opening counts against it, whatever is wrong with it.

    What it attests for itself counts only if all of it holds.
    """
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    flawed = receipt_of(cast, request, "opened", *answers, **FLAWS[name])  # type: ignore[arg-type]
    found = judge_flawed(cast, bundle, request, answers, flawed)
    assert ("opened-not-burned", "opened", {"receipt.request"}) == found
    flawed = receipt_of(cast, request, "failed", **FLAWS[name])  # type: ignore[arg-type]
    found = judge_flawed(cast, bundle, request, answers, flawed)
    assert ("refused", "", {"receipt.request"}) == found


def test_copies_of_a_receipt_are_judged_by_the_best(cast: Cast) -> None:
    """A copy whose quote is spoilt, or of another boot state, says nothing beside a good one."""
    bundle, request, answers, done = opened(cast)
    said = done.receipt.predicate
    spoilt = encode_statement(said, [cast.people["sec1"].signer.signature(said)])
    few = receipt_of(cast, request, "opened", *answers, pcrs=PCRS[:1], reason=said.reason)
    assert done.receipt.digest == decode_statement(Receipt, few).digest
    case = case_of(cast, bundle, request, answers, done, ("a.dsse", spoilt), ("b.dsse", few))
    for documents in (case, replace(case, receipts=case.receipts[::-1])):
        report = audit(cast, documents)
        assert ("opened-and-burned", set()) == (report.releases[0].outcome, failed(report))
    collected = collect(case, pin=cast.pin)
    assert 1 == sum(name.startswith("receipt") for name in collected.members)
    assert judged(collected.data, cast.pin).sound


def test_a_newer_policy_in_the_case_is_shown(cast: Cast) -> None:
    """A release under version 1, when version 2 claims to be older than it, says so."""
    bundle, request, answers, done = opened(cast)
    cast.next_policy()
    report = audit(cast, case_of(cast, bundle, request, answers, done))
    assert report.sound
    notes = [v for v in report.releases[0].verdicts if v.check == "case.superseded"]
    assert ["not-applicable"] == [v.outcome for v in notes]


def test_an_audit_needs_every_file_it_judges_by(cast: Cast) -> None:
    """A case without manifest, policy, certificates or lists is not sound."""
    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    for kind in ("manifests", "policies", "certificates", "crls", "enrolments", "golden_sets"):
        report = audit(cast, replace(case, **{kind: ()}))
        assert not report.sound, kind
    assert audit(cast, case).sound


def test_an_unreadable_file_is_named_in_an_audit(cast: Cast) -> None:
    """A case with a file that does not parse is not sound: what it was, nobody can say."""
    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done, ("junk.dsse", b"{}"))
    report = audit(cast, case)
    assert {"case.readable"} == failed(report)
    assert ["junk.dsse"] == [file.name for file in report.unreadable]


def test_contents_are_opened_by_who_holds_a_key(cast: Cast) -> None:
    """A share key opens what a manifest of the case seals, and the model's signature is judged."""
    bundle, request, answers, done = opened(cast)
    case = case_of(cast, bundle, request, answers, done)
    inside = open_contents(bundle, cast.people["sec2"].opener, case)
    report = audit_case(case, pin=cast.pin, contents=[inside])
    assert report.sound
    assert ["tiny"] == [one.contents.name for one in report.contents]
    assert "model.signature" in {v.check for v in report.verdicts}
    other = cast.seal("other")
    with refused(cast, "contents.case"):
        open_contents(other, cast.people["sec2"].opener, case)
