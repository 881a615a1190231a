"""Opening by a key in an HSM: bad shares, sites, runs that were interrupted, other suites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem

from custody.crypto.keyslots import approval_info, seal, unwrap
from custody.crypto.keyslots import open as open_slot
from custody.crypto.parts import check_cek
from custody.crypto.quorum import combine
from custody.errors import Incomplete, Refused, Unavailable
from custody.formats.approval import Approval
from custody.formats.envelope import Statement, decode_statement
from custody.formats.keyrequest import KeyReceipt, KeyRequest
from custody.formats.policy import Policy, ShareKey
from custody.ops.approve import review_requests
from custody.ops.audit import audit_case
from custody.ops.keyhost import give_up_by_key, open_by_key, request_by_key
from custody.ops.keys import ShareOpener
from custody.ops.landing import unfinished_output
from tests.release.cast import Cast, spki
from tests.release.expect import QUORUM
from tests.release.keyhosts import (
    HOST,
    add_host,
    approve,
    ask,
    both_rounds,
    case_of,
    consent,
    key_host,
    key_place,
    open_it,
)
from tests.release.test_release import same_tree
from tests.release.test_site import add_sites


@pytest.fixture
def hosted(cast: Cast) -> Cast:
    """A cast with a host without a TPM besides, and a policy that takes it."""
    add_host(cast)
    return cast


def spoilt(cast: Cast, request: Statement[KeyRequest], data: bytes, who: str) -> bytes:
    """Have an officer approve with a share that is none."""
    said = decode_statement(Approval, data).predicate
    signer = cast.people[who].signer
    info = approval_info(request.digest, said.leaf, signer.key_id)
    body = request.predicate
    sealed = seal(body.suite, body.recipient, body.mlkem, bytes(64), info=info)
    return signer.statement(msgspec.structs.replace(said, sealed_share=sealed))


def test_a_bad_share_is_left_out_and_named(hosted: Cast, tmp_path: Path) -> None:
    """One officer more than needed: the false share is dropped, and the receipt names it."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    who = (*QUORUM, "sec2")
    consents = [consent(hosted, bundle, request, name) for name in who]
    answers = [approve(hosted, bundle, request, name, consents) for name in who]
    answers[0] = spoilt(hosted, request, answers[0], QUORUM[0])
    opened = open_it(hosted, bundle, request, [*consents, *answers], tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")
    assert [hosted.people[QUORUM[0]].signer.key_id] == [bad.officer for bad in opened.bad_shares]
    case = case_of(hosted, bundle, request, [*consents, *answers, opened.receipt_data])
    (release,) = audit_case(case, pin=hosted.pin).releases
    assert release.sound
    assert opened.bad_shares == release.bad_shares


def test_without_the_share_that_is_bad_nothing_opens(hosted: Cast, tmp_path: Path) -> None:
    """A quorum with one false share is short; nothing appears, and the request stays open."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    good, answers[-1] = answers[-1], spoilt(hosted, request, answers[-1], QUORUM[-1])
    with pytest.raises(Incomplete, match="is bad"):
        open_it(hosted, bundle, request, answers, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not key_place(hosted).receipt_path(request.digest).exists()
    open_it(hosted, bundle, request, [*answers, good], tmp_path / "out")


def test_a_bundle_of_a_site_takes_both_hsms(hosted: Cast, tmp_path: Path) -> None:
    """The host's key and a full quorum open nothing of it without the site's HSM."""
    add_sites(hosted, "fra1")
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    with pytest.raises(Unavailable):
        open_it(hosted, bundle, request, answers, tmp_path / "out")
    host = replace(key_host(hosted), site=(hosted.people["fra1"].opener,))
    situation = hosted.situation(HOST, *answers)
    open_by_key(bundle, request, tmp_path / "out", situation=situation, host=host)
    assert same_tree(tmp_path / "model", tmp_path / "out")


@pytest.mark.parametrize("stopped", [OSError("no"), KeyboardInterrupt()])
def test_a_run_that_is_stopped_can_be_run_again(
    hosted: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: BaseException
) -> None:
    """Stopped while it writes: no model, no receipt, and the approvals do once more."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)

    def stop(*_: object, **__: object) -> None:
        raise stopped

    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.keyhost.open_into", stop)
        with pytest.raises(type(stopped)):
            open_it(hosted, bundle, request, answers, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not key_place(hosted).receipt_path(request.digest).exists()
    open_it(hosted, bundle, request, answers, tmp_path / "out")
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_a_run_that_died_after_its_receipt_goes_on(
    hosted: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between receipt and model, what it left is finished, into that directory alone."""
    bundle = hosted.seal()
    request = ask(hosted, bundle)
    answers = both_rounds(hosted, bundle, request)
    out = tmp_path / "out"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.landing._land", die)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            open_it(hosted, bundle, request, answers, out)
    assert key_place(hosted).receipt_path(request.digest).exists()
    assert unfinished_output(out, request.digest[:16]) is not None
    with pytest.raises(Refused) as caught:
        open_it(hosted, bundle, request, answers, tmp_path / "elsewhere")
    assert "host.ended" == caught.value.check
    opened = open_it(hosted, bundle, request, answers, out)
    assert same_tree(tmp_path / "model", out)
    kept = key_place(hosted).receipt_path(request.digest).read_bytes()
    assert opened.receipt == decode_statement(KeyReceipt, kept)


def test_what_lies_unfinished_opens_no_second_time(
    hosted: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once opened or given up, a run that stopped earlier is not gone on with at its own place."""
    bundle = hosted.seal()
    for end in ("opened", "given up"):
        request = ask(hosted, bundle)
        answers = both_rounds(hosted, bundle, request)
        first = tmp_path / f"first, {end}"
        with monkeypatch.context() as patch:
            patch.setattr("custody.ops.keyhost.open_into", _cut)
            with pytest.raises(KeyboardInterrupt):
                open_it(hosted, bundle, request, answers, first)
        assert unfinished_output(first, request.digest[:16]) is not None
        if end == "opened":
            open_it(hosted, bundle, request, answers, tmp_path / "second")
        else:
            situation, host = hosted.situation(HOST), key_host(hosted)
            give_up_by_key(request, situation=situation, host=host, reason="not wanted")
        kept = key_place(hosted).receipt_path(request.digest).read_bytes()
        with pytest.raises(Refused) as caught:
            open_it(hosted, bundle, request, answers, first)
        assert "host.ended" == caught.value.check
        assert kept == key_place(hosted).receipt_path(request.digest).read_bytes()


def _cut(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_hybrid_key_opens(hosted: Cast, tmp_path: Path) -> None:
    """Suite MLKEM1024_P384: half of the key in the HSM, half in the host's home."""
    private, share = mlkem.MLKEM1024PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
    public = private.public_key().public_bytes_raw()
    hosted.people[HOST].sharing = [share]
    hosted.certify(hosted.people[HOST])
    policy = decode_statement(Policy, hosted.policies[-1]).predicate
    key = ShareKey(spki=spki(share), suite="MLKEM1024_P384", mlkem=public, token_class="software")
    people = tuple(
        msgspec.structs.replace(p, keys=(p.keys[0], key)) if p.id == HOST else p
        for p in policy.principals
    )
    hosted.next_policy(principals=people)
    bundle = hosted.seal()
    seed = private.private_bytes_raw()
    opener = ShareOpener(share, public, seed)
    host = replace(key_host(hosted), opener=opener)
    request = request_by_key(
        bundle.statement, situation=hosted.situation(HOST), host=host
    ).statement
    answers = both_rounds(hosted, bundle, request)
    situation = hosted.situation(HOST, *answers)
    open_by_key(bundle, request, tmp_path / "out", situation=situation, host=host)
    assert same_tree(tmp_path / "model", tmp_path / "out")


def test_what_an_hsm_does_not_refuse(hosted: Cast) -> None:
    """The limit, as it is documented: by raw cryptography, shares given to two requests meet.

    Nothing but officers' programs, which want consents first, keeps them apart.
    """
    bundle = hosted.seal()
    manifest = bundle.statement.predicate
    opener, shares = hosted.people[HOST].opener, {}
    first, second = ask(hosted, bundle), ask(hosted, bundle)
    given = [(first, both_rounds(hosted, bundle, first)[-1])]
    given += [(second, data) for data in both_rounds(hosted, bundle, second)[len(QUORUM) : -1]]
    for request, data in given:
        approval = decode_statement(Approval, data)
        said, by = approval.predicate, approval.envelope.signatures[0].keyid
        info = approval_info(request.digest, said.leaf, by)
        opened = open_slot("P256", opener.key, None, said.sealed_share, info=info)
        shares[said.leaf] = opened[:32]
    release, kept = combine(hosted.tree, shares), manifest.wrap("cek")
    binding = manifest.core.binding()
    cek = unwrap(release, kept.salt, kept.sealed, C=binding, purpose="cek")
    core = manifest.core
    check_cek(cek, bytes.fromhex(core.payload_id), bytes.fromhex(core.cek_commitment))
    # With one leaf less the same arithmetic gives nothing: that much holds without any program.
    shares.popitem()
    with pytest.raises(Incomplete):
        combine(hosted.tree, shares)


def test_a_review_tells_one_kind_from_the_other(hosted: Cast) -> None:
    """Reviewed side by side, only the host with a TPM has a boot state."""
    bundle = hosted.seal()
    by_key, by_tpm = ask(hosted, bundle), hosted.request(bundle)
    found = review_requests(bundle, [by_key, by_tpm], situation=hosted.situation("sec1"))
    ours, theirs = found.requests
    assert ("hsm-key", None) == (ours.trust_class, ours.golden)
    assert "software" == theirs.trust_class
    assert theirs.golden is not None
    assert ours.tally.unconsented
    assert not theirs.tally.unconsented
    assert ours.sound
    assert theirs.sound
