"""Revocation lists over several machines, and certificates issued again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from custody.crypto.certificates import (
    Reason,
    issue_authority,
    issue_certificate,
    issue_crl,
    read_certificate,
    read_crl,
    revocations_of,
)
from custody.crypto.signature import public_bytes
from custody.errors import Refused
from custody.ops import authority as ops
from custody.ops.home import Home
from tests.unit.people import NOW, key


def authority(folder: Path, name: str) -> ops.Authority:
    """Keep the authority's one key at one of its machines."""
    home = Home(folder / name)
    certificate = issue_authority(
        key("ca"), name="ca", not_before=NOW, not_after=NOW + timedelta(days=3000)
    )
    first = issue_crl(
        key("ca"),
        certificate,
        entries=(),
        number=1,
        this_update=NOW,
        next_update=NOW + timedelta(days=35),
    )
    home.begin()
    (home.path / "authority.crl").write_bytes(first)
    return ops.Authority(home=home, certificate=certificate, key=key("ca"))


def certificate(made: ops.Authority, name: str) -> bytes:
    """Issue a certificate for somebody."""
    return issue_certificate(
        key("ca"),
        made.certificate,
        spki=public_bytes(key(name).public_key()),
        principal=name,
        display=name,
        use="sign",
        not_before=NOW,
        not_after=NOW + timedelta(days=30),
    )


def serials(crl: bytes) -> set[int]:
    """Return the revoked serial numbers."""
    return {entry.serial for entry in revocations_of(read_crl(crl))}


def test_a_list_made_elsewhere_forgets_nobody(tmp_path: Path) -> None:
    """Two machines revoke one each, neither knowing of the other; the next list has both."""
    here, there = authority(tmp_path, "here"), authority(tmp_path, "there")
    bob, eve = certificate(here, "bob"), certificate(here, "eve")
    both = {read_certificate(der).serial_number for der in (bob, eve)}
    ops.revoke(here, [bob], reason="keyCompromise", since=NOW, now=NOW)
    ops.renew(there, now=NOW)
    newer = ops.revoke(there, [eve], reason="keyCompromise", since=NOW, now=NOW)
    assert both == serials(ops.renew(here, now=NOW, current=newer))
    # Nor when the list that is brought along is the older one.
    older = ops.revoke(authority(tmp_path, "third"), [eve], reason="superseded", since=NOW, now=NOW)
    fresh = authority(tmp_path, "fourth")
    ops.renew(fresh, now=NOW)
    assert serials(older) == serials(ops.renew(fresh, now=NOW, current=older))


def test_the_earliest_date_of_a_revocation_counts(tmp_path: Path) -> None:
    """A theft turns out to be older than was thought; it never becomes younger."""
    made = authority(tmp_path, "here")
    bob = certificate(made, "bob")
    for days, counted in ((2, 2), (9, 9), (1, 9)):
        crl = ops.revoke(
            made, [bob], reason="keyCompromise", since=NOW - timedelta(days=days), now=NOW
        )
        (entry,) = revocations_of(read_crl(crl))
        assert NOW - timedelta(days=counted) == entry.revoked_at
    # Nor does it by another machine's list, the newer of the two.
    there = authority(tmp_path, "there")
    for _ in range(9):
        ops.renew(there, now=NOW)
    later = ops.revoke(there, [bob], reason="superseded", since=NOW, now=NOW)
    (entry,) = revocations_of(read_crl(ops.renew(made, now=NOW, current=later)))
    assert (NOW - timedelta(days=9), "keyCompromise") == (entry.revoked_at, entry.reason)


def test_a_stolen_key_is_not_merely_superseded(tmp_path: Path) -> None:
    """Its reason says that it was stolen, whichever came first; a key superseded may come back."""
    made = authority(tmp_path, "here")
    bob = certificate(made, "bob")
    steps: tuple[tuple[Reason, Reason], ...] = (
        ("superseded", "superseded"),
        ("keyCompromise", "keyCompromise"),
        ("superseded", "keyCompromise"),
    )
    for reason, told in steps:
        crl = ops.revoke(made, [bob], reason=reason, since=NOW, now=NOW)
        (entry,) = revocations_of(read_crl(crl))
        assert told == entry.reason


def test_nobody_is_revoked_from_a_time_to_come(tmp_path: Path) -> None:
    """Such an entry would look like a revocation and be none; nothing is issued."""
    made = authority(tmp_path, "here")
    before = (made.home.path / "authority.crl").read_bytes()
    with pytest.raises(Refused, match="is to come") as caught:
        ops.revoke(
            made,
            [certificate(made, "bob")],
            reason="keyCompromise",
            since=NOW + timedelta(seconds=1),
            now=NOW,
        )
    assert "revoke.since" == caught.value.check
    assert before == (made.home.path / "authority.crl").read_bytes()


def test_certificates_issued_again_lie_beside_the_first(tmp_path: Path) -> None:
    """Before one ends there is another, and nothing is overwritten."""
    issued = ops.IssuedCertificate(name="bob.sign-00112233.cer", der=b"one")
    again = ops.IssuedCertificate(name="bob.sign-00112233.cer", der=b"two")
    (first,) = ops.write_certificates(tmp_path, [issued])
    (second,) = ops.write_certificates(tmp_path, [again])
    (third,) = ops.write_certificates(tmp_path, [again])
    assert ["bob.sign-00112233.cer", "bob.sign-00112233.2.cer", "bob.sign-00112233.3.cer"] == [
        path.name for path in (first, second, third)
    ]
    assert b"one" == first.read_bytes()
