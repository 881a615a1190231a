"""Keys out of one real token and into another: whole, the same, and as they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from msgspec.structs import replace
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error

from custody.crypto.bind import bind
from custody.crypto.signature import public_bytes
from custody.crypto.wrappingkey import Sealed, make_wrapping_key, opened
from custody.encoding import key_id
from custody.errors import Refused, Unavailable
from custody.formats.keybackup import KeyAttribute, KeyBackup, SealedWrappingKey
from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.pkcs11_audit import audit_token
from custody.keys.pkcs11_kek import CHECKED, UNWRAPPED, check_value
from custody.keys.pkcs11_trusted import carrier_search, carrier_template
from custody.keys.uri import Pkcs11Uri
from custody.keys.wrapapi import WrappedKey, backups_of, wrapping_of
from tests.device.conftest import SO_PIN, Bench
from tests.device.test_tookan import ALL, Attack, bare

SEED = hashlib.sha256(b"a recovery seed").digest()
RECORD = hashlib.sha256(b"a recovery record").digest()


def so(_prompt: str, /) -> bytearray:
    """The security officer's PIN."""
    return bytearray(SO_PIN)


@pytest.fixture(scope="module")
def sealed() -> Sealed:
    """An RSA-4096 key, which takes seconds to make."""
    return make_wrapping_key(SEED, RECORD)


def signed(wrapped: WrappedKey, sealed: Sealed, **changed: Any) -> KeyBackup:
    """Say of a wrapped key what a custodian would sign."""
    backup = KeyBackup(
        environment="production",
        record=RECORD.hex(),
        wrapping=SealedWrappingKey(spki=sealed.spki, salt=sealed.salt, sealed=sealed.sealed),
        made_at=datetime(2027, 1, 5, tzinfo=UTC),
        **{name: getattr(wrapped, name) for name in WrappedKey.__dataclass_fields__},
    )
    return replace(backup, **changed)


def attributes(backup: KeyBackup, **changed: Any) -> tuple[KeyAttribute, ...]:
    """Return what a backup says of its key, changed."""
    return tuple(
        replace(item, value=changed[item.name]) if item.name in changed else item
        for item in backup.attributes
    )


def restore(token: Pkcs11Token, backup: KeyBackup, sealed: Sealed) -> None:
    """Bring a key back by the seed."""
    with opened(sealed, SEED, RECORD) as private:
        backups_of(token).restore(backup, private)


@contextmanager
def refused(check: str) -> Iterator[None]:
    """Demand a refusal by this check."""
    with pytest.raises(Refused) as caught:
        yield
    assert check == caught.value.check, caught.value


@pytest.fixture
def kek(token: Pkcs11Token, sealed: Sealed) -> KeyBackup:
    """The backup of a KEK."""
    backups_of(token).trust(sealed.spki, so_pin=so)
    info = wrapping_of(token).make_kek("site", recoverable=True).info
    return signed(backups_of(token).wrap_kek(info, sealed.spki), sealed)


@pytest.fixture
def authority(token: Pkcs11Token, sealed: Sealed) -> KeyBackup:
    """The backup of an authority's key."""
    assert backups_of(token).trust(sealed.spki, so_pin=so)
    token.make(KeyRole.CA, "ca", ec.SECP384R1(), recoverable=True)
    (info,) = token.keys()
    return signed(backups_of(token).wrap_authority(info, sealed.spki), sealed)


@pytest.fixture
def new(bench: Bench, token: Pkcs11Token) -> Iterator[Pkcs11Token]:
    """Another token, empty."""
    with open_token(bench.token("new")) as opened_:
        yield opened_


