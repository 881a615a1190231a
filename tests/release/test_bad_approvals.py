"""What does not count, what counts once, and what never blocks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from custody.crypto.signature import sign
from custody.errors import Incomplete, Refused
from custody.lab.swtpm import Swtpm
from custody.rules.quorum import policy_signed_bytes
from tests.release.cast import NOW, Cast, as_approval, person
from tests.release.conftest import ready
from tests.release.expect import (
    QUORUM,
    audit,
    case_of,
    changed,
    faults,
    incomplete,
    share_in,
    spoilt,
    tallied,
    with_share,
)


def test_an_approval_of_another_request_does_not_count(cast: Cast, tmp_path: Path) -> None:
    """An approval of one request is nothing to another, as it is or relabelled by its author."""
    bundle = cast.seal()
    request, other = cast.request(bundle), cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "lead1")]
    foreign = cast.approve(bundle, other, "sec2")
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, [*answers, foreign], tmp_path / "out")

    relabelled = changed(cast, foreign, "sec2", request=request.digest)
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, [*answers, relabelled], tmp_path / "out")
    terms = request.predicate.terms.digest().hex()
    relabelled = changed(cast, relabelled, "sec2", terms=terms)
    assert [{"approval.terms-signature"}] == faults(tallied(cast, bundle, request, relabelled))


def test_an_approval_of_another_manifest_does_not_count(cast: Cast) -> None:
    """An approval names its manifest, and no other one."""
    bundle, other = cast.seal(), cast.seal("other")
    request, foreign = cast.request(bundle), cast.request(other)
    answer = cast.approve(other, foreign, "sec1")
    terms = request.predicate.terms
    relabelled = changed(
        cast,
        answer,
        "sec1",
        request=request.digest,
        terms=terms.digest().hex(),
        terms_signature=sign(cast.people["sec1"].signing[0], policy_signed_bytes(terms.digest())),
    )
    assert [{"approval.manifest"}] == faults(tallied(cast, bundle, request, relabelled))


def test_an_expired_approval_does_not_count(cast: Cast, tmp_path: Path) -> None:
    """An approval past its end, from the future or longer than the policy's limit is nothing."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with pytest.raises(Incomplete):
        cast.open(bundle, request, answers, tmp_path / "out", now=NOW + timedelta(hours=25))
    late = NOW + timedelta(hours=1)
    early = changed(cast, answers[0], "sec1", approved_at=late, expires_at=late)
    endless = changed(cast, answers[1], "sec3", expires_at=NOW + timedelta(days=2))
    tally = tallied(cast, bundle, request, early, endless)
    assert [{"approval.time"}, {"approval.time"}] == faults(tally)
    assert not (tmp_path / "out").exists()


def test_an_unknown_officer_does_not_count(cast: Cast, tmp_path: Path) -> None:
    """An approval signed by a key the policy does not list counts for nobody."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "lead2")]
    cast.people["mallory"] = person("mallory", "officer")
    forged = changed(cast, answers[0], "mallory", leaf="0/1")
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, [*answers, forged], tmp_path / "out")
    (found,) = faults(tallied(cast, bundle, request, forged))
    assert {"approval.author"} <= found


@pytest.mark.parametrize("who", ["cus1", "enr1", "pub"])
def test_somebody_in_another_role_does_not_count(cast: Cast, who: str) -> None:
    """A listed key in another role approves nothing."""
    bundle = cast.seal()
    request = cast.request(bundle)
    forged = changed(cast, cast.approve(bundle, request, "sec1"), who)
    (found,) = faults(tallied(cast, bundle, request, forged))
    assert "approval.author" in found


def test_a_revoked_officer_does_not_count(cast: Cast, tmp_path: Path) -> None:
    """Revocation takes effect on approvals that were given before."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.crl = cast.make_crl(number=2, revoked=[cast.people["sec3"].signer.spki])
    cast.refresh()
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, answers, tmp_path / "out")
    assert [{"certificate.revoked"}] == faults(tallied(cast, bundle, request, *answers))
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, request, "sec3")
    assert "certificate.revoked" == caught.value.check


def test_an_approval_for_another_leaf_does_not_count(cast: Cast) -> None:
    """An officer fills his own leaf and no other."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answer = changed(cast, cast.approve(bundle, request, "sec1"), "sec1", leaf="0/1")
    assert [{"approval.leaf"}] == faults(tallied(cast, bundle, request, answer))


def test_an_approval_under_an_older_policy_does_not_count(cast: Cast) -> None:
    """Officer and host must stand on the same policy."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answer = changed(cast, cast.approve(bundle, request, "sec1"), "sec1", policy="ab" * 32)
    assert [{"approval.policy"}] == faults(tallied(cast, bundle, request, answer))


