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
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, _pkcs11

from custody.crypto.oaepslots import parameters_of
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


#: Attacks that SoftHSM 2.6.1 stops by itself, on the most careless key that could fall to them, and
#: what it answers: CKR_ATTRIBUTE_READ_ONLY, for SENSITIVE and EXTRACTABLE move one way in any
#: template, and CKR_MECHANISM_INVALID, for what it encrypts by it does not unwrap by.
STOPPED: list[tuple[Attack, dict[str, bool], type[pkcs11.PKCS11Error]]] = [
    (a3_unset_sensitive, {"SENSITIVE": True, "EXTRACTABLE": True}, pkcs11.AttributeReadOnly),
    (a4_set_extractable, {"SENSITIVE": False, "EXTRACTABLE": False}, pkcs11.AttributeReadOnly),
    (a4_copy_extractable, {"SENSITIVE": False, "EXTRACTABLE": False}, pkcs11.AttributeReadOnly),
    (a5_encrypt_and_unwrap, {"ENCRYPT": True, "UNWRAP": True}, pkcs11.MechanismInvalid),
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


OAEP: dict[str, Any] = {
    "mechanism": Mechanism.RSA_PKCS_OAEP,
    "mechanism_param": (Mechanism.SHA_1, MGF.SHA1, None),
}


def rsa_halves(session: Any, public: dict[str, bool], private: dict[str, bool]) -> tuple[Any, Any]:
    """Make an RSA pair whose halves lie under two ids, protected but for the uses asked."""
    protected = {"SENSITIVE": True, "EXTRACTABLE": False, "MODIFIABLE": True, "COPYABLE": False}
    templates = (
        {"ID": b"a", "LABEL": "in", "TRUSTED": False, **public},
        {"ID": b"b", "LABEL": "out", **protected, **private},
    )
    made = session.generate_keypair(
        KeyType.RSA,
        2048,
        store=True,
        capabilities=NONE,
        mechanism_param=None,
        public_template={Attribute[name]: value for name, value in templates[0].items()},
        private_template={
            **{Attribute[name]: value for name, value in templates[1].items()},
            Attribute.ALLOWED_MECHANISMS: (Mechanism.RSA_PKCS_OAEP,),
        },
    )
    return bare(made[0]), bare(made[1])


def weak(uri: Pkcs11Uri) -> set[tuple[str, str]]:
    """Return the names refused, and of what."""
    return {(f.name, f.subject) for f in audit_token(uri).findings if f.weak}


def test_a_pair_whose_halves_lie_under_two_ids_falls_and_is_refused(
    token: Pkcs11Token, uri: Pkcs11Uri
) -> None:
    """A2 by a pair: one half wraps, the other decrypts, and no id says that they are one key."""
    with token._connection.login(writing=True) as session:
        wraps, decrypts = rsa_halves(session, {"WRAP": True}, {"DECRYPT": True})
        victim = aes(session, TOKEN=False, EXTRACTABLE=True)
        taken = decrypts.decrypt(wraps.wrap_key(victim, **OAEP), **OAEP)
        assert 32 == len(taken)
    report = audit_token(uri)
    assert 1 == len({item.digest for item in report.objects if item.digest})
    assert {"61", "62"} == {item.id for item in report.objects}
    assert ("wrap-and-decrypt", "public 'in' id 61") in weak(uri)


@pytest.mark.parametrize(
    ("uses", "name"),
    [
        (("UNWRAP", "DECRYPT"), "unwrap-and-decrypt"),
        (("SIGN_RECOVER", "DECRYPT"), "sign-recover-and-decrypt"),
        (("SIGN_RECOVER", "UNWRAP"), "sign-recover-and-unwrap"),
    ],
)
def test_a_private_key_with_uses_that_conflict_is_refused(
    token: Pkcs11Token, uri: Pkcs11Uri, uses: tuple[str, str], name: str
) -> None:
    """A private key that may take keys in must not also show what lies in them."""
    with token._connection.login(writing=True) as session:
        rsa_halves(session, {"WRAP": False}, dict.fromkeys(uses, True))
    assert (name, "private 'out' id 62") in weak(uri)


def test_one_private_key_as_two_objects_is_refused(token: Pkcs11Token, uri: Pkcs11Uri) -> None:
    """A copy with the other use is the same key: what one object takes in the other reads."""
    with token._connection.login(writing=True) as session:
        rsa_halves(session, {"WRAP": False}, {"DECRYPT": True, "UNWRAP": False, "COPYABLE": True})
    assert "unwrap-and-decrypt" not in {name for name, _ in weak(uri)}
    with token._connection.login(writing=True) as session:
        (decrypts,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        decrypts.copy(
            {
                Attribute.ID: b"c",
                Attribute.LABEL: "copy",
                Attribute.DECRYPT: False,
                Attribute.UNWRAP: True,
            }
        )
    wanted = {("unwrap-and-decrypt", "private 'copy' id 63")}
    wanted.add(("unwrap-and-decrypt", "private 'out' id 62"))
    assert wanted <= weak(uri)


def test_every_attack_has_a_key_that_falls_or_is_stopped_by_the_token() -> None:
    """None is tried on our keys of which nobody has seen what it does to a bad one."""
    seen = [attack for attack, _, _ in ATTACKS] + [attack for attack, _, _ in STOPPED]
    assert sorted(seen, key=ALL.index) == ALL


@pytest.mark.parametrize(
    ("attack", "flags", "answer"), STOPPED, ids=[attack.__name__ for attack, _, _ in STOPPED]
)
def test_softhsm_stops_it_on_any_key(
    session: Any, attack: Attack, flags: dict[str, bool], answer: type[pkcs11.PKCS11Error]
) -> None:
    """No key here falls to these: that ours do not either is SoftHSM's doing before it is ours."""
    careless = aes(session, TOKEN=False, MODIFIABLE=True, COPYABLE=True, **flags)
    # It may be changed, copied and used; what is refused is the step that the attack is about.
    careless[Attribute.LABEL] = "changed"
    careless.copy({Attribute.TOKEN: False, Attribute.LABEL: "copied"})
    if flags.get("ENCRYPT"):
        careless.encrypt(bytes(32), **CBC)
    with pytest.raises(answer):
        attack(session, careless)


def a5_encrypt_and_unwrap_by_a_pair(public: Any, private: Any) -> bytes:
    """Encrypt a chosen value to one half and unwrap it by the other: the attacker's own key."""
    chosen = os.urandom(32)
    made = bare(
        private.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            public.encrypt(chosen, **OAEP),
            capabilities=NONE,
            template={Attribute.TOKEN: False, Attribute.ENCRYPT: True},
            **OAEP,
        )
    )
    known = Cipher(algorithms.AES(chosen), modes.CBC(bytes(16))).encryptor()
    assert known.update(bytes(16)) == made.encrypt(bytes(16), **CBC)
    return chosen


def test_a_pair_that_encrypts_and_unwraps_falls_and_ours_does_not(
    token: Pkcs11Token, uri: Pkcs11Uri
) -> None:
    """A5 where SoftHSM has it, by RSA: a careless pair takes a known key in, a share key's not."""
    suite = parameters_of("RSA2048_OAEP_SHA1")
    assert suite is not None
    info = token.decrypting().make("share", suite).info
    with token._connection.login(writing=True) as session:
        assert a5_encrypt_and_unwrap_by_a_pair(
            *rsa_halves(session, {"ENCRYPT": True}, {"UNWRAP": True})
        )
        public, private = (
            bare(*session.get_objects({Attribute.CLASS: kind, Attribute.ID: info.id}))
            for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
        )
        with pytest.raises(pkcs11.PKCS11Error, match="0x68"):  # CKR_KEY_FUNCTION_NOT_PERMITTED
            a5_encrypt_and_unwrap_by_a_pair(public, private)
    assert ("unwrap-and-encrypt", "public 'in' id 61") in weak(uri)
    assert {"public 'in' id 61", "private 'out' id 62"} == {subject for _, subject in weak(uri)}


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