def test_a_kek_comes_back_into_a_new_token(
    token: Pkcs11Token, kek: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """What the lost token wrapped, the new one unwraps."""
    secret = os.urandom(32)
    wrapped = wrapping_of(token).find_kek(check=kek.check).wrap(secret)
    restore(new, kek, sealed)
    again = wrapping_of(new).find_kek(check=kek.check)
    assert secret == again.unwrap(wrapped)
    assert (True, True) == (again.info.restored, again.info.recoverable)
    assert (kek.id, kek.label) == (again.info.id, again.info.label)


def test_an_authority_comes_back_into_a_new_token(
    authority: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """The restored key is found for its role and signs as the lost one did."""
    restore(new, authority, sealed)
    key = new.find(KeyRole.CA, key_id=authority.check)
    key.public_key().verify(
        key.sign(b"list", ec.ECDSA(hashes.SHA384())), b"list", ec.ECDSA(hashes.SHA384())
    )
    held = new.keys()
    assert [(authority.id, KeyRole.CA)] == [(info.id, info.role) for info in held]


def test_a_restored_key_can_be_backed_up_again(
    kek: KeyBackup, authority: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """The new token's backups say that its keys were not made in it, and nothing else differs."""
    restore(new, kek, sealed)
    restore(new, authority, sealed)
    backups_of(new).trust(sealed.spki, so_pin=so)
    info = wrapping_of(new).find_kek(check=kek.check).info
    for old, taken in (
        (kek, backups_of(new).wrap_kek(info, sealed.spki)),
        (authority, backups_of(new).wrap_authority(new.keys()[0], sealed.spki)),
    ):
        before = {item.name: item.value for item in old.attributes}
        after = {item.name: item.value for item in taken.attributes}
        assert {"LOCAL", "ALWAYS_SENSITIVE"} == {n for n in before if before[n] != after[n]}
        assert old.check == taken.check


def test_the_audit_knows_recoverable_keys(
    uri: Pkcs11Uri, kek: KeyBackup, authority: KeyBackup
) -> None:
    """Keys that can be backed up, and those they leave under, are not weak; each has its role."""
    report = audit_token(uri)
    assert [] == [finding for finding in report.findings if finding.weak]
    assert {"trusted"} <= {finding.name for finding in report.findings}
    assert {"kek", "ca", ""} == {item.role for item in report.objects}


def test_keys_leave_under_no_key_of_the_user(
    token: Pkcs11Token, kek: KeyBackup, authority: KeyBackup
) -> None:
    """Tookan's A2 on recoverable keys: one's own wrapping key takes nothing out, trusted or not."""
    with token._connection.login(writing=True) as session:
        template = {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: False,
            Attribute.VALUE: os.urandom(32),
            Attribute.WRAP: True,
        }
        known: Any = session.create_object(template)
        for kind, id_ in (
            (ObjectClass.SECRET_KEY, kek.id),
            (ObjectClass.PRIVATE_KEY, authority.id),
        ):
            (key,) = session.get_objects({Attribute.CLASS: kind, Attribute.ID: id_})
            with pytest.raises(PKCS11Error):
                known.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD)
        with pytest.raises(PKCS11Error):
            session.create_object({**template, Attribute.TRUSTED: True})


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.__name__)
def test_no_attack_works_on_the_keys_that_others_leave_under(
    token: Pkcs11Token, authority: KeyBackup, attack: Attack
) -> None:
    """Whoever knows the PIN gets nothing out of the carrier, nor of what may leave under it."""
    with token._connection.login(writing=True) as session:
        held = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
        assert [True] == [key[Attribute.TRUSTED] for key in held]
        private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: authority.id}
        for key in (*held, *session.get_objects(private)):
            with pytest.raises(PKCS11Error):
                attack(session, bare(key))


def test_a_key_made_to_stay_stays(token: Pkcs11Token, sealed: Sealed) -> None:
    """A key that was made without leave for a backup gets none, and its label is named."""
    backups_of(token).trust(sealed.spki, so_pin=so)
    info = wrapping_of(token).make_kek("stays", recoverable=False).info
    with refused("backup.never"):
        backups_of(token).wrap_kek(info, sealed.spki)
    token.make(KeyRole.CA, "ca", ec.SECP256R1())
    with refused("backup.never"):
        backups_of(token).wrap_authority(token.keys()[0], sealed.spki)