def test_a_publisher_may_not_approve_his_own_manifest(cast: Cast) -> None:
    """Whoever published a manifest does not approve it, unless the signed policy says so."""
    both = person("sec1", "officer", "publisher")
    cast.people["sec1"] = both
    cast.certify(both)
    cast.next_policy(principals=cast.make_policy().principals)
    cast.people["pub"] = both
    bundle = cast.seal()
    request = cast.request(bundle)
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, request, "sec1")
    assert "approval.self" == caught.value.check
    forged = changed(cast, cast.approve(bundle, request, "sec2"), "sec1", leaf="0/0")
    (found,) = faults(tallied(cast, bundle, request, forged))
    assert "approval.self" in found


# ── counted, not refused ─────────────────────────────────────────────────────────────────────────


def test_the_same_officer_twice_counts_once(cast: Cast, tmp_path: Path) -> None:
    """Two approvals by one officer are one, and do no harm."""
    bundle = cast.seal()
    request = cast.request(bundle)
    later = NOW + timedelta(minutes=1)
    twice = [cast.approve(bundle, request, "sec1"), cast.approve(bundle, request, "sec1")]
    twice.append(cast.approve(bundle, request, "sec1", now=later))
    answers = [*twice, cast.approve(bundle, request, "lead2")]
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, answers, tmp_path / "out")
    answers.append(cast.approve(bundle, request, "sec3"))
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    assert sorted(QUORUM) == sorted(opened.officers)


def test_two_tokens_of_one_officer_count_once(machine: Swtpm, tmp_path: Path) -> None:
    """An officer's second token fills the leaf of his first, and the two never count twice."""
    cast = ready(tmp_path, machine, sec1=2)
    bundle = cast.seal()
    request = cast.request(bundle)
    both = [cast.approve(bundle, request, "sec1", token=token) for token in (0, 1)]
    lead = cast.approve(bundle, request, "lead2")
    with incomplete(cast, "sec2", "sec3"):
        cast.open(bundle, request, [*both, lead], tmp_path / "out")
    third = cast.approve(bundle, request, "sec3")
    opened = cast.open(bundle, request, [both[1], third, lead], tmp_path / "out")
    assert {"sec1", "sec3", "lead2"} == set(opened.officers)


def test_a_denial_never_blocks_and_is_shown(cast: Cast, tmp_path: Path) -> None:
    """A denial among enough approvals changes nothing but what everybody is shown."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    answers.append(cast.deny(bundle, request, "sec2"))
    tally = tallied(cast, bundle, request, *answers)
    assert ["sec2"] == [denial.officer for denial in tally.denials]
    assert tally.complete
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    report = audit(cast, case_of(cast, bundle, request, answers, opened))
    assert report.sound
    shown = report.releases[0].tally
    assert shown is not None
    assert ["sec2"] == [denial.officer for denial in shown.denials]


def test_a_denier_may_not_approve_the_same_terms(cast: Cast, tmp_path: Path) -> None:
    """Who denied does not count for the same terms, and his own tool refuses him."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    denial = cast.deny(bundle, request, "sec1")
    with incomplete(cast, "sec2"):
        cast.open(bundle, request, [*answers, denial], tmp_path / "out")
    tally = tallied(cast, bundle, request, *answers, denial)
    assert [{"approval.denied"}] == faults(tally)

    cast.refresh(("denial.dsse", denial))
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, request, "sec1")
    assert "approval.denied" == caught.value.check
    other = cast.request(bundle)
    assert as_approval(cast.approve(bundle, other, "sec1")).predicate.leaf == "0/0"


def test_a_home_remembers_what_its_officer_denied(cast: Cast) -> None:
    """He cannot approve what he denied though nobody brings the denial along."""
    bundle = cast.seal()
    request = cast.request(bundle)
    cast.deny(bundle, request, "sec1")
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, request, "sec1")
    assert "approval.denied" == caught.value.check
    cast.approve(bundle, request, "sec2")


@pytest.mark.parametrize("hours", [0, -1, 24.001, 1000])
def test_an_approval_lives_as_long_as_it_is_told(cast: Cast, hours: float) -> None:
    """What the policy does not allow is refused, neither cut nor turned into the default."""
    bundle = cast.seal()
    request = cast.request(bundle)
    with pytest.raises(Refused) as caught:
        cast.approve(bundle, request, "sec1", lifetime=timedelta(hours=hours))
    assert "approve.lifetime" == caught.value.check
    said = as_approval(cast.approve(bundle, request, "sec1", lifetime=timedelta(hours=2)))
    assert NOW + timedelta(hours=2) == said.predicate.expires_at


