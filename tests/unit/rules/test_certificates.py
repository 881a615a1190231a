from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from custody.crypto.certificates import (
    Revocation,
    Use,
    issue_authority,
    issue_certificate,
    issue_crl,
    read_certificate,
)
from custody.crypto.signature import public_bytes
from custody.encoding import key_id, parse_time
from custody.errors import Refused
from custody.rules import certificate_path
from custody.rules.certificates import check_certificate, read_revocation_lists
from custody.rules.verdicts import Verdict, passed, require
from tests.unit.crypto.vectors import VECTORS, Vector, each

START = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CHECKS = {
    "certificate.found",
    "certificate.path",
    "certificate.usage",
    "certificate.subject",
    "certificate.validity",
    "certificate.revoked",
    "crl.found",
    "crl.number",
    "crl.fresh",
}


class Small:
    """One authority, one certificate, one list that names somebody else."""

    def __init__(self) -> None:
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.spki = public_bytes(self.key.public_key())
        self.ca = issue_authority(
            self.ca_key, name="authority", not_before=START, not_after=START + 900 * DAY
        )
        self.certificate = issue_certificate(
            self.ca_key,
            self.ca,
            spki=self.spki,
            principal="alice",
            display="Alice",
            use="sign",
            not_before=START,
            not_after=START + 365 * DAY,
        )
        stranger = Revocation(serial=5, revoked_at=START, reason="superseded")
        self.crl = self.list(7, stranger)

    def list(self, number: int, *entries: Revocation) -> bytes:
        return issue_crl(
            self.ca_key,
            self.ca,
            entries=entries,
            number=number,
            this_update=START,
            next_update=START + 60 * DAY,
        )

    def judge(
        self, certificate: bytes, *crls: bytes, moment: datetime = START + DAY
    ) -> tuple[Verdict, ...]:
        return check_certificate(
            self.spki,
            use="sign",
            principal="alice",
            certificates=[certificate],
            authorities=[self.ca],
            crls=crls,
            crl_floor={},
            crl_max_age_seconds=60 * 86400,
            moment=moment,
        )


SMALL = Small()


def judge(vector: Vector) -> tuple[Verdict, ...]:
    """Ask about a vector what it wants to know."""

    def blobs(header: str) -> list[bytes]:
        return [base64.b64decode(text, validate=True) for text in vector[header].split()]

    authority, _, number = vector["floor"].partition("=")
    return check_certificate(
        blobs("spki")[0],
        use=cast("Use", vector["use"]),
        principal=vector["principal"],
        certificates=blobs("certificates"),
        authorities=blobs("authorities"),
        crls=blobs("crls"),
        crl_floor={authority: int(number)} if number else {},
        crl_max_age_seconds=int(vector["max-age-days"]) * 86400,
        moment=parse_time(vector["moment"]),
    )


@each(
    "certificates/judge.txt",
    "expect",
    "moment",
    "use",
    "principal",
    "max-age-days",
    "floor",
    "spki",
    "authorities",
    "certificates",
    "crls",
)
def test_vectors(vector: Vector) -> None:
    """Exactly the checks that a vector names fail; every verdict has a known id and a reason."""
    verdicts = judge(vector)
    failed = sorted({v.check for v in verdicts if v.outcome == "fail"})
    word, *checks = vector["expect"].split()
    assert (word, sorted(checks)) == ("fail" if failed else "pass", failed)
    assert (word == "pass") == passed(verdicts)
    assert CHECKS >= {v.check for v in verdicts}
    assert all(v.reason and v.reason.isprintable() for v in verdicts)


def test_every_check_is_made_for_a_good_certificate() -> None:
    """A pass means that each of the nine checks passed, none of them skipped."""
    verdicts = SMALL.judge(SMALL.certificate, SMALL.crl)
    assert sorted(CHECKS) == sorted(v.check for v in verdicts if v.outcome == "pass")


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_can_fail(check: str) -> None:
    """Each check has a vector that fails it alone or with what follows from the same fault."""
    text = (VECTORS / "certificates/judge.txt").read_text(encoding="utf-8")
    assert any(check in line for line in text.splitlines() if line.startswith("expect: fail"))


def test_a_failed_certificate_is_refused_by_its_check() -> None:
    """`require` names the check that failed."""
    with pytest.raises(Refused) as refused:
        require(SMALL.judge(SMALL.certificate))
    assert "crl.found" == refused.value.check


