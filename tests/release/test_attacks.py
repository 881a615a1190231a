"""What somebody tries who can write into every folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from custody.encoding import encode
from custody.errors import Refused, Unavailable
from custody.ops.approve import review_requests
from custody.ops.folders import read_folder
from custody.ops.open import interrupted
from custody.ops.receipts import Burnt
from tests.release.cast import NOW, Cast, as_approval
from tests.release.expect import (
    QUORUM,
    opened,
    refused,
    resealed,
    spoil,
)


def write_environment(cast: Cast, folder: Path) -> None:
    """Write the environment's public files, as they are carried."""
    folder.mkdir()
    for number, data in enumerate(cast.policies):
        (folder / f"policy-{number}.dsse").write_bytes(data)
    for kind in ("enrolments", "golden_sets", "authorisations"):
        for number, statement in enumerate(getattr(cast.documents, kind)):
            (folder / f"{kind}-{number}.dsse").write_bytes(encode(statement.envelope))
    for number, der in enumerate(cast.certificates):
        (folder / f"{number}.cer").write_bytes(der)
    (folder / "authority.crl").write_bytes(cast.crl)


def test_spoilt_copies_hide_nothing(cast: Cast, tmp_path: Path) -> None:
    """Copies of every statement with bad signatures, before and behind, hide no good one."""
    folder = tmp_path / "env"
    write_environment(cast, folder)
    bundle = cast.seal()
    request = cast.request(bundle)
    for number, who in enumerate(QUORUM):
        (folder / f"answer-{number}.dsse").write_bytes(cast.approve(bundle, request, who))
    for path in sorted(folder.glob("*.dsse")):
        for name, extra in (("0", 0), ("zz", 0), ("1", 3)):
            rotten = spoil(path.read_bytes(), extra if "answer" not in path.name else 0)
            (folder / f"{name}-{path.name}").write_bytes(rotten)
    cast.documents = read_folder(folder)
    cast.open(bundle, request, [], tmp_path / "out")


