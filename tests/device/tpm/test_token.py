"""A TPM as a person's token."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from tpm2_pytss.constants import TPM2_ALG
from tpm2_pytss.types import TPMT_SIG_SCHEME

from custody.crypto.signature import public_bytes, sign, verify
from custody.encoding import key_id, sha256
from custody.errors import Malformed, Refused, Unavailable
from custody.formats.evidence import Attributes, EccPublic, parse_public
from custody.keys.api import KeyRole, Token
from custody.keys.tpm import TpmToken, open_token
from custody.keys.tpm_session import Tpm
from custody.keys.uri import TpmUri
from custody.lab.swtpm import Swtpm
from tests.device.tpm.asking import loaded

PIN = b"271828"


def opened(machine: Swtpm, pin: bytes = PIN, handle: int | None = None) -> TpmToken:
    """Open the machine's TPM as the token of somebody who types ``pin``."""
    uri = TpmUri(tcti=machine.tcti, handle=handle)
    return open_token(uri, pin=lambda _prompt, /: bytearray(pin))


@pytest.fixture
def token(machine: Swtpm) -> Iterator[TpmToken]:
    """A token, opened."""
    with opened(machine) as it:
        yield it


def test_it_is_a_token(token: TpmToken) -> None:
    """The adapter is what ops take for a token, and describes itself."""
    taken: Token = token
    assert (taken.info.label, taken.info.profile) == ("tpm", "tpm2")
    assert not taken.info.pin_locked


def test_a_software_tpm_calls_itself_so(token: TpmToken) -> None:
    """A software TPM's vendor string says that it is one; a chip's keys are self-asserted."""
    assert "software" == token.info.token_class


@pytest.mark.parametrize("role", [KeyRole.SIGN, KeyRole.CA, KeyRole.LOG])
def test_a_signing_key_signs(token: TpmToken, role: KeyRole) -> None:
    """A signing key signs what verifies, and does not derive."""
    key = token.make(role, "alice", ec.SECP256R1())
    verify(public_bytes(key.public_key()), b"message", sign(key, b"message"))
    with pytest.raises(Refused) as refused:
        key.exchange(ec.ECDH(), key.public_key())
    assert "key.role" == refused.value.check


def test_a_p384_signing_key_signs(token: TpmToken) -> None:
    """A P-384 key signs with SHA-384."""
    key = token.make(KeyRole.CA, "ca", ec.SECP384R1())
    verify(public_bytes(key.public_key()), b"message", sign(key, b"message"))


def test_a_prehashed_message_signs(token: TpmToken) -> None:
    """A digest made elsewhere is signed as it is."""
    key = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    made = key.sign(sha256(b"message"), ec.ECDSA(Prehashed(hashes.SHA256())))
    key.public_key().verify(made, b"message", ec.ECDSA(hashes.SHA256()))


