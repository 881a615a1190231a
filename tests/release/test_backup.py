"""A token is wiped: its keys come back from paper, and nothing else does.

Tokens are real ones of SoftHSM; the people are those of the other scenarios.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from custody.crypto.certificates import issue_authority
from custody.crypto.signature import sign
from custody.crypto.wrappingkey import make_wrapping_key, wrapping_proof
from custody.errors import CustodyError, Incomplete, Malformed, Refused
from custody.formats.envelope import Statement, decode_statement, encode_statement
from custody.formats.keybackup import KeyBackup, SealedWrappingKey, WrappingKey
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import open_token
from custody.keys.pkcs11_audit import audit_token
from custody.keys.pkcs11_scratch import scratch_token
from custody.keys.uri import Pkcs11Uri
from custody.keys.wrapapi import wrapping_of
from custody.ops.backup import (
    back_up_authority,
    back_up_kek,
    make_wrapping,
    restore,
    state_backup,
    trust_wrapping,
)
from custody.ops.drill import drill
from custody.ops.recovery import MadeRecovery
from tests.device.conftest import SO_PIN, Bench, bench  # noqa: F401  a fixture
from tests.release.cast import NOW, Cast
from tests.release.test_recovery import found, words

#: Enough for what SoftHSM writes of a token, too little for a key.
_ROOM_BYTES = 512
HOLDERS = ("cus1", "cus2", "lead1")


def so(_prompt: str, /) -> bytearray:
    """The PIN of the tokens' security officer."""
    return bytearray(SO_PIN)


@contextmanager
def refused(check: str) -> Iterator[None]:
    """Demand a refusal by this check."""
    with pytest.raises(Refused) as caught:
        yield
    assert check == caught.value.check, caught.value


@dataclass
class Site:
    """A site's token with a KEK in it, and the recovery key that it is backed up under."""

    cast: Cast
    bench: Bench
    made: MadeRecovery
    uri: Pkcs11Uri
    wrapping: Statement[WrappingKey]

    def shares(self, *holders: str) -> list[str]:
        """The words of some people, of enough if none are named."""
        return words(self.made, *(holders or HOLDERS))

    def kek(self, label: str = "site") -> str:
        """Make a KEK; return its check value."""
        with open_token(self.uri) as token:
            return wrapping_of(token).make_kek(label, recoverable=True).info.check

    def backup(self, check: str, who: str = "cus1") -> bytes:
        """Back a KEK up, as a custodian."""
        situation = self.cast.situation("cus1")
        with open_token(self.uri) as token, token.session():
            info = wrapping_of(token).find_kek(check=check).info
            wrapped = back_up_kek(token, info, self.wrapping, situation=situation)
        signer = self.cast.people[who].signer
        return state_backup(wrapped, self.wrapping, situation=situation, signer=signer)

    def restore(self, uri: Pkcs11Uri, data: bytes, *holders: str, **changed: Any) -> str:
        """Bring a key back, as another custodian."""
        given: dict[str, Any] = {"record": self.made.record, "shares": self.shares(*holders)}
        given |= changed
        with open_token(uri) as token, token.session():
            return restore(
                token,
                decode_statement(KeyBackup, data),
                given["record"],
                given["shares"],
                b"",
                situation=self.cast.situation("cus2"),
            )

    def resigned(self, data: bytes, who: str = "cus1", **changed: Any) -> bytes:
        """Change what a backup says and sign it again, as only its signer could."""
        said = replace(decode_statement(KeyBackup, data).predicate, **changed)
        return self.cast.people[who].signer.statement(said)

    def wipe(self) -> None:
        """Lose the token: its files, and what this process holds of them."""
        shutil.rmtree(self.bench.store.directory / "tokens")
        (self.bench.store.directory / "tokens").mkdir(mode=0o700)
        self.bench.reload()


@pytest.fixture
def site(cast: Cast, bench: Bench) -> Site:  # noqa: F811
    """A site whose token trusts the recovery key's wrapping key."""
    made = found(cast)
    signer = cast.people["cus1"].signer
    data = make_wrapping(made.record, words(made, *HOLDERS), b"", signer=signer, now=NOW)
    wrapping = decode_statement(WrappingKey, data)
    uri = bench.token("site")
    with open_token(uri) as token:
        assert trust_wrapping(token, wrapping, situation=cast.situation("cus1"), so_pin=so)
    return Site(cast, bench, made, uri, wrapping)


def empty(uri: Pkcs11Uri) -> bool:
    """Say whether a token holds no object at all."""
    return not audit_token(uri).objects


def test_a_kek_is_restored_from_paper_after_its_token_is_wiped(site: Site) -> None:
    """Two years of wrapped secrets open again, by a new token and words on paper."""
    check, secret = site.kek(), os.urandom(32)
    with open_token(site.uri) as token:
        wrapped = wrapping_of(token).find_kek(check=check).wrap(secret)
    data = site.backup(check)
    site.wipe()
    new = site.bench.token("new")
    uri = site.restore(new, data)
    with open_token(new) as token:
        kek = wrapping_of(token).find_kek(check=check)
        assert str(kek.info.uri) == uri
        assert secret == kek.unwrap(wrapped)
    assert [] == [finding for finding in audit_token(new).findings if finding.weak]