JUNK: dict[str, Callable[[Path], object]] = {
    "a statement that is none": lambda f: (f / "a.dsse").write_bytes(b"{}"),
    "half a statement": lambda f: (f / "a.dsse").write_bytes(b'{"payload":"'),
    "bytes that are no text": lambda f: (f / "a.dsse").write_bytes(b'{"payload":"\xff"}'),
    "deep nesting": lambda f: (f / "a.dsse").write_bytes(b"[" * 100_000),
    "an oversize statement": lambda f: (f / "a.dsse").write_bytes(bytes((16 << 20) + 1)),
    "a certificate that is none": lambda f: (f / "a.cer").write_bytes(b"junk"),
    "a revocation list that is none": lambda f: (f / "a.crl").write_bytes(b"junk"),
    "a link out of the folder": lambda f: (f / "a.dsse").symlink_to("/dev/zero"),
    "a pipe": lambda f: os.mkfifo(f / "a.dsse"),
    "a folder called a statement": lambda f: (f / "a.dsse").mkdir(),
    "a name that is no text": lambda f: (f / os.fsdecode(b"\xff\xfe.dsse")).write_bytes(b"x"),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_in_a_folder_blocks_nobody(cast: Cast, tmp_path: Path, name: str) -> None:
    """Whatever lies beside an environment's files, who judges by them still can."""
    folder = tmp_path / "env"
    write_environment(cast, folder)
    JUNK[name](folder)
    bundle = cast.seal()
    cast.documents = read_folder(folder)
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    cast.open(bundle, request, answers, tmp_path / "out")


def test_strangers_certificates_and_lists_change_nothing(cast: Cast, tmp_path: Path) -> None:
    """Certificates and revocation lists of an authority the policy does not name do nothing."""
    stranger = Cast(tmp_path / "stranger", cast.machine, cast.tpm)
    stranger.people = cast.people
    stranger.certificates = []
    for someone in cast.people.values():
        stranger.certify(someone)
    everybody = [key for p in cast.people.values() for key in (p.signer.spki,)]
    crl = stranger.make_crl(number=99, revoked=everybody)
    extra = [(f"s{n}.cer", der) for n, der in enumerate(stranger.certificates)]
    cast.refresh(*extra, ("s.crl", crl))
    opened(cast)
    memory = cast.home("host").memory()
    assert [1] == [crl.number for crl in memory.crls]


def test_an_older_revocation_list_brings_no_key_back(cast: Cast) -> None:
    """Once a newer list was seen, the older one that lacks an entry is refused."""
    bundle = cast.seal()
    old = cast.documents
    cast.crl = cast.make_crl(number=2, revoked=[cast.people["pub"].signer.spki])
    cast.refresh()
    with refused(cast, "certificate.revoked"):
        cast.request(bundle)
    cast.documents = old
    with refused(cast, "crl.number"):
        cast.request(bundle)


def test_a_newer_list_that_forgets_brings_no_key_back(cast: Cast) -> None:
    """Any list the authority ever signed revokes, as long as somebody shows it."""
    bundle = cast.seal()
    revoking = cast.make_crl(number=2, revoked=[cast.people["pub"].signer.spki])
    cast.crl = cast.make_crl(number=3)
    cast.refresh(("two.crl", revoking))
    with refused(cast, "certificate.revoked"):
        cast.request(bundle)


def test_no_revocation_list_is_no_release(cast: Cast) -> None:
    """Without a fresh list nobody is taken for unrevoked."""
    bundle = cast.seal()
    cast.documents = replace(cast.documents, crls=())
    with refused(cast, "crl.found"):
        cast.request(bundle)
    cast.refresh()
    late = NOW + timedelta(days=9)
    with refused(cast, "crl.fresh"):
        cast.request(bundle, now=late)


def test_a_review_does_not_compare_with_a_strangers_release(cast: Cast) -> None:
    """Anybody can seal to an officer's key; a "previous release" must be a publisher's."""
    old, new = cast.seal("old"), cast.seal("new")
    request = cast.request(new)
    situation = cast.situation("sec1")
    opener = cast.people["sec1"].opener
    review = review_requests(new, [request], situation=situation, opener=opener, previous=old)
    assert review.changes is not None
    forged = resealed(cast, old, by="cus1")
    with pytest.raises(Refused) as caught:
        review_requests(new, [request], situation=situation, opener=opener, previous=forged)
    assert "manifest.author" == caught.value.check


def test_what_was_reviewed_is_what_is_approved(cast: Cast) -> None:
    """Files changed after an officer looked at them change nothing of what he signs."""
    bundle = cast.seal()
    request = cast.request(bundle)
    seen = review_requests(
        bundle, [request], situation=cast.situation("sec1"), opener=cast.people["sec1"].opener
    )
    other = cast.seal("other")
    for name in ("manifest.dsse", "contents.sealed"):
        (bundle.path / name).write_bytes((other.path / name).read_bytes())
    answer = as_approval(cast.approve(bundle, request, "sec1")).predicate
    assert seen.manifest.digest == answer.manifest
    assert request.digest == answer.request


def test_a_failed_landing_leaves_no_receipt(
    cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the model cannot appear, there is no receipt of it and the request lives on."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    target = tmp_path / "out"

    def land(output: Path, where: Path) -> None:
        raise Unavailable("disk full", where=str(where))

    with monkeypatch.context() as patch:
        patch.setattr("custody.ops.landing._land", _only(target, land))
        with pytest.raises(Unavailable):
            cast.open(bundle, request, answers, target)
    entry = cast.place.ledger.find(request.digest)
    assert not cast.place.receipt_path(request.digest).exists()
    assert entry.landing is None
    target.mkdir()
    assert not interrupted(entry, target, cast.place)
    target.rmdir()
    cast.open(bundle, request, answers, target)


def _only(target: Path, land: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    from custody.ops import landing

    real = landing._land

    def choose(output: Path, where: Path) -> None:
        (land if where == target else real)(output, where)

    return choose


def test_a_directory_of_that_name_is_not_an_opened_model(cast: Cast, tmp_path: Path) -> None:
    """Only the very directory a killed run made counts as opened; any other costs no approvals."""
    bundle = cast.seal()
    request = cast.request(bundle)
    place = cast.place
    entry = place.ledger.find(request.digest)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    target = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("custody.ops.open.burn", lambda *_, **__: Burnt(0, b""))
        cast.open(bundle, request, answers, target)
    entry = place.ledger.find(request.digest)
    assert interrupted(entry, target, place)
    target.rename(tmp_path / "kept")
    assert not interrupted(entry, target, place)
    target.mkdir()
    assert not interrupted(entry, target, place)
    target.rmdir()
    target.symlink_to(tmp_path / "kept")
    assert not interrupted(entry, target, place)
    assert not interrupted(entry, tmp_path / "kept", place)


def test_an_existing_target_is_refused(cast: Cast, tmp_path: Path) -> None:
    """Nothing is ever written over: not a file, a directory or a link."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in QUORUM]
    targets = [tmp_path / name for name in ("file", "folder", "link")]
    targets[0].write_bytes(b"mine")
    targets[1].mkdir()
    targets[2].symlink_to(tmp_path / "nowhere")
    for target in targets:
        with refused(cast, "target.exists"):
            cast.open(bundle, request, answers, target)
    cast.open(bundle, request, answers, tmp_path / "out")
