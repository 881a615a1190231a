"""Clulow's and Tookan's attacks, on keys made to fall to them and on every key of ours.

Bortolozzo, Centenaro, Focardi, Steel (CCS 2010), attacks A1 to A5; A5b is the unwrapping of one
blob twice, for two uses.  Each attack returns what it got hold of, or None.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, _pkcs11

from custody.keys.api import KeyRole
from custody.keys.pkcs11 import Pkcs11Token
from custody.keys.pkcs11_audit import audit_token
from custody.keys.uri import Pkcs11Uri
from tests.cli.transcript import run

KWP = Mechanism.AES_KEY_WRAP_PAD
#: How a key is wrapped and how it is decrypted, if both are by AES-CBC.
CBC: dict[str, Any] = {"mechanism": Mechanism.AES_CBC, "mechanism_param": bytes(16)}
NONE = MechanismFlag(0)
#: Every one of our keys: the roles, and key-encryption keys, which may have a backup.
OURS = [role.value for role in KeyRole] + ["kek", "recoverable kek"]


def aes(session: Any, **flags: Any) -> Any:
    """Make an AES key as badly as asked."""
    template = {Attribute[name]: value for name, value in flags.items()}
    return bare(session.generate_key(KeyType.AES, 256, capabilities=NONE, template=template))


def bare(key: Any) -> Any:
    """Give a key every operation: the binding hides those that it thinks the key cannot do."""
    operations = ("EncryptMixin", "DecryptMixin", "WrapMixin", "UnwrapMixin")
    mixins = tuple(getattr(_pkcs11, name) for name in operations)
    missing = tuple(mixin for mixin in mixins if not isinstance(key, mixin))
    return type("Bare", (*missing, type(key)), {})(key.wrapper)


def ours(token: Pkcs11Token, session: Any, name: str) -> Any:
    """Make one of our keys; return its private or secret object."""
    if name.endswith("kek"):
        info = token.wrapping().make_kek(name, recoverable=name != "kek").info
        wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: info.id}
        (found,) = session.get_objects(wanted)
        return bare(found)
    made: Any = token.make(KeyRole(name), name, ec.SECP256R1())
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: made.info.id}
    (found,) = session.get_objects(wanted)
    return bare(found)


# ── the attacks ──────────────────────────────────────────────────────────────────────────────────


def a1_wrap_and_decrypt(session: Any, key: Any) -> bytes | None:
    """Wrap a victim that may leave by ``key``, then decrypt what came out."""
    victim = aes(session, EXTRACTABLE=True)
    return bytes(key.decrypt(key.wrap_key(victim, **CBC), **CBC))


def a2_wrap_by_ones_own_key(session: Any, key: Any) -> bytes | None:
    """Bring a wrapping key of known value, and take ``key`` out under it."""
    known = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: False,
            Attribute.VALUE: os.urandom(32),
            Attribute.WRAP: True,
        }
    )
    return bytes(known.wrap_key(key, mechanism=KWP))


def a3_read(session: Any, key: Any) -> bytes | None:
    """Read the value."""
    return bytes(key[Attribute.VALUE])


def a3_unset_sensitive(session: Any, key: Any) -> bytes | None:
    """Make the key readable first."""
    key[Attribute.SENSITIVE] = False
    return bytes(key[Attribute.VALUE])


def a4_set_extractable(session: Any, key: Any) -> bytes | None:
    """Make the key extractable, then take it out."""
    key[Attribute.EXTRACTABLE] = True
    return a2_wrap_by_ones_own_key(session, key)


def a4_copy_extractable(session: Any, key: Any) -> bytes | None:
    """Make a copy that is extractable, and take that out."""
    copy = key.copy({Attribute.EXTRACTABLE: True, Attribute.TOKEN: False})
    return a2_wrap_by_ones_own_key(session, copy)


def a5_add_uses(session: Any, key: Any) -> bytes | None:
    """Take one use away and add its counterpart: a key that never has both at once."""
    victim = aes(session, EXTRACTABLE=True)
    wrapped = key.wrap_key(victim, **CBC)
    key[Attribute.WRAP] = False
    key[Attribute.DECRYPT] = True
    return bytes(key.decrypt(wrapped, **CBC))


def a5_encrypt_and_unwrap(session: Any, key: Any) -> bytes | None:
    """Encrypt a chosen value and unwrap it as a wrapping key: the attacker's own."""
    chosen = os.urandom(32)
    sealed = key.encrypt(chosen, **CBC)
    key.unwrap_key(ObjectClass.SECRET_KEY, KeyType.AES, sealed, capabilities=NONE, **CBC)
    return chosen


