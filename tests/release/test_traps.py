"""Known traps of quorum systems, where no other file has them (docs/threat-model.md)."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from custody.crypto.keyslots import commitment
from custody.crypto.quorum import Person, Threshold, combine
from custody.encoding import encode
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from custody.formats.case import sort_documents
from custody.formats.envelope import Envelope, Signature, decode_envelope, decode_statement
from custody.formats.manifest import Manifest
from custody.formats.request import Creation
from custody.lab.swtpm import Swtpm
from custody.rules.request import check_request
from tests.release.cast import NOW, TREE, Cast, as_approval
from tests.release.conftest import ready
from tests.release.expect import (
    QUORUM,
    audit,
    case_of,
    changed,
    failed,
    faults,
    incomplete,
    refused,
    requoted,
    share_in,
    spoilt,
    tallied,
    with_share,
)


def test_an_x_cannot_be_told_otherwise(cast: Cast) -> None:
    """A share's x follows from its leaf in the signed tree, and its commitment holds it."""
    bundle = cast.seal()
    manifest = bundle.statement.predicate
    secret = share_in(cast, bundle, "sec1")
    share, salt = secret[:32], secret[32:]
    fits = {
        x: commitment(manifest.core.binding(), "0/0", x, share, salt).hex()
        == manifest.commitment("0/0")
        for x in range(8)
    }
    assert {x: x == 1 for x in range(8)} == fits
    # Under another leaf, and so another x, the same shares give another secret.
    paths = {"sec1": "0/0", "sec2": "0/1", "lead1": "1/0"}
    right = {path: share_in(cast, bundle, who)[:32] for who, path in paths.items()}
    wrong = {"0/0": right["0/0"], "0/2": right["0/1"], "1/0": right["1/0"]}
    assert combine(TREE, right) != combine(TREE, wrong)


def test_shares_swapped_between_officers_are_bad(cast: Cast, tmp_path: Path) -> None:
    """Two officers who exchange their sealed shares are both named, and nothing opens."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = {who: cast.approve(bundle, request, who) for who in ("sec1", "sec2", "lead1")}
    secrets = {who: share_in(cast, bundle, who) for who in ("sec1", "sec2")}
    answers["sec1"] = with_share(cast, answers["sec1"], "sec1", secrets["sec2"])
    answers["sec2"] = with_share(cast, answers["sec2"], "sec2", secrets["sec1"])
    with incomplete(cast, "0/0", "0/1"):
        cast.open(bundle, request, list(answers.values()), tmp_path / "out")


def test_a_sealed_share_is_its_approvals_own(cast: Cast, tmp_path: Path) -> None:
    """A sealed share lifted from a colleague's approval does not open in another one's."""
    bundle = cast.seal()
    request = cast.request(bundle)
    lead, first, second = (cast.approve(bundle, request, who) for who in ("lead1", "sec1", "sec2"))
    lifted = changed(cast, second, "sec2", sealed_share=as_approval(first).predicate.sealed_share)
    with incomplete(cast, "0/1"):
        cast.open(bundle, request, [lead, first, lifted], tmp_path / "out")


def test_every_share_bad(cast: Cast, tmp_path: Path) -> None:
    """If every share is bad nothing opens, and the request lives on."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = {who: cast.approve(bundle, request, who) for who in QUORUM}
    bad = [spoilt(cast, data, who, "another") for who, data in answers.items()]
    with incomplete(cast, "0/0", "0/2", "1/1"):
        cast.open(bundle, request, bad, tmp_path / "out")
    cast.open(bundle, request, list(answers.values()), tmp_path / "out")


