from __future__ import annotations

import hmac
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.crypto import keyslots
from custody.crypto.keyslots import HpkeSuite, SuiteName
from custody.crypto.signature import public_bytes
from custody.encoding import key_id
from custody.errors import Malformed, Refused, Unavailable
from tests.unit.crypto.vectors import Vector, each

CORE = bytes(range(32))
INFO = b"i" * 32
PLAINTEXT = bytes(range(64))
HPKE: tuple[HpkeSuite, ...] = get_args(HpkeSuite)
SUITES = pytest.mark.parametrize("suite", HPKE)
CURVES: dict[SuiteName, ec.EllipticCurve] = {
    "P256": ec.SECP256R1(),
    "P384": ec.SECP384R1(),
    "MLKEM1024_P384": ec.SECP384R1(),
}


class Token:
    """A token key: it has a curve, a public key and an exchange, and nothing can be exported."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, fault: BaseException | None = None) -> None:
        self._key = key
        self._fault = fault
        self.asked = 0

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def exchange(self, algorithm: ec.ECDH, peer: ec.EllipticCurvePublicKey) -> bytes:
        self.asked += 1
        if self._fault is not None:
            raise self._fault
        return self._key.exchange(algorithm, peer)


class Recipient:
    def __init__(self, suite: SuiteName) -> None:
        self.suite = suite
        self.key = ec.generate_private_key(CURVES[suite])
        self.spki = public_bytes(self.key.public_key())
        self.seed: bytes | None = None
        self.mlkem: bytes | None = None
        if suite == "MLKEM1024_P384":
            half = mlkem.MLKEM1024PrivateKey.generate()
            self.seed, self.mlkem = half.private_bytes_raw(), half.public_key().public_bytes_raw()

    def seal(self, plaintext: bytes = PLAINTEXT, info: bytes = INFO) -> bytes:
        return keyslots.seal(self.suite, self.spki, self.mlkem, plaintext, info=info)

    def open(self, sealed: bytes, info: bytes = INFO, key: object = None) -> bytes:
        return keyslots.open(self.suite, key or self.key, self.seed, sealed, info=info)  # type: ignore[arg-type]


RECIPIENTS: dict[SuiteName, Recipient] = {suite: Recipient(suite) for suite in HPKE}


def refused(check: str) -> pytest.RaisesExc[Refused]:
    """Expect a refusal by ``check``."""
    return pytest.RaisesExc(Refused, check=lambda error: error.check == check)


# ── slots ────────────────────────────────────────────────────────────────────────────────────────
SLOT = ("expect", "suite", "private", "seed", "recipient", "info", "sealed", "plaintext")


@each("keyslots/slots.txt", *SLOT)
def test_known_slots(vector: Vector) -> None:
    """A slot made once opens for ever, and a bad one is refused for its own reason."""
    scalar = bytes.fromhex(vector["private"])
    key = ec.derive_private_key(
        int.from_bytes(scalar, "big"), ec.SECP256R1() if len(scalar) == 32 else ec.SECP384R1()
    )
    seed = bytes.fromhex(vector["seed"]) or None
    suite: SuiteName = vector["suite"]  # type: ignore[assignment]

    def act() -> bytes:
        sealed, info = bytes.fromhex(vector["sealed"]), bytes.fromhex(vector["info"])
        return keyslots.open(suite, key, seed, sealed, info=info)

    if vector["expect"] == "good":
        assert bytes.fromhex(vector["plaintext"]) == act()
        half = seed and mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed).public_key()
        raw = half.public_bytes_raw() if half else None
        spki = public_bytes(key.public_key())
        assert vector["recipient"] == keyslots.recipient_id(spki, raw)
    else:
        with refused(vector["expect"]):
            act()


@SUITES
def test_round_trip(suite: SuiteName) -> None:
    """What is sealed opens, with the key in software and in a token, which is asked once."""
    recipient = RECIPIENTS[suite]
    sealed = recipient.seal()
    assert PLAINTEXT == recipient.open(sealed)
    token = Token(recipient.key)
    assert PLAINTEXT == recipient.open(sealed, key=token)
    assert 1 == token.asked


@SUITES
def test_sizes(suite: SuiteName) -> None:
    """A slot is its encapsulation and a tag larger than the secret."""
    overhead = {"P256": 65 + 16, "P384": 97 + 16, "MLKEM1024_P384": 1568 + 97 + 16}
    assert overhead[suite] + len(PLAINTEXT) == len(RECIPIENTS[suite].seal())


def open_by_rfc_9180(key: ec.EllipticCurvePrivateKey, sealed: bytes, info: bytes) -> bytes:
    """Open a slot from the text of RFC 9180 sections 4.1, 5.1 and 5.2, base mode."""
    kem, kdf, name, size, point = {
        "secp256r1": (0x10, 1, "sha256", 32, 65),
        "secp384r1": (0x11, 2, "sha384", 48, 97),
    }[key.curve.name]

    def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.new(salt or bytes(size), b"HPKE-v1" + suite + label + ikm, name).digest()

    def expand(suite: bytes, prk: bytes, label: bytes, data: bytes, length: int) -> bytes:
        assert length <= size
        text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + data
        return hmac.new(prk, text + b"\x01", name).digest()[:length]

    enc = sealed[:point]
    shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, enc))
    own = public_bytes(key.public_key())[-point:]
    suite = b"KEM" + kem.to_bytes(2, "big")
    secret = expand(
        suite, extract(suite, b"", b"eae_prk", shared), b"shared_secret", enc + own, size
    )
    suite = b"HPKE" + kem.to_bytes(2, "big") + kdf.to_bytes(2, "big") + b"\x00\x02"
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"")
    context += extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    cipher = AESGCM(expand(suite, secret, b"key", context, 32))
    return cipher.decrypt(expand(suite, secret, b"base_nonce", context, 12), sealed[point:], b"")


@pytest.mark.parametrize("suite", ["P256", "P384"])
def test_a_slot_is_rfc_9180(suite: SuiteName) -> None:
    """A second reading of the standard, from its text, opens our slots."""
    recipient = RECIPIENTS[suite]
    assert PLAINTEXT == open_by_rfc_9180(recipient.key, recipient.seal(), INFO)


@SUITES
def test_any_flipped_bit_of_a_slot_is_refused(suite: SuiteName) -> None:
    """One bit flipped in every byte of a slot, and every length short of it, opens nothing."""
    recipient = RECIPIENTS[suite]
    sealed = recipient.seal()
    step = 7 if recipient.mlkem else 1
    for at in range(0, len(sealed), step):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        with refused("slot.open"):
            recipient.open(bytes(changed))
        with refused("slot.open"):
            recipient.open(sealed[:at])
    with refused("slot.open"):
        recipient.open(sealed + b"\0")


@SUITES
def test_another_recipient_opens_nothing(suite: SuiteName) -> None:
    """A slot does not open for another key, nor under another info."""
    sealed = RECIPIENTS[suite].seal()
    with refused("slot.open"):
        Recipient(suite).open(sealed)
    with refused("slot.open"):
        RECIPIENTS[suite].open(sealed, info=INFO[:-1] + b"j")


def test_both_halves_of_a_hybrid_are_needed() -> None:
    """Neither the token with another seed nor the seed with another token opens a slot."""
    recipient = RECIPIENTS["MLKEM1024_P384"]
    other = Recipient("MLKEM1024_P384")
    sealed = recipient.seal()
    for key, seed in ((recipient.key, other.seed), (other.key, recipient.seed)):
        with refused("slot.open"):
            keyslots.open("MLKEM1024_P384", key, seed, sealed, info=INFO)


@SUITES
@pytest.mark.parametrize(
    "fault",
    [Unavailable("the token is gone"), Refused("no", check="pin"), RuntimeError("bug")],
    ids=["unavailable", "pin", "bug"],
)
def test_a_tokens_fault_is_its_own(suite: SuiteName, fault: Exception) -> None:
    """What a token raises comes through as it is: a pulled token is no corrupted share."""
    fault.__cause__ = OSError("device")
    recipient = RECIPIENTS[suite]
    with pytest.raises(type(fault)) as caught:
        recipient.open(recipient.seal(), key=Token(recipient.key, fault))
    assert caught.value is fault
    assert isinstance(fault.__cause__, OSError)


def test_an_interrupt_is_no_refusal() -> None:
    """^C while the token waits for a touch stops the program."""
    recipient = RECIPIENTS["P256"]
    with pytest.raises(KeyboardInterrupt):
        recipient.open(recipient.seal(), key=Token(recipient.key, KeyboardInterrupt()))


def test_a_point_the_token_refuses_is_the_slots_fault() -> None:
    """A ValueError of the exchange means the sealed point, and is refused as such."""
    recipient = RECIPIENTS["P256"]
    with refused("slot.open"):
        recipient.open(recipient.seal(), key=Token(recipient.key, ValueError("point")))


def test_a_watched_key_only_opens_slots() -> None:
    """The key handed to the HPKE library neither signs nor exports nor copies itself."""
    watched = keyslots._Watched(RECIPIENTS["P256"].key)
    assert 256 == watched.key_size
    for act in (watched.sign, watched.private_numbers, watched.private_bytes, watched.__copy__):
        with pytest.raises(TypeError, match="only opens slots"):
            act()


def test_keys_that_are_not_the_suites() -> None:
    """A key on another curve, a missing or extra ML-KEM half and an unknown suite are named."""
    p256, p384, hybrid = (RECIPIENTS[suite] for suite in HPKE)
    for suite, spki, raw in (
        ("P256", p384.spki, None),
        ("P384", p256.spki, None),
        ("P384", p384.spki, hybrid.mlkem),
        ("MLKEM1024_P384", hybrid.spki, None),
        ("MLKEM1024_P384", p256.spki, hybrid.mlkem),
        ("MLKEM1024_P384", hybrid.spki, b"short"),
        ("MLKEM1024_P384", hybrid.spki, b"\xff" * 1568),
        ("P521", p256.spki, None),
        ("P256", b"not a key", None),
    ):
        with pytest.raises(Malformed):
            keyslots.seal(suite, spki, raw, PLAINTEXT, info=INFO)  # type: ignore[arg-type]
    sealed = p256.seal()
    for suite, key, seed in (
        ("P256", p384.key, None),
        ("P384", p256.key, None),
        ("P256", p256.key, hybrid.seed),
        ("MLKEM1024_P384", hybrid.key, None),
    ):
        with refused("slot.open"):
            keyslots.open(suite, key, seed, sealed, info=INFO)  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        keyslots.open("MLKEM1024_P384", hybrid.key, b"short", hybrid.seal(), info=INFO)
    with pytest.raises(Malformed):
        keyslots.open("P521", p256.key, None, sealed, info=INFO)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_slot(sealed: bytes) -> None:
    """Random bytes are refused, and the only error is the refusal."""
    with refused("slot.open"):
        RECIPIENTS["P256"].open(sealed)


def test_recipient_ids() -> None:
    """A classical recipient is its key id; a hybrid's covers both public keys."""
    hybrid = RECIPIENTS["MLKEM1024_P384"]
    assert hybrid.mlkem is not None
    assert key_id(hybrid.spki) == keyslots.recipient_id(hybrid.spki)
    named = {
        keyslots.recipient_id(hybrid.spki),
        keyslots.recipient_id(hybrid.spki, hybrid.mlkem),
        keyslots.recipient_id(hybrid.spki, hybrid.mlkem[::-1]),
        keyslots.recipient_id(RECIPIENTS["P384"].spki, hybrid.mlkem),
    }
    assert 4 == len(named)