def test_nothing_leaves_before_the_security_officer_trusts_a_key(
    token: Pkcs11Token, sealed: Sealed
) -> None:
    """Without his act there is no backup, and another PIN than his is not enough for it."""
    info = wrapping_of(token).make_kek("site", recoverable=True).info
    with refused("backup.untrusted"):
        backups_of(token).wrap_kek(info, sealed.spki)
    with refused("token.pin"):
        backups_of(token).trust(sealed.spki, so_pin=lambda _prompt, /: bytearray(b"not his"))
    with token.session(), pytest.raises(Unavailable, match="user is logged in"):
        backups_of(token).trust(sealed.spki, so_pin=so)
    backups_of(token).trust(sealed.spki, so_pin=so)
    backups_of(token).trust(sealed.spki, so_pin=so)
    assert 512 == len(backups_of(token).wrap_kek(info, sealed.spki).wrapped)


def test_nothing_leaves_under_a_carrier_that_the_security_officer_brought(
    token: Pkcs11Token, sealed: Sealed
) -> None:
    """An AES key whose bytes he knows, laid where the carrier would be, is refused by name."""
    known = {
        **carrier_template(sealed.spki, "AES_KEY_WRAP_PAD"),
        Attribute.VALUE: os.urandom(32),
    }
    with token._connection.officer(so) as session:
        session.create_object(known)
    with refused("key.template"):
        backups_of(token).trust(sealed.spki, so_pin=so)
    token.make(KeyRole.CA, "ca", ec.SECP384R1(), recoverable=True)
    with refused("key.template"):
        backups_of(token).wrap_authority(token.keys()[0], sealed.spki)


def test_a_carrier_that_comes_back_as_a_kek_unwraps_no_authority(
    token: Pkcs11Token, authority: KeyBackup, kek: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """A custodian who says of a carrier that it is a KEK gets no key that it carried.

    Neither can be told from the other by what leaves under RSA; so they wrap by two mechanisms,
    which make two different things of the same key.
    """
    with token._connection.login() as session:
        (carrier,) = session.get_objects(carrier_search(sealed.spki))
        check = check_value(session, carrier, Mechanism.AES_KEY_WRAP_PAD)
    lie = replace(kek, wrapped=authority.wrapped, check=check)
    for told in ("AES_KEY_WRAP", "AES_KEY_WRAP_PAD"):
        changed = attributes(kek, ALLOWED_MECHANISMS=told)
        with pytest.raises(Refused):
            restore(new, replace(lie, attributes=changed), sealed)
    # Whoever cannot be kept from computing the check value that such a KEK would have: even then.
    with opened(sealed, SEED, RECORD) as private:
        value = private.decrypt(authority.wrapped, OAEP(MGF1(SHA1()), SHA1(), None))
    known = bind("kek-check", aes_key_wrap(value, CHECKED)).hex()
    restore(new, replace(lie, check=known), sealed)
    with new._connection.login(writing=True) as session:
        found = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: kek.id}
        held: Any = next(iter(session.get_objects(found)))
        for mechanism in (Mechanism.AES_KEY_WRAP, Mechanism.AES_KEY_WRAP_PAD):
            with pytest.raises(PKCS11Error):
                held.unwrap_key(
                    ObjectClass.SECRET_KEY,
                    KeyType.GENERIC_SECRET,
                    authority.carried,
                    mechanism=mechanism,
                    capabilities=MechanismFlag(0),
                    template=dict(UNWRAPPED),
                )


def test_an_authority_stays_where_the_token_has_no_trusted_carrier(
    bench: Bench, sealed: Sealed
) -> None:
    """A token without AES key wrap says by name that an authority's key cannot leave."""
    uri = bench.token("poor")
    config = bench.store.config
    text = config.read_text()
    mechanisms = "CKM_EC_KEY_PAIR_GEN,CKM_ECDSA,CKM_RSA_PKCS_OAEP"
    config.write_text(f"{text}slots.mechanisms = {mechanisms}\n")
    bench.reload()
    with open_token(uri) as poor:
        assert not backups_of(poor).trust(sealed.spki, so_pin=so)
        poor.make(KeyRole.CA, "ca", ec.SECP384R1(), recoverable=True)
        with pytest.raises(Unavailable, match="too long to leave under RSA") as caught:
            backups_of(poor).wrap_authority(poor.keys()[0], sealed.spki)
        assert "new authority" in str(caught.value.hint)


