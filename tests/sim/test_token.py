"""What custody does when a token fails: the PIN, the plug, the memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, Mechanism, ObjectClass

from custody.crypto import signature
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import CustodyError, Refused, Unavailable
from custody.keys.api import KeyRole, Token
from custody.keys.pkcs11 import Pkcs11Token
from custody.keys.pkcs11_key import TokenKey
from custody.keys.pkcs11_module import Module
from custody.keys.pkcs11_templates import private_template, public_template
from custody.keys.profiles import UNKNOWN, Behaviour, Quirk
from custody.keys.uri import Pkcs11Uri
from tests.sim.token import Device, Library, key_pair, of_class, session_objects

P256 = ec.SECP256R1()


class Person:
    """Answers every PIN prompt and remembers having been asked."""

    def __init__(self, pin: bytes = b"123456") -> None:
        self.pin = pin
        self.given: list[bytearray] = []

    def __call__(self, prompt: str, /) -> bytearray:
        self.given.append(bytearray(self.pin))
        return self.given[-1]


def refusal(check: str, action: Callable[[], object]) -> Refused:
    """Run ``action``, which must be refused by ``check``."""
    with pytest.raises(Refused) as caught:
        action()
    assert check == caught.value.check
    return caught.value


def planted(device: Device, role: KeyRole, label: str, id_: bytes) -> str:
    """Put a key pair into the device without custody; return its key id."""
    secret = ec.generate_private_key(P256)
    key_pair(
        device,
        secret,
        dict(public_template(role, label=label, id=id_, curve=P256)),
        dict(private_template(role, label=label, id=id_)),
    )
    return key_id(public_bytes(secret.public_key()))


def test_pin_is_asked_once_and_wiped() -> None:
    """One command asks for the PIN once, logs in once per operation, and leaves zeros behind."""
    device, person = Device(), Person()
    with device.open(person) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        for _ in range(3):
            signature.sign(key, b"message")
    assert [bytearray(6)] == person.given
    # Making a key logs in once for making and trying it.
    assert 4 == device.calls["login"]
    assert device.calls["logout"] == device.calls["login"]
    assert 0 == device.sessions


def test_nothing_is_asked_before_it_is_needed() -> None:
    """Opening a token, reading what it is and drawing random bytes ask for no PIN."""
    device, person = Device(), Person()
    with device.open(person) as token:
        assert "sim" == token.info.label
        assert bytes(range(8)) == token.random(8)
    assert [] == person.given
    assert 0 == device.calls["login"]


def test_wrong_pin_is_tried_once() -> None:
    """After a wrong PIN every later operation is refused without the token hearing of it."""
    device, person = Device(), Person(b"654321")
    with device.open(person) as token:
        for _ in range(3):
            error = refusal("token.pin", token.keys)
            assert "654321" not in f"{error} {error.hint} {error!r}"
    assert 1 == device.calls["login"]
    assert [bytearray(6)] == person.given
    assert 2 == device.tries_left


def test_low_count_is_shown_and_final_try_is_not_spent() -> None:
    """A token one wrong PIN from locking is not given any PIN at all."""
    device, person = Device(), Person()
    device.tries_left = 2
    with device.open(person) as token:
        before = token.info
        device.tries_left = 1
        after = token.info
        error = refusal("token.pin-final-try", token.keys)
    assert (True, False) == (before.pin_count_low, before.pin_final_try)
    assert (True, True) == (after.pin_count_low, after.pin_final_try)
    assert error.hint is not None
    assert 0 == device.calls["login"]
    assert [] == person.given


def test_locked_pin_is_refused_before_asking() -> None:
    """A locked token is reported as locked and the person is not asked for his PIN."""
    device, person = Device(), Person()
    device.tries_left = 0
    with device.open(person) as token:
        assert token.info.pin_locked
        refusal("token.pin-locked", token.keys)
    assert [] == person.given


def test_token_that_locks_at_login_is_named_locked() -> None:
    """A token that hides its flags and answers PinLocked is reported as locked, once."""
    device = Device()
    device.fail("login", pkcs11.PinLocked)
    with device.open(Person()) as token:
        refusal("token.pin-locked", token.keys)
        refusal("token.pin-locked", token.keys)
    assert 1 == device.calls["login"]


def test_tries_left_are_told_with_the_refusal() -> None:
    """Whoever typed a wrong PIN reads what the next one would do; nothing tries it for him."""
    device, person = Device(), Person(b"654321")
    with device.open(person) as token:
        assert refusal("token.pin", token.keys).reason == "the PIN is wrong"
    with device.open(person) as token:
        told = refusal("token.pin", token.keys).reason
        assert "the PIN is wrong; one more wrong one locks the token" == told
        refusal("token.pin-final-try", token.keys)
    with device.open(person) as token:
        refusal("token.pin-final-try", token.keys)
    assert (1, 2) == (device.tries_left, device.calls["login"])


def test_a_pinpad_is_left_to_ask() -> None:
    """A token with keys of its own asks there: nobody is asked here, but each time he is told."""
    device, person, told = Device(pinpad=True), Person(), list[str]()
    with device.open(person, notice=told.append) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        signature.verify(public_bytes(key.public_key()), b"x", signature.sign(key, b"x"))
    assert [] == person.given
    assert ["type the PIN at the keys of token sim"] * device.calls["login"] == told


def test_a_key_that_asks_each_time_is_none_for_a_pinpad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be waited for there within an operation: none is made, and one is not used."""
    known(monkeypatch, behaviour=(ASKS_TO_SIGN,))
    device = Device(pinpad=True)
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        (item,) = of_class(device, ObjectClass.PRIVATE_KEY)
        assert not item.attributes[Attribute.ALWAYS_AUTHENTICATE]
        item.attributes[Attribute.ALWAYS_AUTHENTICATE] = True
        with pytest.raises(Unavailable, match="cannot be waited for"):
            signature.sign(key, b"x")
    assert (0, device.tries) == (device.calls["reaffirm"], device.tries_left)