def test_an_approval_cut_short_is_passed_over(cast: Cast, tmp_path: Path) -> None:
    """An approval file cut anywhere is no approval, and stops nobody else's."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    for cut in (0, 1, 10, len(answers[0]) // 2, len(answers[0]) - 1):
        heap = sort_documents([("a.dsse", answers[0][:cut])])
        assert ((), 1) == (heap.approvals, len(heap.unreadable))
    with pytest.raises(Incomplete):
        cast.open(bundle, request, [answers[0][:-1], *answers[1:]], tmp_path / "out")
    cast.open(bundle, request, [answers[0][:-1], *answers], tmp_path / "out")


def test_duplicate_keys_do_not_parse(cast: Cast) -> None:
    """A statement whose JSON can be read in two ways is read in none, though its signature fits."""
    bundle = cast.seal()
    request = cast.request(bundle)
    envelope = decode_envelope(cast.approve(bundle, request, "sec1"))
    said = b'"leaf":"0/0"'
    assert said in envelope.payload
    for other in (b'"leaf":"0/1",' + said, said + b"," + said, said + b" ", b'"leaf":"0\\u002f0"'):
        payload = envelope.payload.replace(said, other)
        unsigned = msgspec.structs.replace(envelope, payload=payload)
        resigned = Signature(
            keyid=envelope.signatures[0].keyid,
            sig=cast.people["sec1"].raw_signature(unsigned.signed_bytes()),
        )
        data = encode(msgspec.structs.replace(unsigned, signatures=(resigned,)))
        heap = sort_documents([("a.dsse", data)])
        assert ((), 1) == (heap.approvals, len(heap.unreadable))


def test_there_is_no_algorithm_to_downgrade(cast: Cast) -> None:
    """A manifest that names a weaker commitment, digest or wrap has a field no reader knows."""
    bundle = cast.seal()
    envelope = bundle.statement.envelope
    for field in (b'{"commitment":', b'{"purpose":'):
        payload = envelope.payload.replace(field, b'{"algorithm":"sha1",' + field[1:])
        assert payload != envelope.payload
        forged = Envelope(
            payload=payload,
            payload_type=envelope.payload_type,
            signatures=(
                Signature(
                    keyid=envelope.signatures[0].keyid,
                    sig=cast.people["pub"].raw_signature(
                        msgspec.structs.replace(envelope, payload=payload).signed_bytes()
                    ),
                ),
            ),
        )
        with pytest.raises(Malformed):
            decode_statement(Manifest, encode(forged))


def test_an_officers_key_is_not_a_publishers_too(cast: Cast) -> None:
    """One key in two roles' hands is refused in the policy, and in one principal for two uses."""
    shared = cast.people["sec1"].signing
    cast.people["pub"].signing = shared
    cast.next_policy(principals=cast.make_policy().principals)
    with refused(cast, "policy.keys-distinct"):
        cast.situation("lead1")


def test_an_officers_signing_key_is_not_his_share_key(cast: Cast) -> None:
    """A share key used for signing too would let an approval be turned into a decryption."""
    cast.people["sec1"].sharing = cast.people["sec1"].signing
    cast.next_policy(principals=cast.make_policy().principals)
    with refused(cast, "policy.keys-distinct"):
        cast.situation("lead1")


def test_a_host_key_the_ak_did_not_certify_is_refused(cast: Cast) -> None:
    """The creation attestation of another request, or of nobody, vouches for no other H."""
    bundle = cast.seal()
    request, other = cast.request(bundle), cast.request(bundle)
    mine, his = request.predicate.key, other.predicate.key
    swaps: dict[str, Creation] = {
        "attestation.V24": his,
        "attestation.V30": msgspec.structs.replace(mine, public=his.public),
        "attestation.V31": msgspec.structs.replace(mine, creation_data=mine.creation_data + b"x"),
        "attestation.V20": msgspec.structs.replace(mine, attest=his.attest),
    }
    for check, key in swaps.items():
        lie = requoted(cast, request, key=key)
        found = check_request(lie, bundle.statement, cast.situation("sec1"))
        # Creation data with a byte behind them do not even parse.
        wanted = {check, "attestation.V02"} if check == "attestation.V31" else {check}
        assert wanted & {v.check for v in found if v.outcome == "fail"}, check
        with pytest.raises(Refused):
            cast.approve(bundle, lie, "sec1")


def test_an_unsigned_policy_is_refused(cast: Cast) -> None:
    """Nobody's, strangers' or spoilt signatures make no policy, even where its digest is pinned."""
    policy = cast.make_policy(environment="unsigned")
    genuine = decode_envelope(cast.sign(policy, "cus1", "cus2"))
    with pytest.raises(Malformed):
        decode_envelope(encode(msgspec.structs.replace(genuine, signatures=())))
    from custody.ops.home import Home
    from custody.ops.trust import pin

    for signers in (("sec1", "sec2"), ("cus1",)):
        heap = sort_documents([("p.dsse", cast.sign(policy, *signers))])
        home = Home(cast.folder / "homes" / "trusting")
        with refused(cast, "policy.threshold"):
            pin(home, documents=heap, digest=heap.policies[0].digest, now=NOW)


