"""One release from seal to audit, against a real swtpm."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from custody.errors import Incomplete, Refused
from custody.formats.case import Documents, merge, sort_documents
from custody.keys.tpm import open_host
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from custody.ops.audit import audit_case
from tests.release.cast import Cast


@pytest.fixture
def cast(machine: Swtpm, tmp_path: Path) -> Cast:
    """Give a cast whose host has booted and is enrolled."""
    cast = Cast(tmp_path, machine, open_host(TpmUri(tcti=machine.tcti)))
    cast.boot()
    cast.enrol()
    return cast


def same_tree(left: Path, right: Path) -> bool:
    """Compare two models byte for byte."""
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
    others = sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
    return names == others and not filecmp.cmpfiles(left, right, names, shallow=False)[1]


def test_a_release_opens_and_is_audited(cast: Cast, tmp_path: Path) -> None:
    """A sealed model that its quorum released opens unchanged, and an auditor can prove it."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "sec3", "lead2")]
    opened = cast.open(bundle, request, answers, tmp_path / "out")

    assert same_tree(tmp_path / "model", tmp_path / "out")
    assert {"sec1", "sec3", "lead2"} == set(opened.officers)
    files = [(f"a{n}.dsse", data) for n, data in enumerate(answers)]
    files += [
        ("receipt.dsse", opened.receipt_data),
        ("burn.dsse", opened.burn_data),
        ("manifest.dsse", (bundle.path / "manifest.dsse").read_bytes()),
    ]
    case = merge(cast.documents, sort_documents(files))
    case = merge(case, Documents(requests=(request,)))
    report = audit_case(case, pin=cast.pin)
    assert [] == [v for r in report.releases for v in r.verdicts if v.outcome == "fail"]
    assert report.sound
    assert "opened-and-burned" == report.releases[0].outcome


def test_one_approval_short_opens_nothing(cast: Cast, tmp_path: Path) -> None:
    """Two of the three approvals needed open nothing, and the missing officers are named."""
    bundle = cast.seal()
    request = cast.request(bundle)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "lead2")]

    with pytest.raises(Incomplete) as caught:
        cast.open(bundle, request, answers, tmp_path / "out")
    assert {"sec2", "sec3"} == set(caught.value.missing)
    assert not (tmp_path / "out").exists()


def test_an_opened_request_is_burnt(cast: Cast, tmp_path: Path) -> None:
    """After opening, the same approvals open nothing more."""
    bundle = cast.seal()
    request = cast.request(bundle)
    kept = cast.place.ledger.find(request.digest)
    answers = [cast.approve(bundle, request, who) for who in ("sec1", "sec3", "lead2")]
    cast.open(bundle, request, answers, tmp_path / "out")
    cast.place.ledger.keep(kept)

    with pytest.raises(Refused) as caught:
        cast.open(bundle, request, answers, tmp_path / "again")
    assert "tpm.counter" == caught.value.check