def test_a_wrong_pin_at_a_pinpad_is_not_asked_for_again() -> None:
    """After one wrong entry the command ends, though the token would ask as often as it is told."""
    device = Device(pinpad=True, typed=b"000000")
    with device.open(Person()) as token:
        for _ in range(3):
            refusal("token.pin", token.keys)
    assert (1, 2) == (device.calls["login"], device.tries_left)


def test_nobody_at_the_pinpad() -> None:
    """An entry that was given up or timed out is no wrong PIN: the command may be run again."""
    device = Device(pinpad=True)
    device.fail("login", pkcs11.FunctionCancelled)
    with device.open(Person()) as token, pytest.raises(Unavailable, match="not entered"):
        token.keys()
    assert device.tries == device.tries_left


def test_a_token_that_cannot_be_written_to() -> None:
    """A write-protected token says so when a key is made, and nothing of it is left."""
    device = Device()
    device.fail("generate", pkcs11.TokenWriteProtected)
    with device.open(Person()) as token, pytest.raises(Unavailable, match="cannot be written"):
        token.make(KeyRole.SIGN, "alice", P256)
    assert [] == device.objects


def test_a_key_that_cannot_be_taken_away_is_told() -> None:
    """Where the token does not destroy a key that failed its checks, whoever made it is told."""
    device = Device()
    device.lies[Attribute.COPYABLE] = True
    device.fail("destroy", pkcs11.FunctionRejected)
    with device.open(Person()) as token:
        error = refusal("key.template", lambda: token.make(KeyRole.CA, "authority", P256))
    assert "the key 'authority' stays in the token, which does not destroy it" == error.hint