def test_a_huge_tree_is_refused_at_once(cast: Cast) -> None:
    """A tree that nobody could ever check every set of costs its reader no time."""
    crowd = Threshold(k=16, of=tuple(Person(principal=f"p{n}") for n in range(32)))
    cast.next_policy(quorum=crowd)
    start = time.monotonic()
    with refused(cast, "policy.quorum"):
        cast.situation("sec1")
    assert time.monotonic() - start < 5


def test_a_clock_set_back_brings_nothing_back(cast: Cast, tmp_path: Path) -> None:
    """A host that sets its clock back finds no policy, or the TPM's own deadline in the way."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    with refused(cast, "policy.expired"):
        cast.open(bundle, request, answers, tmp_path / "out", now=NOW - timedelta(days=40))
    with pytest.raises(CustodyError):
        cast.open(bundle, request, answers, tmp_path / "out", now=NOW - timedelta(hours=1))
    assert not (tmp_path / "out").exists()


def test_old_approvals_do_not_follow_a_new_manifest(cast: Cast, tmp_path: Path) -> None:
    """Approvals of a manifest say nothing of the one that replaces it, or of the one before."""
    old = cast.seal("old")
    asked = cast.request(old)
    answers = [cast.approve(old, asked, who) for who in QUORUM]
    new = cast.seal("new", replaces=old.statement.digest)
    request = cast.request(new)
    with pytest.raises(Incomplete):
        cast.open(new, request, answers, tmp_path / "out")
    with refused(cast, "request.manifest"):
        cast.open(new, asked, answers, tmp_path / "out")
    with refused(cast, "request.manifest"):
        cast.open(old, request, answers, tmp_path / "out")


def test_a_second_key_does_not_make_a_second_officer(machine: Swtpm, tmp_path: Path) -> None:
    """Both tokens of an officer sign, one's share fails: he is still one officer, and suffices."""
    cast = ready(tmp_path, machine, sec1=2)
    bundle = cast.seal()
    request = cast.request(bundle)
    first = cast.approve(bundle, request, "sec1")
    later = NOW + timedelta(minutes=1)
    second = cast.approve(bundle, request, "sec1", token=1, now=later)
    rest = [cast.approve(bundle, request, who) for who in ("sec3", "lead2")]
    answers = [spoilt(cast, first, "sec1", "another"), second, *rest]
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    assert ["0/0"] == [bad.leaf for bad in opened.bad_shares]
    assert 3 == len(opened.officers)
    assert audit(cast, case_of(cast, bundle, request, answers, opened)).sound


def test_an_approval_names_who_signed_its_terms(cast: Cast) -> None:
    """Terms signed by another officer than the author count for neither."""
    bundle = cast.seal()
    request = cast.request(bundle)
    other = as_approval(cast.approve(bundle, request, "sec2")).predicate.terms_signature
    mixed = changed(cast, cast.approve(bundle, request, "sec1"), "sec1", terms_signature=other)
    assert [{"approval.terms-signature"}] == faults(tallied(cast, bundle, request, mixed))


def test_an_audit_names_the_revoked_officer_of_its_moment(cast: Cast, tmp_path: Path) -> None:
    """Revoked before the moment: no release.  Revoked after it: the release stands."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    opened = cast.open(bundle, request, answers, tmp_path / "out")
    key = cast.people["sec1"].signer.spki
    for at, sound in ((NOW - timedelta(minutes=1), False), (NOW + timedelta(minutes=1), True)):
        cast.crl = cast.make_crl(number=2, revoked=[key], at=at)
        cast.refresh()
        report = audit(cast, case_of(cast, bundle, request, answers, opened))
        assert sound == report.sound
        assert sound or "receipt.approvals" in failed(report)


def test_a_bundle_shows_no_name_and_no_weight(cast: Cast) -> None:
    """Who stores a bundle reads no file name, no version, no weight, and a padded size."""
    bundle = cast.seal()
    model = cast.folder / "model"
    weights = (model / "model.safetensors").read_bytes()
    words = (b"model.safetensors", b"tokenizer", b"vocab.txt", b'"tiny"', b'{"hidden":384}')
    for path in bundle.path.iterdir():
        data = path.read_bytes()
        assert not [word for word in (*words, weights[:24], weights[-24:]) if word in data]
    (model / "config.json").write_bytes(b'{"hidden":384,"more":1}')
    other = cast.folder / "other.bundle"
    cast.seal_into(model, other)
    sizes = [
        {path.name: path.stat().st_size for path in folder.iterdir() if path.suffix != ".dsse"}
        for folder in (bundle.path, other)
    ]
    assert sizes[0] == sizes[1]