@pytest.mark.parametrize(
    "changed",
    [
        {"DECRYPT": "true"},
        {"EXTRACTABLE": "false"},
        {"WRAP_WITH_TRUSTED": "false"},
        {"MODIFIABLE": "true"},
        {"LABEL": "other"},
        {"ID": "00"},
        {"ALLOWED_MECHANISMS": "AES_CBC"},
        {"ALLOWED_MECHANISMS": "AES_KEY_WRAP AES_CBC"},
        {"ALLOWED_MECHANISMS": "AES_KEY_WRAP_PAD"},
        {"KEY_TYPE": "DES3"},
    ],
    ids=str,
)
def test_a_backup_with_changed_attributes_restores_nothing(
    kek: KeyBackup, new: Pkcs11Token, sealed: Sealed, changed: dict[str, Any]
) -> None:
    """A backup that would bring a key back as another kind of key is refused by the attribute."""
    with refused("backup.attributes"):
        restore(new, replace(kek, attributes=attributes(kek, **changed)), sealed)
    assert () == wrapping_of(new).keks()


def test_a_backup_that_leaves_attributes_out_restores_nothing(
    kek: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """What is not told is not taken for granted."""
    told = tuple(item for item in kek.attributes if item.name != "DECRYPT")
    with pytest.raises(Refused, match="DECRYPT is not told"):
        restore(new, replace(kek, attributes=told), sealed)


def test_another_key_than_was_signed_restores_nothing(
    token: Pkcs11Token, kek: KeyBackup, authority: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """A changed check value, a blob of another key, and a changed blob leave the token empty."""
    info = wrapping_of(token).make_kek("other", recoverable=True).info
    other = backups_of(token).wrap_kek(info, sealed.spki)
    spki = ec.generate_private_key(ec.SECP384R1()).public_key()
    der = public_bytes(spki)
    bent = bytes([kek.wrapped[0] ^ 1]) + kek.wrapped[1:]
    assert authority.carried is not None
    cut = authority.carried[:-1] + bytes([authority.carried[-1] ^ 1])
    for backup, check in (
        (replace(kek, check="00" * 32), "backup.check"),
        (replace(kek, wrapped=other.wrapped), "backup.check"),
        (replace(kek, wrapped=bent), "backup.unwrap"),
        (replace(authority, spki=der, check=key_id(der)), "backup.check"),
        (replace(authority, carried=cut), "backup.unwrap"),
        (replace(authority, wrapped=kek.wrapped), "backup.unwrap"),
    ):
        with refused(check):
            restore(new, backup, sealed)
    assert () == wrapping_of(new).keks()
    assert [] == [item for item in audit_token(new._connection.uri).objects if item.label != ""]


def test_nothing_is_restored_over_a_key_that_is_there(
    token: Pkcs11Token, kek: KeyBackup, authority: KeyBackup, new: Pkcs11Token, sealed: Sealed
) -> None:
    """Into the token it came from, and a second time, a key is refused; also under another name."""
    for backup in (kek, authority):
        with refused("backup.exists"):
            restore(token, backup, sealed)
        restore(new, backup, sealed)
        with refused("backup.exists"):
            restore(new, backup, sealed)
    renamed = replace(kek, id=b"kek-other", attributes=attributes(kek, ID=b"kek-other".hex()))
    with refused("backup.exists"):
        restore(new, renamed, sealed)


def test_another_seed_opens_no_wrapping_key(sealed: Sealed) -> None:
    """Neither another seed, nor another record, nor a public half that was put in its place."""
    other = make_wrapping_key(SEED, RECORD)
    for wrong, seed, record in (
        (sealed, bytes(32), RECORD),
        (sealed, SEED, bytes(32)),
        (Sealed(spki=other.spki, salt=sealed.salt, sealed=sealed.sealed), SEED, RECORD),
    ):
        with refused("wrap.open"), opened(wrong, seed, record):
            pass