def test_nothing_is_made_for_what_the_token_does_not_offer() -> None:
    """Without the role's mechanism no key is generated at all."""
    device = Device(mechanisms=(Mechanism.EC_KEY_PAIR_GEN, Mechanism.ECDSA))
    with device.open(Person()) as token:
        token.make(KeyRole.SIGN, "alice", P256)
        with pytest.raises(Unavailable, match="ECDH1_DERIVE"):
            token.make(KeyRole.SHARE, "alice", P256)
    assert 1 == device.calls["generate"]


def test_the_security_officers_pin_is_not_the_users() -> None:
    """The security officer's PIN given for the user's is a wrong PIN: one try, and it is said."""
    device = Device()
    with device.open(Person(b"so-pin-8")) as token:
        refusal("token.pin", token.keys)
        assert token.info.pin_count_low
    assert 1 == device.calls["login"]


def test_closed_token_has_no_pin() -> None:
    """A key kept after its token was closed cannot be used."""
    device = Device()
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
    with pytest.raises(Unavailable, match="closed"):
        signature.sign(key, b"message")


PULLS = [
    *((call, "before") for call in ("open", "login", "find", "read", "sign", "logout", "close")),
    *((call, "after") for call in ("login", "sign")),
]


@pytest.mark.parametrize(("call", "when"), PULLS)
def test_token_pulled_at_any_call(call: str, when: str) -> None:
    """A token pulled out at any call of a signature is `Unavailable`, and says so the next time."""
    device = Device()
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        device.calls.clear()
        device.pull(call, when=when)
        with pytest.raises(Unavailable, match="the token is gone"):
            signature.sign(key, b"message")
        with pytest.raises(Unavailable, match="the token is gone"):
            signature.sign(key, b"message")


def test_token_back_in_its_slot_works_again() -> None:
    """After a fault the same command may go on with the same token."""
    device = Device()
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        device.pull("sign", nth=2)
        with pytest.raises(Unavailable):
            signature.sign(key, b"message")
        device.present = True
        signature.verify(public_bytes(key.public_key()), b"x", signature.sign(key, b"x"))


def test_another_token_in_the_slot_gets_no_pin() -> None:
    """A token with the same label but another serial number is not the one that was opened."""
    device, person = Device(), Person()
    with device.open(person) as token:
        device.serial = b"0000000000000002"
        with pytest.raises(Unavailable, match="gone"):
            token.keys()
    assert [] == person.given


def test_full_token() -> None:
    """A token without room for a key says so and keeps nothing of it."""
    device = Device(capacity=3)
    with device.open(Person()) as token:
        token.make(KeyRole.SIGN, "alice", P256)
        with pytest.raises(Unavailable, match="full"):
            token.make(KeyRole.SHARE, "alice", P256)
    assert 2 == len(device.objects)


def test_derived_value_is_destroyed() -> None:
    """The session object holding an agreed secret is gone after each exchange, failed or not."""
    device = Device()
    peer = ec.generate_private_key(P256).public_key()
    with device.open(Person()) as token:
        key = token.make(KeyRole.SHARE, "alice", P256)
        key.exchange(ec.ECDH(), peer)
        assert [] == session_objects(device)
        device.calls.clear()
        device.fail("read", pkcs11.DeviceError, nth=1)
        with pytest.raises(Unavailable, match="fault"):
            key.exchange(ec.ECDH(), peer)
    assert [] == session_objects(device)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (Attribute.EXTRACTABLE, True),
        (Attribute.SENSITIVE, False),
        (Attribute.DERIVE, True),
        (Attribute.DECRYPT, True),
        (Attribute.UNWRAP, True),
        (Attribute.MODIFIABLE, True),
        (Attribute.COPYABLE, True),
        (Attribute.LOCAL, False),
        (Attribute.ALWAYS_SENSITIVE, False),
        (Attribute.NEVER_EXTRACTABLE, False),
        (Attribute.ALLOWED_MECHANISMS, ()),
    ],
)
def test_made_key_that_reads_back_differently_is_destroyed(
    attribute: Attribute, value: object
) -> None:
    """A token that changes an attribute of the template gets its key taken away again."""
    device = Device(lies={attribute: value})
    with device.open(Person()) as token:
        error = refusal("key.template", lambda: token.make(KeyRole.SIGN, "alice", P256))
    assert attribute.name in error.reason
    assert [] == device.objects


