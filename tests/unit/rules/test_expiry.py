"""What of an environment ends, told ahead of time."""

from __future__ import annotations

from datetime import datetime, timedelta

from custody.crypto.certificates import (
    Revocation,
    issue_authority,
    issue_certificate,
    issue_crl,
    read_certificate,
)
from custody.crypto.signature import public_bytes
from custody.formats.case import Documents
from custody.rules.expiry import Ending, endings
from tests.unit.people import NOW, PEOPLE, authority, key, policy

DAY = timedelta(days=1)


def certificate(name: str, *, until: datetime, use: str = "sign") -> bytes:
    """Certify somebody's key."""
    label = name if use == "sign" else f"{name} share"
    return issue_certificate(
        key("ca"),
        authority(),
        spki=public_bytes(key(label).public_key()),
        principal=name,
        display=name,
        use=use,  # type: ignore[arg-type]
        not_before=NOW - DAY,
        not_after=until,
    )


def everybody(until: datetime) -> list[bytes]:
    """Certify all keys of the policy."""
    made = [certificate(name, until=until) for name in PEOPLE]
    officers = [name for name, role in PEOPLE.items() if role == "officer"]
    return made + [certificate(name, until=until, use="share") for name in officers]


def crl(*revoked: bytes, until: datetime, number: int = 1) -> bytes:
    """Issue a list."""
    return issue_crl(
        key("ca"),
        authority(),
        entries=[
            Revocation(
                serial=read_certificate(der).serial_number, revoked_at=NOW, reason="keyCompromise"
            )
            for der in revoked
        ],
        number=number,
        this_update=NOW,
        next_update=until,
    )


def found(certificates: list[bytes], *crls: bytes, at: datetime = NOW) -> tuple[Ending, ...]:
    """List what ends."""
    documents = Documents(certificates=tuple(certificates), crls=crls)
    return endings(policy(), documents, (), now=at)


def due(ends: tuple[Ending, ...], days: int, at: datetime = NOW) -> set[tuple[str, str]]:
    """Name what ends within some days."""
    return {(e.kind, e.subject.split("'")[0]) for e in ends if e.due(at, timedelta(days=days))}


def test_the_soonest_is_told_in_time() -> None:
    """One list, one certificate, the policy: each is due when its time is near, and not before."""
    certificates = [*everybody(NOW + 200 * DAY)]
    certificates[0] = certificate("cas", until=NOW + 20 * DAY)
    ends = found(certificates, crl(until=NOW + 7 * DAY))
    name = "CN=test authority, list 1"
    assert set() == due(ends, 6)
    assert {("revocation list", name)} == due(ends, 8)
    assert {("revocation list", name), ("certificate", "cas")} == due(ends, 30)
    assert ("policy", "production, version 1") in due(ends, 300)


def test_a_list_ends_at_the_policys_age_too() -> None:
    """The policy takes no list older than eight days, whatever the list says of itself."""
    ends = found(everybody(NOW + 200 * DAY), crl(until=NOW + 90 * DAY))
    (listed,) = (e for e in ends if e.kind == "revocation list")
    assert NOW + 8 * DAY == listed.at


def test_a_renewed_certificate_and_list_are_the_ones_that_count() -> None:
    """The later certificate of a key, and the list of the higher number."""
    certificates = [*everybody(NOW + 200 * DAY), certificate("cas", until=NOW + 5 * DAY)]
    lists = (crl(until=NOW + DAY), crl(until=NOW + 7 * DAY, number=2))
    assert {("revocation list", "CN=test authority, list 2")} == due(found(certificates, *lists), 7)


def test_a_strangers_certificate_hides_no_end() -> None:
    """Whoever can add a file could otherwise have a certificate run out with nobody warned."""
    certificates = everybody(NOW + 20 * DAY)
    strange = key("stranger")
    later = issue_certificate(
        strange,
        issue_authority(
            strange, name="test authority", not_before=NOW - DAY, not_after=NOW + 900 * DAY
        ),
        spki=public_bytes(key("cas").public_key()),
        principal="cas",
        display="cas",
        use="sign",
        not_before=NOW - DAY,
        not_after=NOW + 300 * DAY,
    )
    assert ("certificate", "cas") in due(
        found([*certificates, later], crl(until=NOW + 7 * DAY)), 30
    )


def test_what_is_bad_already_comes_first() -> None:
    """A revoked key, a key without a certificate, and no list at all are due at once."""
    certificates = everybody(NOW + 200 * DAY)
    revoked = found(certificates, crl(certificates[0], until=NOW + 7 * DAY), at=NOW + DAY)
    assert ("certificate", "cas", None) == (
        revoked[0].kind,
        revoked[0].subject.split("'")[0],
        revoked[0].at,
    )
    assert "revoked" in revoked[0].reason
    assert "the next policy without this key" == revoked[0].remedy
    assert ("certificate", "cas") in due(found(certificates[1:], crl(until=NOW + 7 * DAY)), 0)
    assert ("revocation list", "CN=test authority") in due(found(certificates), 0)


def test_what_has_ended_says_when() -> None:
    """A certificate that ran out is due, at the time it ended."""
    certificates = everybody(NOW + 2 * DAY)
    ends = found(certificates, crl(until=NOW + 7 * DAY), at=NOW + 3 * DAY)
    assert {NOW + 2 * DAY} == {e.at for e in ends if e.kind == "certificate"}