def test_a_later_revocation_is_told() -> None:
    """A revocation dated after the moment passes, and the reason says when it was."""
    serial = read_certificate(SMALL.certificate).serial_number
    late = Revocation(serial=serial, revoked_at=START + 9 * DAY, reason="keyCompromise")
    verdicts = SMALL.judge(SMALL.certificate, SMALL.list(8, late))
    reason = next(v.reason for v in verdicts if v.check == "certificate.revoked")
    assert passed(verdicts)
    assert "2027-01-10T00:00:00Z (keyCompromise), after the moment" in reason


@given(st.data())
def test_no_changed_certificate_passes(data: st.DataObject) -> None:
    """Changing one byte of a certificate, anywhere, never passes."""
    at = data.draw(st.integers(0, len(SMALL.certificate) - 1))
    changed = bytearray(SMALL.certificate)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert not passed(SMALL.judge(bytes(changed), SMALL.crl))


@given(st.data())
def test_no_changed_list_passes(data: st.DataObject) -> None:
    """Changing one byte of the only revocation list, anywhere, never passes."""
    at = data.draw(st.integers(0, len(SMALL.crl) - 1))
    changed = bytearray(SMALL.crl)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert not passed(SMALL.judge(SMALL.certificate, bytes(changed)))


@pytest.mark.soak
def test_no_changed_byte_passes_at_all() -> None:
    """Every other value of every byte of certificate and list fails, with none left out."""
    for at, changed in changes(SMALL.certificate):
        assert not passed(SMALL.judge(changed, SMALL.crl)), at
    for at, changed in changes(SMALL.crl):
        assert not passed(SMALL.judge(SMALL.certificate, changed)), at


def changes(good: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield everything that differs in one byte, and where."""
    for at, value in enumerate(good):
        for other in set(range(256)) - {value}:
            yield at, good[:at] + bytes([other]) + good[at + 1 :]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_junk_never_passes_and_never_blocks(certificate: bytes, crl: bytes) -> None:
    """Junk alone fails by verdict, not by exception; junk beside the good files changes nothing."""
    assert not passed(SMALL.judge(certificate, SMALL.crl))
    assert not passed(SMALL.judge(SMALL.certificate, crl))
    assert passed(SMALL.judge(SMALL.certificate, SMALL.crl, crl))


def test_judging_works_inside_an_event_loop() -> None:
    """A caller that runs an event loop gets the same verdicts as one that does not."""

    async def inside() -> tuple[Verdict, ...]:
        return SMALL.judge(SMALL.certificate, SMALL.crl, moment=START + 2 * DAY)

    assert SMALL.judge(SMALL.certificate, SMALL.crl, moment=START + 2 * DAY) == asyncio.run(
        inside()
    )


def test_the_path_is_judged_even_when_our_own_checks_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that fails for a reason no other check saw fails the certificate."""
    monkeypatch.setattr(
        "custody.rules.certificates.walk_path", lambda *_: (("certificate.revoked",), "found")
    )
    failed = [v.check for v in SMALL.judge(SMALL.certificate, SMALL.crl) if v.outcome == "fail"]
    assert ["certificate.path"] == failed


def test_a_walk_that_waits_is_a_fault() -> None:
    """A validator that wanted to fetch something is never taken for one that finished."""
    with pytest.raises(AssertionError, match="wanted to wait"):
        certificate_path._finish(asyncio.sleep(0))


def test_lists_are_read_for_their_authority_only() -> None:
    """Only lists that an authority signed are returned, with its key id, oldest first."""
    other = Small()
    lists = read_revocation_lists(
        [SMALL.list(9), b"junk", other.crl, SMALL.crl], authorities=[SMALL.ca]
    )
    issuer = key_id(public_bytes(SMALL.ca_key.public_key()))
    assert [(issuer, 7), (issuer, 9)] == [(crl.issuer, crl.number) for crl in lists]


def test_start_up_loads_no_validator() -> None:
    """Importing the rule loads neither the validator nor sockets: commands start fast."""
    code = (
        "import sys, custody.rules.certificates;"
        "print([m for m in ('pyhanko_certvalidator', 'asyncio', 'ssl') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == out.stdout.strip()