def test_found_key_that_may_do_more_is_refused() -> None:
    """A key that may also derive is no signing key, whoever made it."""
    device = Device()
    digest = planted(device, KeyRole.SIGN, "alice", b"\x01")
    with device.open(Person()) as token:
        assert "alice" in repr(token.find(KeyRole.SIGN, key_id=digest))
        of_class(device, ObjectClass.PRIVATE_KEY)[0].attributes[Attribute.DERIVE] = True
        refusal("key.template", lambda: token.find(KeyRole.SIGN, key_id=digest))


ASKS_TO_SIGN = Behaviour(id="always-authenticate.sign", answer="yes", source="unverified")
#: How a key reads that asks each time, whatever its device was asked for.
ASKS = {Attribute.ALWAYS_AUTHENTICATE: True}


def known(monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """Give the device a profile that says ``more`` of it."""
    profile = msgspec.structs.replace(UNKNOWN, **more)
    monkeypatch.setattr("custody.keys.pkcs11_module.profile_behind", lambda *_, **__: profile)


def test_a_key_that_asks_each_time_is_stricter_and_taken() -> None:
    """A device that has it so, as a slot of a card, needs no excuse; the PIN is given again."""
    device, person = Device(lies=ASKS), Person()
    with device.open(person) as token:
        made = token.make(KeyRole.SIGN, "alice", P256)
        signature.sign(token.find(KeyRole.SIGN, id=token.keys()[0].id), b"x")
        assert isinstance(made, TokenKey)
        assert ("always-authenticates",) == made.info.quirks == token.keys()[0].quirks
    # Once to try the pair, once to sign: still the one PIN the person gave.
    assert 2 == device.calls["reaffirm"]
    assert [bytearray(6)] == person.given


@pytest.mark.parametrize("role", KeyRole)
def test_a_key_asks_each_time_where_the_token_has_it(
    monkeypatch: pytest.MonkeyPatch, role: KeyRole
) -> None:
    """A person's signing key is made so, and says nothing of it; keys for other roles are not."""
    known(monkeypatch, behaviour=(ASKS_TO_SIGN,))
    device = Device()
    with device.open(Person()) as token:
        token.make(role, "alice", P256)
        (item,) = of_class(device, ObjectClass.PRIVATE_KEY)
        assert (role is KeyRole.SIGN) == item.attributes[Attribute.ALWAYS_AUTHENTICATE]
        (listed,) = token.keys()
        assert () == listed.quirks
    assert (role is KeyRole.SIGN) == bool(device.calls["reaffirm"])


def test_a_key_made_to_ask_that_does_not_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profile says that the token has is held to when a key is made; older keys serve."""
    known(monkeypatch, behaviour=(ASKS_TO_SIGN,))
    device = Device(lies={Attribute.ALWAYS_AUTHENTICATE: False})
    with device.open(Person()) as token:
        error = refusal("key.template", lambda: token.make(KeyRole.SIGN, "alice", P256))
        assert "ALWAYS_AUTHENTICATE is false" in error.reason
        assert [] == device.objects
        digest = planted(device, KeyRole.SIGN, "older", b"\x01")
        signature.sign(token.find(KeyRole.SIGN, key_id=digest), b"x")
    assert 0 == device.calls["reaffirm"]


def test_a_recoverable_key_is_as_its_backup_tells_it() -> None:
    """A key that can be backed up is made anew in another token, so it is exactly its template."""
    device = Device(lies=ASKS)
    with device.open(Person()) as token:
        error = refusal(
            "key.template", lambda: token.make(KeyRole.CA, "authority", P256, recoverable=True)
        )
    assert "ALWAYS_AUTHENTICATE is true" in error.reason


def test_a_pin_refused_at_a_signature_is_not_offered_again() -> None:
    """Changed under the command, the PIN costs one try, though a key asks for it at each use."""
    device = Device(lies=ASKS)
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        device.calls.clear()
        with token.session():
            device.pin = b"999999"
            for _ in range(3):
                refusal("token.pin", lambda: signature.sign(key, b"x"))
    assert (1, device.tries - 1) == (device.calls["reaffirm"], device.tries_left)


def test_the_last_try_is_not_spent_on_a_signature() -> None:
    """A key that asks at each use is not given the PIN where one more wrong one would lock it."""
    device = Device(lies=ASKS)
    with device.open(Person()) as token:
        key = token.make(KeyRole.SIGN, "alice", P256)
        device.calls.clear()
        with token.session():
            device.tries_left = 1
            refusal("token.pin-final-try", lambda: signature.sign(key, b"x"))
    assert (0, 1) == (device.calls["reaffirm"], device.tries_left)


COPIES = Quirk(
    id="stays-copyable",
    object="private",
    attribute="COPYABLE",
    reads=True,
    why="the firmware does not know it",
    source="unverified",
)


def test_quirk_excuses_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference the profile names is accepted and shown with the key."""
    known(monkeypatch, quirk=(COPIES,))
    with Device(lies={Attribute.COPYABLE: True}).open(Person()) as token:
        made = token.make(KeyRole.SIGN, "alice", P256)
        assert isinstance(made, TokenKey)
        assert ("stays-copyable",) == made.info.quirks == token.keys()[0].quirks


@pytest.mark.parametrize(
    "other", [{"object": "public"}, {"attribute": "DERIVE"}, {"reads": "missing"}, {"reads": False}]
)
def test_quirk_excuses_nothing_else(monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]) -> None:
    """A quirk for another object, attribute or value leaves the difference refused."""
    known(monkeypatch, quirk=(msgspec.structs.replace(COPIES, **other),))
    with Device(lies={Attribute.COPYABLE: True}).open(Person()) as token:
        refusal("key.template", lambda: token.make(KeyRole.SIGN, "alice", P256))