def a5b_unwrap_the_key_itself_twice(session: Any, key: Any) -> bytes | None:
    """Wrap ``key`` under itself, bring it back once to wrap and once to decrypt."""
    blob = key.wrap_key(key, mechanism=KWP)
    wraps, decrypts = (
        key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            blob,
            mechanism=KWP,
            capabilities=NONE,
            template={use: True, Attribute.TOKEN: False},
        )
        for use in (Attribute.WRAP, Attribute.DECRYPT)
    )
    victim = aes(session, EXTRACTABLE=True)
    return bytes(decrypts.decrypt(wraps.wrap_key(victim, **CBC), **CBC))


Attack = Callable[[Any, Any], bytes | None]
#: Each attack, a key that falls to it, and the name by which the audit refuses that key.
ATTACKS: list[tuple[Attack, dict[str, bool], str]] = [
    (a1_wrap_and_decrypt, {"WRAP": True, "DECRYPT": True}, "wrap-and-decrypt"),
    (a2_wrap_by_ones_own_key, {"EXTRACTABLE": True}, "extractable-by-anyone"),
    (a3_read, {"SENSITIVE": False, "EXTRACTABLE": True}, "readable"),
    (a5_add_uses, {"WRAP": True, "DECRYPT": False}, "modifiable"),
    (
        a5b_unwrap_the_key_itself_twice,
        {"WRAP": True, "UNWRAP": True, "EXTRACTABLE": True},
        "any-mechanism",
    ),
]
ALL: list[Attack] = [
    a1_wrap_and_decrypt,
    a2_wrap_by_ones_own_key,
    a3_read,
    a3_unset_sensitive,
    a4_set_extractable,
    a4_copy_extractable,
    a5_add_uses,
    a5_encrypt_and_unwrap,
    a5b_unwrap_the_key_itself_twice,
]


@pytest.fixture
def session(token: Pkcs11Token) -> Iterator[Any]:
    """A session of somebody who knows the PIN: all that an attacker needs here."""
    with token._connection.login(writing=True) as opened:
        yield opened


@pytest.mark.parametrize(
    ("attack", "flags", "name"), ATTACKS, ids=[attack.__name__ for attack, _, _ in ATTACKS]
)
def test_a_badly_made_key_falls_and_is_refused_by_name(
    token: Pkcs11Token,
    uri: Pkcs11Uri,
    attack: Attack,
    flags: dict[str, bool],
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attack works, so that its failing below says something; the audit would have told."""
    with token._connection.login(writing=True) as session:
        assert attack(session, aes(session, TOKEN=False, **flags))
        aes(session, TOKEN=True, LABEL="weak", **flags)
    (held,) = audit_token(uri).objects
    assert {"secret", "weak"} == {held.kind, held.label}
    assert name in {finding.name for finding in audit_token(uri).findings if finding.weak}
    said = run("token", "audit", str(uri), capsys=capsys, monkeypatch=monkeypatch)
    assert 1 == said.code
    assert f"NO  {name} " in said.out
    assert name in said.err


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("name", OURS)
def test_no_attack_works_on_a_key_of_ours(
    token: Pkcs11Token, session: Any, name: str, attack: Attack
) -> None:
    """Whoever knows the PIN gets nothing out of a key that our templates made."""
    key = ours(token, session, name)
    with pytest.raises(pkcs11.PKCS11Error):
        attack(session, key)


def test_the_audit_finds_nothing_in_keys_of_ours(
    token: Pkcs11Token,
    uri: Pkcs11Uri,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token with a key of each role passes, and each is shown with its role."""
    with token._connection.login(writing=True) as session:
        for name in OURS:
            ours(token, session, name)
    report = audit_token(uri)
    assert [] == [finding for finding in report.findings if finding.weak]
    assert {"unwraps"} == {finding.name for finding in report.findings}
    roles = {item.role for item in report.objects if item.kind in ("private", "secret")}
    assert {role.value for role in KeyRole} | {"kek"} == roles
    assert 2 * len(KeyRole) + 2 == len(report.objects)
    said = run("token", "audit", str(uri), capsys=capsys, monkeypatch=monkeypatch)
    assert (0, "") == (said.code, said.err)


def test_an_empty_token_is_said_to_be_empty(
    uri: Pkcs11Uri, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there, and that is what is shown."""
    said = run("token", "audit", str(uri), capsys=capsys, monkeypatch=monkeypatch)
    assert (0, "the token is empty\n", "") == (said.code, said.out, said.err)