def test_an_authority_is_restored_from_paper_after_its_token_is_wiped(site: Site) -> None:
    """The authority that the policy lists goes on signing; one that no policy lists stays away."""
    with open_token(site.uri) as token:
        keys = [token.make(KeyRole.CA, n, ec.SECP384R1(), recoverable=True) for n in ("ca", "no")]
        listed, stranger = (
            issue_authority(key, name="site", not_before=NOW, not_after=NOW + timedelta(days=900))
            for key in keys
        )
    policy = site.cast.situation("cus1").trusted.policy
    site.cast.next_policy(authorities=(*policy.authorities, listed))
    situation = site.cast.situation("cus1")
    made = []
    for certificate in (listed, stranger):
        with open_token(site.uri) as token, token.session():
            wrapped = back_up_authority(
                token, site.wrapping, certificate=certificate, situation=situation
            )
        signer = site.cast.people["cus1"].signer
        made.append(state_backup(wrapped, site.wrapping, situation=situation, signer=signer))
    site.wipe()
    new = site.bench.token("new")
    with refused("backup.authority"):
        site.restore(new, made[1])
    assert empty(new)
    site.restore(new, made[0])
    with open_token(new) as token:
        signature = token.find(
            KeyRole.CA, key_id=decode_statement(KeyBackup, made[0]).predicate.check
        ).sign(b"list", ec.ECDSA(hashes.SHA384()))
    keys[0].public_key().verify(signature, b"list", ec.ECDSA(hashes.SHA384()))


def test_what_a_custodian_did_not_sign_is_not_unwrapped(site: Site) -> None:
    """Attributes, check value, blob and wrapping key: each change breaks the signature."""
    check, other = site.kek(), site.kek("other")
    data = site.backup(check)
    statement = decode_statement(KeyBackup, data)
    blob = decode_statement(KeyBackup, site.backup(other)).predicate.wrapped
    attributes = tuple(
        replace(item, value="true") if item.name == "DECRYPT" else item
        for item in statement.predicate.attributes
    )
    new = site.bench.token("new")
    for changed in (
        {"attributes": attributes},
        {"check": other},
        {"wrapped": blob},
        {"label": "mine"},
        {"wrapping": replace(statement.predicate.wrapping, salt=bytes(32))},
    ):
        said = replace(statement.predicate, **changed)
        with refused("backup.signature"):
            site.restore(new, encode_statement(said, statement.envelope.signatures))
    assert empty(new)


def test_what_a_custodian_signed_wrongly_is_not_left_in_the_token(site: Site) -> None:
    """Signed anew with another key's blob, check value or attributes, nothing comes of it."""
    check, other = site.kek(), site.kek("other")
    data = site.backup(check)
    said = decode_statement(KeyBackup, data).predicate
    blob = decode_statement(KeyBackup, site.backup(other)).predicate.wrapped
    weak = tuple(
        replace(item, value="true") if item.name == "DECRYPT" else item for item in said.attributes
    )
    new = site.bench.token("new")
    for name, changed in (
        ("backup.attributes", {"attributes": weak}),
        ("backup.check", {"check": other}),
        ("backup.check", {"wrapped": blob}),
        ("backup.unwrap", {"wrapped": bytes(512)}),
        ("wrap.open", {"wrapping": replace(said.wrapping, salt=bytes(32))}),
    ):
        with refused(name):
            site.restore(new, site.resigned(data, **changed))
    assert empty(new)


def test_only_custodians_sign_backups_and_wrapping_keys(site: Site) -> None:
    """An officer's word brings no key into a token, and has no token trust a key."""
    data = site.backup(site.kek())
    new = site.bench.token("new")
    with refused("backup.author"):
        site.restore(new, site.resigned(data, who="sec1"))
    with refused("recovery.signer"):
        site.backup(site.kek("second"), who="sec1")
    forged = site.cast.people["sec1"].signer.statement(site.wrapping.predicate)
    with open_token(new) as token, refused("backup.author"):
        trust_wrapping(
            token,
            decode_statement(WrappingKey, forged),
            situation=site.cast.situation("cus1"),
            so_pin=so,
        )
    assert empty(new)


def test_a_custodian_alone_has_no_token_trust_a_key_that_he_keeps(site: Site) -> None:
    """A wrapping key that was stated without the shares takes nothing out, whoever signed it."""
    signer, situation = site.cast.people["cus1"].signer, site.cast.situation("cus1")
    said = site.wrapping.predicate
    his = make_wrapping_key(bytes(32), bytes.fromhex(said.record))
    kept = SealedWrappingKey(spki=his.spki, salt=his.salt, sealed=his.sealed)
    own = sign(signer.key, wrapping_proof(bytes.fromhex(said.record), his.spki))
    with open_token(site.uri) as token:
        for proof in (said.proof, own, bytes(72)):
            stated = signer.statement(replace(said, key=kept, proof=proof))
            with refused("backup.proof"):
                trust_wrapping(
                    token,
                    decode_statement(WrappingKey, stated),
                    situation=situation,
                    so_pin=so,
                )


