from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from custody.crypto.certificates import issue_authority, issue_crl
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Incomplete, Refused
from custody.formats.case import Documents
from custody.formats.envelope import Statement
from custody.formats.policy import Policy
from custody.ops.home import Home
from custody.ops.trust import current, pin
from tests.unit.people import NOW, authority, following, key, policy, signed_policy

ONE = signed_policy(policy())
TWO = signed_policy(following(ONE))


def documents(*policies: Statement[Policy], crls: tuple[bytes, ...] = ()) -> Documents:
    """Put policies and lists together."""
    return Documents(policies=policies, crls=crls)


def crl(number: int) -> bytes:
    """Issue an empty revocation list."""
    return issue_crl(
        key("ca"),
        authority(),
        entries=(),
        number=number,
        this_update=NOW,
        next_update=NOW + timedelta(days=7),
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "home")


def test_a_pin_is_remembered_with_what_follows_from_it(home: Home) -> None:
    """Pinning version 1 beside version 2 stands on version 2 and remembers both."""
    situation = pin(home, documents=documents(ONE, TWO), digest=ONE.digest, now=NOW)
    assert TWO.digest == situation.trusted.digest
    memory = home.memory()
    assert (ONE.digest, ONE.digest, TWO.digest, 2) == (
        memory.pin,
        memory.environment,
        memory.policy,
        memory.policy_version,
    )


def test_a_pin_must_be_a_policy_that_is_here(home: Home) -> None:
    """A digest of nothing at hand is refused and nothing is remembered."""
    with pytest.raises(Refused) as refused:
        pin(home, documents=documents(ONE), digest="0" * 64, now=NOW)
    assert "policy.pin" == refused.value.check
    assert not home.has_memory()


def test_nothing_is_trusted_before_a_pin(home: Home) -> None:
    """Without a pin the files being judged are all there is, and they are not believed."""
    with pytest.raises(Incomplete):
        current(home, documents=documents(ONE), now=NOW)


def test_an_older_policy_than_remembered_is_refused(home: Home) -> None:
    """Once version 2 was seen, version 1 alone is a rollback."""
    pin(home, documents=documents(ONE, TWO), digest=ONE.digest, now=NOW)
    with pytest.raises(Refused) as refused:
        current(home, documents=documents(ONE), now=NOW)
    assert "policy.rollback" == refused.value.check


def test_a_newer_policy_is_taken_and_remembered(home: Home) -> None:
    """Version 2 that follows from the pin is stood on as soon as it is seen."""
    pin(home, documents=documents(ONE), digest=ONE.digest, now=NOW)
    assert 2 == current(home, documents=documents(ONE, TWO), now=NOW).memory.policy_version
    assert 2 == home.memory().policy_version


def test_another_version_of_a_number_seen_before_is_refused(home: Home) -> None:
    """A root threshold that signed two versions 2 is noticed by whoever saw the other one."""
    pin(home, documents=documents(ONE, TWO), digest=ONE.digest, now=NOW)
    other = signed_policy(following(ONE, self_approval=True))
    with pytest.raises(Refused) as refused:
        current(home, documents=documents(ONE, other), now=NOW)
    assert "policy.fork" == refused.value.check


def test_a_fork_below_the_newest_version_is_noticed(home: Home) -> None:
    """A forked version 2 does not pass by having a version 3 on top of it."""
    pin(home, documents=documents(ONE, TWO), digest=ONE.digest, now=NOW)
    other = signed_policy(following(ONE, self_approval=True))
    three = signed_policy(following(other))
    with pytest.raises(Refused) as refused:
        current(home, documents=documents(ONE, other, three), now=NOW)
    assert "policy.fork" == refused.value.check


def test_a_home_trusts_one_environment(home: Home) -> None:
    """A second environment needs a home of its own."""
    pin(home, documents=documents(ONE), digest=ONE.digest, now=NOW)
    staging = signed_policy(policy(environment="staging"))
    with pytest.raises(Refused) as refused:
        pin(home, documents=documents(staging), digest=staging.digest, now=NOW)
    assert "trust.environment" == refused.value.check


def test_an_expired_policy_is_refused(home: Home) -> None:
    """Trust ends with the policy, whatever was pinned."""
    pin(home, documents=documents(ONE), digest=ONE.digest, now=NOW)
    with pytest.raises(Refused) as refused:
        current(home, documents=documents(ONE), now=ONE.predicate.expires_at)
    assert "policy.expired" == refused.value.check


def test_revocation_list_numbers_only_grow(home: Home) -> None:
    """The newest number of an authority is remembered when only older lists are at hand."""
    pin(home, documents=documents(ONE, crls=(crl(7), crl(3))), digest=ONE.digest, now=NOW)
    memory = current(home, documents=documents(ONE, crls=(crl(4),)), now=NOW).memory
    assert [7] == [entry.number for entry in memory.crls]


def test_a_list_of_a_stranger_moves_nothing(home: Home) -> None:
    """A revocation list that no authority of the policy signed cannot raise a remembered number."""
    stranger = issue_authority(
        key("stranger"),
        name="test authority",
        not_before=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=365),
    )
    forged = issue_crl(
        key("stranger"),
        stranger,
        entries=(),
        number=10**6,
        this_update=NOW,
        next_update=NOW + timedelta(days=7),
    )
    pin(home, documents=documents(ONE, crls=(forged, crl(2))), digest=ONE.digest, now=NOW)
    assert [2] == [entry.number for entry in home.memory().crls]
    assert key_id(public_bytes(key("ca").public_key())) == home.memory().crls[0].authority