# ── what binds them ──────────────────────────────────────────────────────────────────────────────
BINDING = (
    "kind",
    "core",
    "request",
    "purpose",
    "leaf",
    "recipient",
    "x",
    "share",
    "salt",
    "digest",
)


@each("keyslots/bindings.txt", *BINDING)
def test_known_bindings(vector: Vector) -> None:
    """Every digest that binds a slot or share is the known one."""
    core, leaf = bytes.fromhex(vector.get("core", "")), vector["leaf"]
    if vector["kind"] == "slot-info":
        got = keyslots.slot_info(core, vector["purpose"], leaf, vector["recipient"])  # type: ignore[arg-type]
    elif vector["kind"] == "approval-info":
        got = keyslots.approval_info(vector["request"], leaf, vector["recipient"])
    else:
        assert "commitment" == vector["kind"]
        share, salt = bytes.fromhex(vector["share"]), bytes.fromhex(vector["salt"])
        got = keyslots.commitment(core, leaf, int(vector["x"]), share, salt)
    assert vector["digest"] == got.hex()


def test_every_field_is_bound() -> None:
    """Changing any one field of a slot, an approval or a commitment gives another digest."""
    one, two = "11" * 32, "22" * 32
    slots = {
        keyslots.slot_info(CORE, "share", "0/1", one),
        keyslots.slot_info(INFO, "share", "0/1", one),
        keyslots.slot_info(CORE, "contents", "0/1", one),
        keyslots.slot_info(CORE, "share", "0/11", one),
        keyslots.slot_info(CORE, "share", "", one),
        keyslots.slot_info(CORE, "share", "0/1", two),
        keyslots.approval_info(one, "0/1", one),
        keyslots.approval_info(two, "0/1", one),
        keyslots.approval_info(one, "0/2", one),
        keyslots.approval_info(one, "0/1", two),
    }
    assert 10 == len(slots)


