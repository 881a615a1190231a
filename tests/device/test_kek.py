"""Key-encryption keys on a real token: made, told apart, used, and refused where they differ."""

from __future__ import annotations

import json
import os
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from custody.crypto.bind import bind
from custody.errors import Malformed, Refused, Unavailable
from custody.keys.pkcs11 import Pkcs11Token, open_token
from custody.keys.pkcs11_kek import CHECKED, check_value, full_kek_template
from custody.keys.profiles import UNKNOWN, profile_named
from custody.keys.uri import Pkcs11Uri
from custody.keys.wrapapi import wrapping_of
from tests.cli.transcript import run
from tests.device.conftest import Bench

KWP = Mechanism.AES_KEY_WRAP_PAD


def planted(token: Pkcs11Token, *, profile: str = "softhsm2", **changed: Any) -> None:
    """Put a key into the token that lies about nothing but is not as it must be."""
    given = {Attribute[name]: value for name, value in changed.items()}
    known = UNKNOWN if profile == "unknown" else profile_named(profile)
    template = dict(
        full_kek_template(
            label="kek", id=b"kek-0000", mechanism=KWP, recoverable=False, profile=known
        )
    )
    fixed = template.pop(Attribute.MODIFIABLE)
    template |= given
    template.setdefault(Attribute.MODIFIABLE, fixed)
    with token._connection.login(writing=True) as session:
        session.generate_key(
            KeyType.AES, 256, store=True, capabilities=MechanismFlag(0), template=template
        )


@pytest.mark.parametrize("recoverable", [False, True])
def test_a_kek_wraps_and_unwraps(token: Pkcs11Token, *, recoverable: bool) -> None:
    """What one KEK wrapped it unwraps, after it was found anew; another does not."""
    secret = os.urandom(32)
    made = wrapping_of(token).make_kek("site", recoverable=recoverable)
    other = wrapping_of(token).make_kek("other", recoverable=recoverable)
    wrapped = made.wrap(secret)
    assert 40 == len(wrapped)
    assert secret not in wrapped
    again = wrapping_of(token).find_kek(label="site", check=made.info.check)
    assert made.info == again.info
    assert (recoverable, False) == (again.info.recoverable, again.info.restored)
    assert secret == again.unwrap(wrapped)
    with pytest.raises(Refused) as caught:
        other.unwrap(wrapped)
    assert "kek.unwrap" == caught.value.check
    for at in (0, 20, 39):
        changed = bytearray(wrapped)
        changed[at] ^= 1
        with pytest.raises(Refused, match="was changed"):
            again.unwrap(bytes(changed))


@pytest.mark.parametrize("recoverable", [False, True])
def test_a_kek_is_not_destroyed_by_its_user(token: Pkcs11Token, *, recoverable: bool) -> None:
    """One wrong command does not lose all that it wrapped: it goes with the token alone."""
    made = wrapping_of(token).make_kek("site", recoverable=recoverable)
    with token._connection.login(writing=True) as session:
        (held,) = session.get_objects({Attribute.ID: made.info.id})
        with pytest.raises(pkcs11.PKCS11Error):
            held.destroy()
    secret = os.urandom(32)
    assert secret == made.unwrap(made.wrap(secret))


def test_keks_are_told_apart_by_their_check_value(token: Pkcs11Token) -> None:
    """A label names several; a check value names one; a label alone names none."""
    keks = wrapping_of(token)
    one = keks.make_kek("site", recoverable=False).info
    planted(token, LABEL="site", ID=b"kek-another")
    (two,) = (kek for kek in keks.keks() if kek.id == b"kek-another")
    assert one.check != two.check
    assert {one, two} == set(keks.keks())
    assert one == keks.find_kek(id=one.id).info
    for label, check, wanted in (("site", None, "key.unpinned"), ("site", "00" * 32, "kek.check")):
        with pytest.raises(Refused) as caught:
            keks.find_kek(label=label, check=check)
        assert wanted == caught.value.check
    with pytest.raises(Unavailable, match="no such key"):
        keks.find_kek(label="other", check=one.check)