def test_a_hash_other_than_the_keys_is_unsupported(token: TpmToken) -> None:
    """The hash is fixed in the key; another is turned away before the TPM is asked."""
    key = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    for algorithm in (
        ec.ECDSA(hashes.SHA384()),
        ec.ECDSA(hashes.SHA256(), deterministic_signing=True),
    ):
        with pytest.raises(UnsupportedAlgorithm):
            key.sign(b"message", algorithm)
    with pytest.raises(ValueError, match="wrong length"):
        key.sign(b"message", ec.ECDSA(Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("role", [KeyRole.SHARE, KeyRole.SITE])
def test_a_share_key_opens_hpke(token: TpmToken, role: KeyRole) -> None:
    """An officer's or a site's key is that of a plain RFC 9180 recipient, and does not sign."""
    key = token.make(role, "alice", ec.SECP384R1())
    suite = hpke.Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
    sealed = suite.encrypt(b"share", key.public_key(), b"info")
    assert b"share" == suite.decrypt(sealed, key, b"info")
    with pytest.raises(Refused) as refused:
        key.sign(b"message", ec.ECDSA(hashes.SHA384()))
    assert "key.role" == refused.value.check
    other = KeyRole.SITE if role is KeyRole.SHARE else KeyRole.SHARE
    with pytest.raises(Refused) as refused:
        token.find(other, id=token.keys()[-1].id)
    assert "key.role" == refused.value.check


def test_a_peer_on_another_curve_is_a_mistake(token: TpmToken) -> None:
    """Agreement is between keys of one curve."""
    key = token.make(KeyRole.SHARE, "alice", ec.SECP256R1())
    with pytest.raises(ValueError, match="another curve"):
        key.exchange(ec.ECDH(), ec.generate_private_key(ec.SECP384R1()).public_key())


def test_it_signs_certificate_requests(token: TpmToken) -> None:
    """`cryptography` takes the key for a CSR as it takes its own."""
    key = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    assert builder.sign(key, hashes.SHA256()).is_signature_valid


def test_keys_have_one_use_and_stay(machine: Swtpm, token: TpmToken) -> None:
    """Made keys have exactly one of SIGN and DECRYPT, never NO_DA, and cannot be exported."""
    for role, use in ((KeyRole.SIGN, Attributes.SIGN), (KeyRole.SHARE, Attributes.DECRYPT)):
        key = token.make(role, "alice", ec.SECP256R1())
        number = int.from_bytes(token.keys()[-1].id, "big")
        with Tpm(machine.tcti).connect("show a key") as link:
            public = parse_public(link.public(link.esys.tr_from_tpmpublic(number)))
        assert isinstance(public, EccPublic)
        assert public.attributes == (
            Attributes.FIXED_TPM
            | Attributes.FIXED_PARENT
            | Attributes.SENSITIVE_DATA_ORIGIN
            | Attributes.USER_WITH_AUTH
            | use
        )
        with pytest.raises(Refused) as refused:
            key.private_numbers()
        assert "key.export" == refused.value.check
        assert key is copy.deepcopy(key)


def test_a_key_is_found_again(machine: Swtpm, token: TpmToken) -> None:
    """By its URI or the digest of its public key, also after a reboot."""
    made = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    spki = public_bytes(made.public_key())
    info = token.keys()[0]
    assert (spki, KeyRole.SIGN) == (info.spki, info.role)
    machine.reboot()
    assert isinstance(info.uri, TpmUri)
    with opened(machine, handle=info.uri.handle) as again:
        for found in (
            again.find(KeyRole.SIGN),
            again.find(KeyRole.SIGN, id=info.id),
            again.find(KeyRole.SIGN, key_id=key_id(spki)),
        ):
            verify(spki, b"message", sign(found, b"message"))


def test_a_key_is_not_guessed(token: TpmToken) -> None:
    """Nothing given, a wrong digest, another role or no key at all: each has its own answer."""
    token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    info = token.keys()[0]
    checks = {
        "key.unpinned": {"label": "alice"},
        "key.public": {"id": info.id, "key_id": "0" * 64},
    }
    for check, given in checks.items():
        with pytest.raises(Refused) as refused:
            token.find(KeyRole.SIGN, **given)  # type: ignore[arg-type]
        assert check == refused.value.check
    with pytest.raises(Refused) as refused:
        token.find(KeyRole.CA, id=info.id)
    assert "key.role" == refused.value.check
    with pytest.raises(Unavailable):
        token.find(KeyRole.SIGN, id=b"\x81\x00\x0c\x0f")


def test_a_wrong_pin_is_never_offered_twice(machine: Swtpm, token: TpmToken) -> None:
    """One wrong PIN costs one try, however often the key is then used."""
    made = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    spki = public_bytes(made.public_key())
    with opened(machine, b"wrong") as mistaken:
        key = mistaken.find(KeyRole.SIGN, key_id=key_id(spki))
        for _ in range(4):
            with pytest.raises(Refused) as refused:
                sign(key, b"message")
            assert "token.pin" == refused.value.check
        assert mistaken.info.pin_count_low
        assert not mistaken.info.pin_locked
    verify(spki, b"message", sign(made, b"message"))
    assert loaded(machine.tcti) == ()


def test_the_last_try_is_not_spent(machine: Swtpm, token: TpmToken) -> None:
    """When one more wrong PIN would lock the TPM, no PIN is offered, right or wrong."""
    made = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    spki = public_bytes(made.public_key())
    while not token.info.pin_final_try:
        with opened(machine, b"wrong") as mistaken, pytest.raises(Refused):
            sign(mistaken.find(KeyRole.SIGN, key_id=key_id(spki)), b"message")
    with pytest.raises(Refused) as refused:
        sign(made, b"message")
    assert "token.pin-final-try" == refused.value.check


def guess_badly(machine: Swtpm, number: int) -> None:
    """Spend one try on a key, as a careless program would."""
    with suppress(Refused), Tpm(machine.tcti).connect("sign") as link:
        key = link.esys.tr_from_tpmpublic(number)
        link.esys.tr_set_auth(key, b"wrong")
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        link.esys.sign(key, bytes(32), scheme, None, session1=link.salted_session())


def test_a_locked_tpm_says_so(machine: Swtpm, token: TpmToken) -> None:
    """A TPM in lockout is refused as locked, before the PIN is offered."""
    made = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    with Tpm(machine.tcti).connect("be locked") as link:
        link.esys.dictionary_attack_parameters(2, 1000, 1000)
    # With two tries the first wrong one leaves the last, which is never spent here: somebody
    # else's program spends it.
    number = int.from_bytes(token.keys()[0].id, "big")
    for _ in range(2):
        guess_badly(machine, number)
    assert token.info.pin_locked
    with pytest.raises(Refused) as refused:
        sign(made, b"message")
    assert "token.pin-locked" == refused.value.check


def test_a_pin_too_long_for_a_tpm_is_refused(machine: Swtpm) -> None:
    """A PIN that would be cut short is refused before a key is made with it."""
    with opened(machine, b"1" * 33) as token, pytest.raises(Refused) as refused:
        token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    assert "token.pin" == refused.value.check


def test_a_curve_no_role_uses_is_malformed(token: TpmToken) -> None:
    """P-521 is not made in a TPM."""
    with pytest.raises(Malformed):
        token.make(KeyRole.SIGN, "alice", ec.SECP521R1())


def test_there_is_room_for_sixteen_keys_of_a_role(
    token: TpmToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a role's handles are all taken, the next key is refused for want of room."""
    from custody.keys import tpm_token

    handles = {**tpm_token._ROLE_HANDLES, KeyRole.LOG: range(0x81000C30, 0x81000C31)}
    monkeypatch.setattr(tpm_token, "_ROLE_HANDLES", handles)
    token.make(KeyRole.LOG, "log", ec.SECP256R1())
    with pytest.raises(Unavailable, match="no room"):
        token.make(KeyRole.LOG, "log", ec.SECP256R1())


def test_random_bytes(token: TpmToken) -> None:
    """The TPM draws as many bytes as asked, others each time."""
    one, other = token.random(40), token.random(40)
    assert (40, 40) == (len(one), len(other))
    assert one != other


def test_a_closed_token_has_forgotten_its_pin(machine: Swtpm) -> None:
    """After the block the key can no longer be used."""
    with opened(machine) as token:
        key = token.make(KeyRole.SIGN, "alice", ec.SECP256R1())
    with pytest.raises(Unavailable):
        sign(key, b"message")


def test_nothing_secret_shows(machine: Swtpm) -> None:
    """Neither PIN nor PIN source is in a repr or a key's URI."""
    uri = replace(TpmUri(tcti=machine.tcti), pin_source="fd:9")
    with open_token(uri) as token:
        assert "fd:9" not in repr(token)