def test_a_denial_of_another_request_denies_nothing_here(cast: Cast, tmp_path: Path) -> None:
    """A denial is about its own request."""
    bundle = cast.seal()
    request, other = cast.request(bundle), cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    answers.append(cast.deny(bundle, other, "sec1"))
    cast.open(bundle, request, answers, tmp_path / "out")


def test_a_thief_cannot_deny_with_a_revoked_key(machine: Swtpm, tmp_path: Path) -> None:
    """A denial by a revoked key of an officer does not keep him from approving with his other."""
    cast = ready(tmp_path, machine, sec1=2)
    bundle = cast.seal()
    request = cast.request(bundle)
    stolen = cast.deny(bundle, request, "sec1", at="thief")
    answers = [cast.approve(bundle, request, who) for who in ("sec3", "lead2")]
    answers.append(cast.approve(bundle, request, "sec1", token=1))
    with pytest.raises(Incomplete):
        cast.open(bundle, request, [*answers, stolen], tmp_path / "out")
    cast.crl = cast.make_crl(number=2, revoked=[cast.people["sec1"].signer.spki])
    cast.refresh()
    opened = cast.open(bundle, request, [*answers, stolen], tmp_path / "out")
    assert "sec1" in opened.officers


# ── bad shares ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("kind", ["another", "unsealed"])
def test_a_bad_share_first_last_or_between(
    cast: Cast, tmp_path: Path, place: int, kind: str
) -> None:
    """A bad share is dropped and its officer named, wherever it stands; the others suffice."""
    bundle = cast.seal()
    request = cast.request(bundle)
    who = ("sec1", "sec2", "sec3", "lead1")[place]
    times = {name: NOW + timedelta(seconds=n) for n, name in enumerate(("sec1", "sec2", "sec3"))}
    officers = ("sec1", "sec2", "sec3", "lead1", "lead2")
    answers = {
        name: cast.approve(bundle, request, name, now=times.get(name, NOW)) for name in officers
    }
    answers[who] = spoilt(cast, answers[who], who, kind)
    opened = cast.open(bundle, request, list(answers.values()), tmp_path / "out")
    assert [cast.people[who].signer.key_id] == [bad.officer for bad in opened.bad_shares]
    report = audit(cast, case_of(cast, bundle, request, list(answers.values()), opened))
    assert report.sound
    assert opened.bad_shares == report.releases[0].bad_shares


def test_all_but_one_good_and_one_bad_open_nothing(cast: Cast, tmp_path: Path) -> None:
    """With one share bad and no other to take its place nothing opens, and H lives on."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    answers[1] = spoilt(cast, answers[1], "sec3", "another")
    with incomplete(cast, "0/2"):
        cast.open(bundle, request, answers, tmp_path / "out")
    answers.append(cast.approve(bundle, request, "sec2"))
    cast.open(bundle, request, answers, tmp_path / "out")


def test_an_officer_may_mend_a_bad_share(cast: Cast, tmp_path: Path) -> None:
    """An officer whose share came out bad approves again, and the second share is taken."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    again = cast.approve(bundle, request, "sec1", now=NOW + timedelta(minutes=2))
    answers[0] = spoilt(cast, answers[0], "sec1", "another")
    opened = cast.open(bundle, request, [*answers, again], tmp_path / "out")
    assert ["0/0"] == [bad.leaf for bad in opened.bad_shares]
    case = case_of(cast, bundle, request, [*answers, again], opened)
    assert audit(cast, case).sound


def test_a_share_of_another_release_is_bad_here(cast: Cast, tmp_path: Path) -> None:
    """A share of another manifest, well sealed to H by its own officer, meets its commitment."""
    bundle, other = cast.seal(), cast.seal("other")
    request = cast.request(bundle)
    answers = {who: cast.approve(bundle, request, who) for who in ("sec1", "sec2", "sec3", "lead2")}
    foreign = share_in(cast, other, "sec1")
    answers["sec1"] = with_share(cast, answers["sec1"], "sec1", foreign)
    opened = cast.open(bundle, request, list(answers.values()), tmp_path / "out")
    assert ["0/0"] == [bad.leaf for bad in opened.bad_shares]


def test_approvals_may_come_in_any_order(cast: Cast, tmp_path: Path) -> None:
    """Neither the order nor the number of approvals beyond the quorum matters."""
    bundle = cast.seal()
    request = cast.request(bundle)
    everybody = ("lead2", "sec3", "lead1", "sec2", "sec1")
    answers = [cast.approve(bundle, request, who) for who in everybody]
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    assert set(everybody) == set(opened.officers)
    assert msgspec.structs.asdict(opened.receipt.predicate)["outcome"] == "opened"