def test_label_alone_finds_nothing() -> None:
    """A key must be named by its id or its public key's digest."""
    device = Device()
    planted(device, KeyRole.SIGN, "alice", b"\x01")
    with device.open(Person()) as token:
        refusal("key.unpinned", lambda: token.find(KeyRole.SIGN, label="alice"))
    assert 0 == device.calls["login"]


def test_decoy_with_the_same_label_is_refused_by_name() -> None:
    """A key with the right label and another public key is named in the refusal."""
    device = Device()
    real = planted(device, KeyRole.SIGN, "alice", b"\x01")
    with device.open(Person()) as token:
        token.find(KeyRole.SIGN, label="alice", key_id=real)
        device.objects.clear()
        decoy = planted(device, KeyRole.SIGN, "alice", b"\x01")
        error = refusal("key.public", lambda: token.find(KeyRole.SIGN, label="alice", key_id=real))
    assert decoy[:16] in error.reason
    assert "'alice'" in error.reason


def test_decoy_beside_the_real_key_does_not_hide_it() -> None:
    """With both in the token the digest finds the real one, by label or by id."""
    device = Device()
    real = planted(device, KeyRole.SIGN, "alice", b"\x01")
    planted(device, KeyRole.SIGN, "alice", b"\x02")
    with device.open(Person()) as token:
        found = token.find(KeyRole.SIGN, label="alice", key_id=real)
        assert real == key_id(public_bytes(found.public_key()))


def test_public_decoy_under_the_same_id_is_ambiguous() -> None:
    """A second public key under a key's id, which needs no PIN to store, makes the id no name."""
    device = Device()
    real = planted(device, KeyRole.SIGN, "alice", b"\x01")
    other = Device()
    planted(other, KeyRole.SIGN, "alice", b"\x01")
    device.objects += of_class(other, ObjectClass.PUBLIC_KEY)
    with device.open(Person()) as token:
        refusal("key.ambiguous", lambda: token.find(KeyRole.SIGN, id=b"\x01"))
        found = token.find(KeyRole.SIGN, id=b"\x01", key_id=real)
        signature.verify(public_bytes(found.public_key()), b"x", signature.sign(found, b"x"))