@given(at=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_share_breaks_its_commitment(at: int, bit: int) -> None:
    """One bit flipped in share or salt, another x, leaf or manifest: another commitment."""
    share, salt = PLAINTEXT[:32], PLAINTEXT[32:]
    right = keyslots.commitment(CORE, "0/1", 2, share, salt)
    changed = bytearray(PLAINTEXT)
    changed[at] ^= 1 << bit
    assert right != keyslots.commitment(CORE, "0/1", 2, changed[:32], changed[32:])
    assert right != keyslots.commitment(CORE, "0/1", 3, share, salt)
    assert right != keyslots.commitment(CORE, "0/2", 2, share, salt)
    assert right != keyslots.commitment(INFO, "0/1", 2, share, salt)


# ── wraps ────────────────────────────────────────────────────────────────────────────────────────
@each("keyslots/wraps.txt", "expect", "ikm", "salt", "core", "purpose", "sealed", "plaintext")
def test_known_wraps(vector: Vector) -> None:
    """A known wrap opens to the known secret, and a moved or cut one is refused."""
    ikm, salt, core, sealed = (
        bytes.fromhex(vector[name]) for name in ("ikm", "salt", "core", "sealed")
    )
    if vector["expect"] == "good":
        got = keyslots.unwrap(ikm, salt, sealed, C=core, purpose=vector["purpose"])
        assert bytes.fromhex(vector["plaintext"]) == got
    else:
        with refused(vector["expect"]):
            keyslots.unwrap(ikm, salt, sealed, C=core, purpose=vector["purpose"])


@given(ikm=st.binary(min_size=32, max_size=64), secret=st.binary(max_size=64))
def test_wraps_round_trip(ikm: bytes, secret: bytes) -> None:
    """What is wrapped unwraps; the salt is fresh, so no two wraps share a key."""
    salt, sealed = keyslots.wrap(ikm, secret, C=CORE, purpose="cek")
    assert secret == keyslots.unwrap(ikm, salt, sealed, C=CORE, purpose="cek")
    assert (salt, sealed) != keyslots.wrap(ikm, secret, C=CORE, purpose="cek")


def test_any_flipped_bit_of_a_wrap_is_refused() -> None:
    """Every bit of salt, ciphertext and key counts."""
    ikm = bytearray(PLAINTEXT[:32])
    salt, sealed = keyslots.wrap(ikm, PLAINTEXT[32:], C=CORE, purpose="cek")
    whole = bytearray(salt + sealed + ikm)
    for at in range(len(whole) * 8):
        whole[at // 8] ^= 1 << at % 8
        with refused("wrap.open"):
            keyslots.unwrap(
                whole[80:], bytes(whole[:32]), bytes(whole[32:80]), C=CORE, purpose="cek"
            )
        whole[at // 8] ^= 1 << at % 8


def test_a_wraps_salt_has_32_bytes() -> None:
    """Another salt length is malformed, before any key is derived."""
    with pytest.raises(Malformed):
        keyslots.unwrap(bytes(32), bytes(31), bytes(48), C=CORE, purpose="cek")