def test_a_revoked_custodian_vouches_for_no_later_backup(site: Site) -> None:
    """What a custodian signed before his key was revoked counts; what he signs after does not."""
    data = site.backup(site.kek())
    later = site.resigned(data, made_at=NOW + timedelta(hours=2))
    cast = site.cast
    lost = cast.people["cus1"].signer.spki
    cast.crl = cast.make_crl(number=2, revoked=(lost,), at=NOW + timedelta(hours=1))
    cast.refresh()
    new = site.bench.token("new")
    with refused("backup.revoked"):
        site.restore(new, later)
    assert empty(new)
    assert site.restore(new, data)


def test_too_few_shares_and_shares_of_another_seed_restore_nothing(site: Site) -> None:
    """One share short, a share of another set, and another recovery key's record are refused."""
    data = site.backup(site.kek())
    new = site.bench.token("new")
    with pytest.raises(Incomplete) as caught:
        site.restore(new, data, "cus1", "lead1")
    assert caught.value.missing
    second = found(site.cast, epoch=2)
    with refused("recovery.set"):
        site.restore(new, data, shares=words(second, *HOLDERS))
    with refused("backup.record"):
        site.restore(new, data, record=second.record, shares=words(second, *HOLDERS))
    assert empty(new)
    # A newer recovery key does not take the older one's backups away.
    assert site.restore(new, data)


def test_a_bad_share_is_named_and_a_wrong_passphrase_is_caught(site: Site) -> None:
    """Whoever mistyped is told so by his place; a wrong passphrase brings nothing back."""
    data = site.backup(site.kek())
    new = site.bench.token("new")
    shares = site.shares()
    mistyped = shares[1].split()
    mistyped[4] = "academic" if mistyped[4] != "academic" else "acid"
    with pytest.raises(Refused, match="read word 5 again") as caught:
        site.restore(new, data, shares=[shares[0], " ".join(mistyped), shares[2]])
    assert "share 2" == caught.value.where
    made = found(site.cast, epoch=2, passphrase=b"correct horse")
    situation = site.cast.situation("cus1")
    held = words(made, *HOLDERS)
    signer = site.cast.people["cus1"].signer
    stated = make_wrapping(made.record, held, b"correct horse", signer=signer, now=NOW)
    wrapping = decode_statement(WrappingKey, stated)
    with open_token(site.uri) as token:
        trust_wrapping(token, wrapping, situation=situation, so_pin=so)
        info = wrapping_of(token).keks()[0]
        wrapped = back_up_kek(token, info, wrapping, situation=situation)
    backup = state_backup(wrapped, wrapping, situation=situation, signer=signer)
    with open_token(new) as token:
        for passphrase, outcome in ((b"correct house", Refused), (b"", Malformed)):
            with pytest.raises(outcome, match="passphrase"):
                restore(
                    token,
                    decode_statement(KeyBackup, backup),
                    made.record,
                    held,
                    passphrase,
                    situation=site.cast.situation("cus2"),
                )
    assert empty(new)


def test_a_wrapping_key_of_a_former_recovery_key_takes_nothing_out(site: Site) -> None:
    """When the policy names a new recovery key, backups are made under that one's wrapping key."""
    check = site.kek()
    found(site.cast, epoch=2)
    with refused("recovery.record"):
        site.backup(check)


def test_nothing_is_restored_over_a_key(site: Site) -> None:
    """Where the key still is, a backup of it is refused."""
    data = site.backup(site.kek())
    with refused("backup.exists"):
        site.restore(site.uri, data)


def test_a_full_token_keeps_nothing_of_a_restore(site: Site) -> None:
    """A token without room says so; with room the same backup comes back."""
    check = site.kek()
    data = site.backup(check)
    new = site.bench.token("new")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM_BYTES, limits[1]))
    try:
        with pytest.raises(CustodyError):
            site.restore(new, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    site.bench.reload()
    with open_token(new) as token:
        assert () == wrapping_of(token).keks()
    assert site.restore(new, data)


def test_a_drill_brings_keys_back_into_a_token_that_is_thrown_away(site: Site) -> None:
    """A drill says of each backup whether it would come back, and touches no token of anybody."""
    data = site.backup(site.kek())
    bent = site.resigned(data, check="00" * 32)
    forged = site.resigned(data, who="sec1")
    before = audit_token(site.uri).objects
    verdicts = drill(
        site.made.record,
        site.shares(),
        b"",
        [],
        situation=site.cast.situation("cus2"),
        backups=[decode_statement(KeyBackup, each) for each in (data, bent, forged)],
        new_token=scratch_token,
    )
    said = [(v.outcome, v.reason) for v in verdicts if v.check == "drill.backup"]
    assert ["pass", "fail", "fail"] == [outcome for outcome, _ in said]
    assert "comes back into another token" in said[0][1]
    assert "another key than the one" in said[1][1]
    assert "no custodian's" in said[2][1]
    assert before == audit_token(site.uri).objects
    with pytest.raises(CustodyError), scratch_token() as token:
        token.find(KeyRole.CA, id=b"ca-none")
    assert before == audit_token(site.uri).objects