def test_missing_key_is_unavailable() -> None:
    """No match is a question that could not be put, not a refusal."""
    with Device().open(Person()) as token, pytest.raises(Unavailable, match="no such key"):
        token.find(KeyRole.SIGN, id=b"\x09")


def test_roles_do_not_share_keys() -> None:
    """A key made for certificates is refused for statements though its attributes are the same."""
    device = Device()
    with device.open(Person()) as token:
        made = token.make(KeyRole.CA, "root", P256)
        assert isinstance(made, TokenKey)
        refusal("key.role", lambda: token.find(KeyRole.SIGN, id=made.info.id))
        refusal("key.role", lambda: made.exchange(ec.ECDH(), made.public_key()))
        share = token.make(KeyRole.SHARE, "share", P256)
        refusal("key.role", lambda: share.sign(b"", ec.ECDSA(hashes.SHA256())))


def test_two_tokens_match() -> None:
    """A URI that two tokens match opens neither, and the hint tells them apart."""
    one, two = Device(), Device(serial=b"0000000000000002", slot_id=8)
    module = Module(Library([one, two]), path=one.module().path)
    uri = Pkcs11Uri(token="sim")
    error = refusal("token.ambiguous", lambda: Pkcs11Token(module, uri, pin=None))
    assert error.hint is not None
    assert "0000000000000002" in error.hint
    opened = Pkcs11Token(module, replace(uri, serial="0000000000000002"), pin=None)
    assert "0000000000000002" == opened.info.serial


def test_two_logins_of_one_process() -> None:
    """While one command is logged in, another opening the same token is told so, not let in."""
    device = Device()
    module = device.module()
    uri = Pkcs11Uri(token="sim")
    first = Pkcs11Token(module, uri, pin=Person())
    # The token would answer "already logged in" to a wrong PIN too.
    second = Pkcs11Token(module, uri, pin=Person(b"wrong pin"))
    with first.session(), pytest.raises(Unavailable, match="logged in"):
        second.keys()
    assert 1 == device.calls["login"]


def test_session_scope_logs_in_once() -> None:
    """Operations inside ``session()`` share one login, making a key among them."""
    device = Device()
    with device.open(Person()) as token:
        with token.session():
            key = token.make(KeyRole.SIGN, "alice", P256)
            signature.sign(key, b"one")
            token.find(KeyRole.SIGN, id=token.keys()[0].id)
            token.random(8)
        assert 1 == device.calls["login"]
        assert not device.logged_in
    assert 0 == device.sessions


def test_child_process_is_refused() -> None:
    """A process forked after the library was loaded may not use it."""
    device = Device()
    token = device.open(Person())
    child = os.fork()
    if child == 0:
        try:
            token.keys()
        except Unavailable as error:
            os._exit(42 if "forked" in error.reason else 1)
        os._exit(2)
    assert 42 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_adapter_is_a_token() -> None:
    """The adapter satisfies the protocol everything above it is written against."""
    token: Token = Device().open(Person())
    assert "unknown" == token.info.profile


LIBRARY_ERRORS = [
    value
    for value in vars(pkcs11.exceptions).values()
    if isinstance(value, type) and issubclass(value, pkcs11.PKCS11Error)
]


@pytest.mark.parametrize("error", LIBRARY_ERRORS)
def test_every_library_error_is_one_of_ours(error: type[pkcs11.PKCS11Error]) -> None:
    """Whatever the library answers, the caller sees one of the four kinds, and the PIN nowhere."""
    device = Device()
    with device.open(Person()) as token:
        device.fail("find", error)
        with pytest.raises(CustodyError) as caught:
            token.keys()
    assert caught.value.reason[0].islower()
    assert "123456" not in repr(caught.value)