def test_a_label_that_is_there_makes_no_second_kek(
    token: Pkcs11Token,
    uri: Pkcs11Uri,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody destroys one by mistake, so nobody makes a second that he would take for the first."""
    wrapping_of(token).make_kek("site", recoverable=False)
    said = run(
        *("token", "make-kek", str(uri), "--label", "site"), capsys=capsys, monkeypatch=monkeypatch
    )
    assert (1, "") == (said.code, said.out)
    assert "a key labelled 'site' is in the token already" in said.err
    assert 1 == len(wrapping_of(token).keks())


def test_a_check_value_is_what_rfc_5649_makes_it(token: Pkcs11Token) -> None:
    """Whoever has the key computes the same check value without a token."""
    key = os.urandom(32)
    with token._connection.login(writing=True) as session:
        held = session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.TOKEN: False,
                Attribute.VALUE: key,
                Attribute.WRAP: True,
            }
        )
        found = check_value(session, held, KWP)
    assert bind("kek-check", aes_key_wrap_with_padding(key, CHECKED)).hex() == found


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"DECRYPT": True}, "DECRYPT"),
        ({"ENCRYPT": True}, "ENCRYPT"),
        ({"DERIVE": True}, "DERIVE"),
        ({"EXTRACTABLE": True}, "WRAP_WITH_TRUSTED"),
        ({"MODIFIABLE": True}, "MODIFIABLE"),
        ({"COPYABLE": True}, "COPYABLE"),
        ({"SENSITIVE": False}, "SENSITIVE"),
        ({"ALLOWED_MECHANISMS": (KWP, Mechanism.AES_CBC)}, "ALLOWED_MECHANISMS"),
    ],
    ids=str,
)
def test_a_key_that_may_do_more_is_no_kek(
    token: Pkcs11Token, changed: dict[str, Any], name: str
) -> None:
    """A key with one attribute other than the template's is refused by that attribute's name."""
    planted(token, **changed)
    assert () == wrapping_of(token).keks()
    with pytest.raises(Refused, match=name) as caught:
        wrapping_of(token).find_kek(id=b"kek-0000")
    assert "key.template" == caught.value.check


def test_a_kek_that_unwraps_for_any_use_is_refused(token: Pkcs11Token) -> None:
    """Tookan's A5b, on a key that reads back like ours: without bounds on what it unwraps."""
    planted(token, profile="unknown")
    with pytest.raises(Refused, match="uses that its template does not allow"):
        wrapping_of(token).find_kek(id=b"kek-0000")


def test_an_imported_key_is_no_kek_of_ours(token: Pkcs11Token) -> None:
    """A key whose value somebody knew is refused, unless it is of those that are backed up."""
    template = dict(
        full_kek_template(
            label="kek",
            id=b"kek-0000",
            mechanism=KWP,
            recoverable=False,
            profile=profile_named("softhsm2"),
        )
    )
    with token._connection.login(writing=True) as session:
        fixed = template.pop(Attribute.MODIFIABLE)
        session.create_object({**template, Attribute.VALUE: bytes(32), Attribute.MODIFIABLE: fixed})
    with pytest.raises(Refused, match="LOCAL"):
        wrapping_of(token).find_kek(id=b"kek-0000")


def test_only_secrets_of_one_size_are_wrapped(token: Pkcs11Token) -> None:
    """Padding is where tokens differ: nothing that needs any is wrapped."""
    kek = wrapping_of(token).make_kek("site", recoverable=False)
    with pytest.raises(Malformed):
        kek.wrap(bytes(33))
    with pytest.raises(Malformed):
        kek.unwrap(bytes(48))
    with pytest.raises(Malformed):
        wrapping_of(token).make_kek("a\nb", recoverable=False)


def test_a_token_without_key_wrap_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that offers no AES key wrap makes no KEK, and says what it lacks."""
    uri = bench.token("poor")
    config = bench.store.config
    config.write_text(config.read_text() + "slots.mechanisms = CKM_AES_KEY_GEN,CKM_ECDSA\n")
    bench.reload()
    with open_token(uri) as poor, pytest.raises(Unavailable, match="AES key wrap"):
        wrapping_of(poor).make_kek("site", recoverable=False)


def test_a_kek_is_made_by_a_command(
    uri: Pkcs11Uri, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the command shows names the key it made."""
    said = run(
        *("token", "make-kek", str(uri), "--label", "site", "--recoverable", "--json"),
        capsys=capsys,
        monkeypatch=monkeypatch,
    )
    assert (0, "") == (said.code, said.err)
    view = json.loads(said.out)
    with open_token(uri) as token:
        info = wrapping_of(token).find_kek(label="site", check=view["check"]).info
    assert (str(info.uri), True, False) == (view["uri"], view["recoverable"], view["restored"])
    said = run(*("token", "audit", str(uri)), capsys=capsys, monkeypatch=monkeypatch)
    assert (0, "") == (said.code, said.err)
    assert "secret  AES   site   kek" in said.out
